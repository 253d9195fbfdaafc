"""The tables of a run folder beside the decisions: fills, the equity curve, the bars used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.schema import TIME
from agent_bt.core.types import Fill
from agent_bt.engine.market import Market
from agent_bt.records.files import whole_file
from agent_bt.records.schema import FILL, fill_row, json_schema

FILL_SCHEMA = pl.Schema(FILL)

_EQUITY: dict[str, Any] = {
    "time": TIME,
    **dict.fromkeys(("equity", "cash", "exposure", "price", "drawdown"), pl.Float64),
}
EQUITY_SCHEMA = pl.Schema(_EQUITY)
"""Per bar: its close time; equity and cash (quote units), share of equity held, drawdown (<= 0, a share); the close, or
over several symbols an index of their closes (see `price_of`)."""


def fills_frame(fills: Sequence[Fill]) -> pl.DataFrame:
    """The fills as a table, in order; columns of `FILL_SCHEMA`."""
    return pl.DataFrame([fill_row(fill) for fill in fills], schema=json_schema(FILL_SCHEMA)).cast(FILL_SCHEMA)


def equity_frame(
    *, time: np.ndarray, equity: np.ndarray, exposure: np.ndarray, price: np.ndarray, initial_cash: float
) -> pl.DataFrame:
    """The equity curve as a table of `EQUITY_SCHEMA`; all arrays (T,), `time` int64 close times in UTC us.

    Cash follows from equity and exposure (a signed share of equity); the drawdown counts the starting cash as a peak.
    """
    peak = np.maximum(np.maximum.accumulate(equity), initial_cash)
    columns = {
        "time": time,
        "equity": equity,
        "cash": equity * (1.0 - exposure),
        "exposure": exposure,
        "price": price,
        "drawdown": equity / peak - 1.0,
    }
    return pl.DataFrame(columns).cast(EQUITY_SCHEMA)


def price_of(market: Market) -> np.ndarray:
    """What the equity is shown beside, from the first bar of the run on, float64 (T,).

    The close of a single symbol. Of several an index: 1 at the first bar, then moved by the mean return of the symbols
    that were eligible at the bar before, equal in weight at every bar, without costs.
    """
    first = market.first
    if len(market.symbols) == 1:
        return market.close[first:, 0]
    moves, count = np.zeros(len(market) - first), np.zeros(len(market) - first, np.int64)
    # Symbol by symbol, and in their order: little memory, and the same bits everywhere.
    for number in range(len(market.symbols)):
        at = np.flatnonzero(market.eligible[first:-1, number]) + 1
        close = market.close[first:, number]
        moves[at] += close[at] / close[at - 1] - 1.0
        count[at] += 1
    return np.cumprod(1.0 + moves / np.maximum(count, 1))


def write_table(path: Path, frame: pl.DataFrame) -> None:
    """Write a table as Parquet; it appears whole or not at all.

    Raises:
        RecordError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        frame.write_parquet(temporary, compression="zstd")
