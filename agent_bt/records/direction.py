"""The direction of a decision, BUY, SELL or HOLD; that of target weights follows from the orders.

Orders of both signs, as in a portfolio, count as BUY.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

BY_TARGETS = "TARGETS"
"""The action of a decision that gives target weights."""


def direction(content: Mapping[str, Any]) -> str:
    """Return BUY, SELL or HOLD for the content of one record (`decision_record.build_content`)."""
    action: str = content["action"]
    if action != BY_TARGETS:
        return action
    lots = [order["lots"] for order in content["orders"]]
    return "BUY" if any(lot > 0 for lot in lots) else "SELL" if any(lot < 0 for lot in lots) else "HOLD"


def direction_column() -> pl.Expr:
    """Return the expression that gives the direction of every row of a decisions table."""
    ordered = pl.when(buys()).then(pl.lit("BUY")).when(sells()).then(pl.lit("SELL")).otherwise(pl.lit("HOLD"))
    return pl.when(pl.col("action") == BY_TARGETS).then(ordered).otherwise(pl.col("action"))


def buys() -> pl.Expr:
    """Return the expression that is true where a row of a decisions table has an order to buy."""
    return (_lots().list.max() > 0).fill_null(False)


def sells() -> pl.Expr:
    """Return the expression that is true where a row of a decisions table has an order to sell."""
    return (_lots().list.min() < 0).fill_null(False)


def _lots() -> pl.Expr:
    return pl.col("orders").list.eval(pl.element().struct.field("lots"))
