"""When decisions are made: at closes on multiples of the decision interval, once the window is full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_bt.engine.market import Market


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Rows of the decision bars, int64, ascending; and how many decisions fell into an outage."""

    bars: np.ndarray
    skipped: int


def decision_schedule(market: Market, every: int, end: int) -> Schedule:
    """The decisions of a run up to `end` (UTC us, inclusive), `every` us apart, aligned to UTC.

    A decision needs a bar that closes at its instant and traded; where there is none it is skipped, and counted.
    """
    if market.ready >= len(market):
        return Schedule(bars=np.empty(0, np.int64), skipped=0)
    first = -(-int(market.times[market.ready]) // every) * every
    due = np.arange(first, end + 1, every, dtype=np.int64)
    rows = np.searchsorted(market.times, due)
    inside = rows < len(market)
    rows, due = rows[inside], due[inside]
    made = rows[(market.times[rows] == due) & market.traded[rows].any(axis=1)]
    return Schedule(bars=made, skipped=int(len(inside) - len(made)))
