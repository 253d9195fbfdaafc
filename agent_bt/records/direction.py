"""What a decision amounts to, BUY, SELL or HOLD: a decision by target shares is what its orders do.

Orders of both signs, as a portfolio gives them, count as BUY.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

BY_TARGETS = "TARGETS"


def direction(content: Mapping[str, Any]) -> str:
    """BUY, SELL or HOLD of one record (`schema.content_of`)."""
    action: str = content["action"]
    if action != BY_TARGETS:
        return action
    lots = [order["lots"] for order in content["orders"]]
    return "BUY" if any(lot > 0 for lot in lots) else "SELL" if any(lot < 0 for lot in lots) else "HOLD"


def direction_column() -> pl.Expr:
    """The same for every row of a decisions table."""
    ordered = pl.when(buys()).then(pl.lit("BUY")).when(sells()).then(pl.lit("SELL")).otherwise(pl.lit("HOLD"))
    return pl.when(pl.col("action") == BY_TARGETS).then(ordered).otherwise(pl.col("action"))


def buys() -> pl.Expr:
    """Whether any order of a row of a decisions table buys."""
    return (_lots().list.max() > 0).fill_null(False)


def sells() -> pl.Expr:
    """Whether any order of a row of a decisions table sells."""
    return (_lots().list.min() < 0).fill_null(False)


def _lots() -> pl.Expr:
    return pl.col("orders").list.eval(pl.element().struct.field("lots"))
