"""The schedule: at which bars decisions are made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent_bt.engine.market import Market


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The decisions of a run.

    Attributes:
        bars: rows of the decisions that are made and recorded, int64, ascending.
        due: rows of all decisions, int64, ascending; also those at which the targets of a vectorised strategy do not
            change, which are not recorded.
        skipped: number of decisions that fell into an outage.
    """

    bars: np.ndarray
    due: np.ndarray
    skipped: int

    @property
    def unchanged(self) -> int:
        """Number of decisions that change nothing and are not recorded."""
        return len(self.due) - len(self.bars)

    def head(self, count: int) -> Schedule:
        """Return the schedule of the first `count` decisions."""
        return replace(self, bars=self.bars[:count], due=self.due[:count])

    def record_only(self, changed: np.ndarray) -> Schedule:
        """Return the schedule that records some decisions only; the first one is always recorded.

        Args:
            changed: indices into `due` of the decisions whose targets change, int64, ascending.
        """
        return replace(self, bars=self.due[np.union1d(np.zeros(min(1, len(self.due)), np.int64), changed)])


def decision_schedule(market: Market, due: np.ndarray) -> Schedule:
    """Schedule the decisions of a run.

    A decision needs a full window, and a bar that closes at its instant and traded; without that bar it is skipped and
    counted.

    Args:
        market: the market of the run.
        due: instants at which decisions are due, int64, UTC us, ascending.
    """
    if market.ready >= len(market):
        return Schedule(bars=np.empty(0, np.int64), due=np.empty(0, np.int64), skipped=0)
    due = due[due >= market.times[market.ready]]
    rows = np.searchsorted(market.times, due)
    inside = rows < len(market)
    rows, due = rows[inside], due[inside]
    made = rows[(market.times[rows] == due) & market.traded[rows].any(axis=1)]
    return Schedule(bars=made, due=made, skipped=int(len(inside) - len(made)))
