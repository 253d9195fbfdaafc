"""The records of an account: fixed layouts that Python and compiled code share, all fields of eight bytes."""

from __future__ import annotations

import numpy as np


def _record(*, floats: str, ints: str) -> np.dtype:
    return np.dtype([(name, np.float64) for name in floats.split()] + [(name, np.int64) for name in ints.split()])


ACCOUNT = _record(floats="cash realised fees slippage funding equity peak drawdown", ints="halted waiting held events")
"""Amounts in quote units; `drawdown` <= 0, a fraction; numbers of `waiting` orders, of open positions (`held`) and of
buffered `events`; `halted` as named below."""

POSITION = _record(floats="quantity average target", ints="lots opened ordered")
"""Signed base units and lots, average entry price, the target weight given last (NaN: none), the row in which it was
opened, and the signed lots of the orders that wait."""

ORDER = _record(floats="", ints="lots due at_close forced")
"""Signed lots (0: free slot), row of the bar it is due in, at its close or open, exempt from minimum sizes."""

RULES = _record(
    floats="fee_rate slippage scale multiple min_notional stop_loss take_profit max_drawdown max_leverage",
    ints="min_lots allow_short margin delay at_close",
)
"""Fees and slippage as fractions; a lot is multiple / scale; 0 switches stop_loss, take_profit and max_drawdown off;
`delay` in bars.

`margin` 0: a spot account, whose cash never falls below 0. 1: positions are held on margin, up to `max_leverage` times
the equity in all; the account is closed when its equity is used up."""

EVENT = _record(floats="quantity price reference fee slippage realised", ints="kind bar symbol lots reason")

FILLED, DROPPED = 0, 1
"""Kinds of event: a fill; an order that was dropped because it was below a minimum, or cash or position did not allow
it."""
ORDERED, STOP_LOSS, TAKE_PROFIT, DRAWDOWN, DELISTED, USED_UP = range(6)
REASONS = ("order", "stop_loss", "take_profit", "drawdown", "delisted", "used_up")
RUNNING, AT_DRAWDOWN, AT_NOTHING, AT_TOO_MANY_LOTS = 0, 1, 2, 3
"""Values of `ACCOUNT.halted`: trading goes on; the drawdown limit was passed; the equity was used up; an
order was too large to be held exactly (an error in every driver)."""


def new_positions(symbols: int) -> np.ndarray:
    """Return the `POSITION` records of an account that holds nothing and was given no target."""
    positions = np.zeros(symbols, POSITION)
    positions["target"] = np.nan
    return positions
