"""The fills of a run as rows for the page, each with its effect on the position; results as in the metrics."""

from __future__ import annotations

from typing import Any

import polars as pl

from agent_bt.core.types import Fill
from agent_bt.evaluation.metrics import trade_results
from agent_bt.records.schema import json_schema


def build_trade_rows(fills: pl.DataFrame) -> list[dict[str, Any]]:
    """Build one row per fill, in order; times in ms.

    `result` is the net profit of a fill that closes (part of) a position, `held` the time since the position was
    opened; both are None for a fill that opens.
    """
    values = [Fill(**row) for row in fills.cast(json_schema(fills.schema)).iter_rows(named=True)]
    results = iter(trade_results(values))
    rows = []
    held: dict[str, tuple[float, int]] = {}
    for fill in values:
        position, opened = held.get(fill.symbol, (0.0, fill.time))
        closes = position * fill.quantity < 0.0
        after = position + fill.quantity
        if abs(after) <= 1e-9 * abs(position):
            after = 0.0
        result = next(results) if closes else None
        rows.append(
            {
                "time": fill.time // 1000,
                "symbol": fill.symbol,
                "side": "BUY" if fill.quantity > 0 else "SELL",
                "quantity": abs(fill.quantity),
                "price": fill.price,
                "notional": abs(fill.quantity * fill.price),
                "fee": fill.fee,
                "slippage": fill.slippage,
                "reason": fill.reason,
                "result": result,
                "held": (fill.time - opened) // 1000 if closes else None,
                "position": after,
            }
        )
        held[fill.symbol] = (after, opened if position and after * position > 0.0 else fill.time)
    return rows
