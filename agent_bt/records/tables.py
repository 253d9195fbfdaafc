"""The tables of every run folder: fills, the equity curve, the bars used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.schema import TIME
from agent_bt.core.types import Fill
from agent_bt.engine.market import Market
from agent_bt.records.decision_record import fill_to_row
from agent_bt.records.files import whole_file
from agent_bt.records.schema import FILL, json_schema

FILL_SCHEMA = pl.Schema(FILL)

_EQUITY: dict[str, Any] = {
    "time": TIME,
    **dict.fromkeys(("equity", "cash", "exposure", "price", "drawdown"), pl.Float64),
}
EQUITY_SCHEMA = pl.Schema(_EQUITY)
"""`equity.parquet`, one row per bar: its close time; equity and cash in quote units; exposure as a fraction of equity;
drawdown (<= 0, a fraction); the close, or for several symbols an index of their closes (`compute_benchmark_price`)."""


def fills_frame(fills: Sequence[Fill]) -> pl.DataFrame:
    """Build the table of fills, in order; columns of `FILL_SCHEMA`."""
    return pl.DataFrame([fill_to_row(fill) for fill in fills], schema=json_schema(FILL_SCHEMA)).cast(FILL_SCHEMA)


def equity_frame(
    *, time: np.ndarray, equity: np.ndarray, exposure: np.ndarray, price: np.ndarray, initial_cash: float
) -> pl.DataFrame:
    """Build the equity curve as a table of `EQUITY_SCHEMA`; the drawdown counts the starting cash as a peak.

    Args:
        time: close times, UTC us, int64 (T,).
        equity: at these closes, quote units, float64 (T,).
        exposure: signed fraction of equity, float64 (T,); cash follows from it.
        price: see `compute_benchmark_price`, float64 (T,).
        initial_cash: starting cash, quote units.
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


def compute_benchmark_price(market: Market) -> np.ndarray:
    """Compute the price that the equity is compared with, from the first bar of the run on, float64 (T,).

    For one symbol its close. For several an equally weighted index without costs: 1 at the first bar, then moved at
    every bar by the mean return of the symbols that were eligible at the previous bar.
    """
    first = market.first
    if len(market.symbols) == 1:
        return market.close[first:, 0]
    moves, count = np.zeros(len(market) - first), np.zeros(len(market) - first, np.int64)
    # One symbol after another, in a fixed order: little memory, and the same bits on every machine.
    for number in range(len(market.symbols)):
        at = np.flatnonzero(market.eligible[first:-1, number]) + 1
        close = market.close[first:, number]
        moves[at] += close[at] / close[at - 1] - 1.0
        count[at] += 1
    return np.cumprod(1.0 + moves / np.maximum(count, 1))


def write_table(path: Path, frame: pl.DataFrame) -> None:
    """Write a table as Parquet; the file is complete or unchanged.

    Args:
        path: the file to create or replace.
        frame: the table.

    Raises:
        RecordError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        frame.write_parquet(temporary, compression="zstd")
