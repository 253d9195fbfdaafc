"""Small markets for tests: rows of (open, high, low, close[, traded])."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules

MINUTE = 60_000_000


class Candles:
    """Prices of one symbol from literal rows."""

    def __init__(self, rows: Sequence[Sequence[float]], symbol: str = "BTCUSDT") -> None:
        table = np.array([tuple(row[:4]) for row in rows], dtype=np.float64)
        self.symbols = (symbol,)
        self.times = (np.arange(len(rows), dtype=np.int64) + 1) * MINUTE
        self.open, self.high, self.low, self.close = (
            np.ascontiguousarray(table[:, at]).reshape(-1, 1) for at in range(4)
        )
        self.traded = np.array([bool(row[4]) if len(row) > 4 else True for row in rows]).reshape(-1, 1)
        self.eligible = np.ones_like(self.traded)
        self.funding = np.empty((0, 1))
        self.ends = np.full(1, len(rows), np.int64)
        self.special = np.empty(0, np.int64)


DEFAULTS: dict[str, Any] = {
    "fill": "close", "latency_bars": 0, "slippage_bps": 0.0, "fee_rate": 0.0, "lot_step": 0.00001, "min_quantity": 0.0,
    "min_notional": 0.0, "stop_loss": None, "take_profit": None, "max_drawdown": None, "allow_short": False,
}  # fmt: skip


def account(
    rows: Sequence[Sequence[float]], cash: float = 10_000.0, **changes: Any
) -> tuple[SimulatedBroker, RiskLimitedSizer]:
    """A broker and a sizer on the candles; `changes` to defaults without costs."""
    limits = {"max_position": 1.0, "max_gross": 1.0, "no_trade_band": 0.0, "allow_short": False}
    limits.update(
        {key: changes.pop(key) for key in list(changes) if key in ("max_position", "max_gross", "no_trade_band")}
    )
    rules = make_rules(**{**DEFAULTS, **changes})
    prices = Candles(rows)
    broker = SimulatedBroker(prices=prices, rules=rules, cash=cash)
    return broker, RiskLimitedSizer(symbols=prices.symbols, rules=rules, limits=make_limits(**limits))
