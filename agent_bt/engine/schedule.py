"""When decisions are made: at closes on the instants that are due, once the window is full."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent_bt.engine.market import Market


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Rows of the decision bars, int64, ascending; how many decisions fell into an outage, and which are silent.

    `bars`: the decisions that are walked through and recorded; `due`: all of them, with the silent ones, at which a
    strategy whose targets are known beforehand has nothing new to say.
    """

    bars: np.ndarray
    due: np.ndarray
    skipped: int

    @property
    def unchanged(self) -> int:
        """Decisions that are made and change nothing, and are not recorded."""
        return len(self.due) - len(self.bars)

    def head(self, count: int) -> Schedule:
        """The first so many decisions."""
        return replace(self, bars=self.bars[:count], due=self.due[:count])

    def only(self, changed: np.ndarray) -> Schedule:
        """Return the schedule with the other decisions unrecorded.

        `changed`: indices into `due` of the decisions that ask for something, int64, ascending; the first decision is
        always recorded.
        """
        return replace(self, bars=self.due[np.union1d(np.zeros(min(1, len(self.due)), np.int64), changed)])


def decision_schedule(market: Market, due: np.ndarray) -> Schedule:
    """The decisions at the instants `due` (int64, UTC us, ascending).

    A decision needs a full window and a bar that closes at its instant and traded; where that bar is missing it is
    skipped, and counted.
    """
    if market.ready >= len(market):
        return Schedule(bars=np.empty(0, np.int64), due=np.empty(0, np.int64), skipped=0)
    due = due[due >= market.times[market.ready]]
    rows = np.searchsorted(market.times, due)
    inside = rows < len(market)
    rows, due = rows[inside], due[inside]
    made = rows[(market.times[rows] == due) & market.traded[rows].any(axis=1)]
    return Schedule(bars=made, due=made, skipped=int(len(inside) - len(made)))
