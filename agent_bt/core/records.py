"""The records of an account: fixed layouts that Python and compiled code share, all fields of eight bytes."""

from __future__ import annotations

import numpy as np


def _record(*, floats: str, ints: str) -> np.dtype:
    return np.dtype([(name, np.float64) for name in floats.split()] + [(name, np.int64) for name in ints.split()])


ACCOUNT = _record(floats="cash realised fees slippage funding equity peak drawdown", ints="halted waiting held events")
"""Amounts in quote units; `drawdown` <= 0, a share; `waiting` orders; `held` open positions; `events` buffered."""

POSITION = _record(floats="quantity average target", ints="lots opened ordered")
"""Signed base units and lots, average entry price, the target share given last (NaN: none), row it was opened in, and
the signed lots of the orders that wait."""

ORDER = _record(floats="", ints="lots due at_close forced")
"""Signed lots (0: free slot), row of the bar it is due in, at its close or open, exempt from minimum sizes."""

RULES = _record(
    floats="fee_rate slippage scale multiple min_notional stop_loss take_profit max_drawdown max_leverage",
    ints="min_lots allow_short margin delay at_close",
)
"""Costs as shares; a lot is multiple / scale; 0 switches stop_loss, take_profit, max_drawdown off; `delay` in bars.

`margin` 0: a spot account, whose cash never falls below 0. 1: positions are held on margin, up to `max_leverage` times
the equity in all; the account is closed when nothing is left of it."""

EVENT = _record(floats="quantity price reference fee slippage realised", ints="kind bar symbol lots reason")

FILLED, DROPPED = 0, 1
"""Kinds of event: a fill; an order that was given up because it fell below a minimum, the cash or the holding."""
ORDERED, STOP_LOSS, TAKE_PROFIT, DRAWDOWN, DELISTED, USED_UP = range(6)
REASONS = ("order", "stop_loss", "take_profit", "drawdown", "delisted", "used_up")
RUNNING, AT_DRAWDOWN, AT_NOTHING = 0, 1, 2
"""Values of `ACCOUNT.halted`: trading goes on; the drawdown limit was passed; the equity was used up."""


def new_positions(symbols: int) -> np.ndarray:
    """The `POSITION` records of an account that holds nothing and was told nothing."""
    positions = np.zeros(symbols, POSITION)
    positions["target"] = np.nan
    return positions
