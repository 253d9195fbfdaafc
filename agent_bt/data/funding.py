"""Funding of perpetuals: the settlements of a range, and each rate on the bar at whose end it is due.

A settlement at instant tau concerns who holds a position at tau, and stands on the bar with close_time == tau: the
settlements of bars in [start, end) are those in (start, end].
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import polars as pl

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import DataError, MissingData
from agent_bt.core.schema import TIME
from agent_bt.data.parquet import FUNDING_COLUMN
from agent_bt.data.settlements import FUNDING_SCHEMA
from agent_bt.data.spans import Span, subtract
from agent_bt.data.store import SETTLEMENTS, Store


class FundingSource(Protocol):
    """A source of one perpetual that knows its settlements."""

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """The settlements in (start, end] (UTC us), columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: the source does not cover the range.
        """
        ...


class PanelFundingSource(Protocol):
    """A source of many perpetuals that knows their settlements."""

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """The settlements of `symbol` in (start, end] (UTC us), columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: the source does not cover the range.
        """
        ...


def load_funding(source: FundingSource, bars: pl.DataFrame) -> pl.DataFrame:
    """The bars of `source` with their column `funding_rate`; see `with_funding`.

    Raises:
        MissingData: the source does not have all settlements of these bars.
    """
    funding = FUNDING_SCHEMA.to_frame() if bars.is_empty() else source.fetch_funding(*_life(bars))
    return with_funding(bars, funding)


def load_panel_funding(source: PanelFundingSource, bars: pl.DataFrame) -> pl.DataFrame:
    """The same for a panel, each symbol over its own life; bars that have the column already are given back.

    Raises:
        MissingData: the source does not have all settlements of these bars.
    """
    if FUNDING_COLUMN in bars.columns:
        return bars
    parts = [
        with_funding(part, source.fetch_funding(str(part["symbol"][0]), *_life(part)))
        for part in bars.partition_by("symbol", maintain_order=True)
    ]
    return pl.concat(parts)


def fetch_funding(root: Path | str, symbol: str, start: int, end: int) -> pl.DataFrame:
    """The settlements in (start, end] of the backfilled store, columns of `FUNDING_SCHEMA`.

    The one at `end` itself is the first of what comes after: it is given if it is there, and not asked for.

    Raises:
        MissingData: settlements before `end` were never backfilled; the message has the command that does it.
        DataError: a file of the store is damaged.
    """
    store = Store(root, symbol, "um", SETTLEMENTS)
    if missing := subtract([Span(start + MINUTE, end)], store.offsets().covered):
        spans = ", ".join(str(span) for span in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise MissingData(f"store um/{symbol}: no funding for {spans}; fetch it with\n  {store.command(missing)}")
    return store.read(Span(start + MINUTE, end + MINUTE))


def check_perpetual(kind: str) -> None:
    """Refuse a market that has no funding.

    Raises:
        DataError: `kind` is not `um`.
    """
    if kind != "um":
        raise DataError(f"market.kind {kind} has no funding; perpetuals are market.kind: um")


def with_funding(bars: pl.DataFrame, funding: pl.DataFrame) -> pl.DataFrame:
    """Put each rate on the bar at whose end it is due, as `funding_rate` (Float64, null elsewhere).

    A settlement within a bar, or in a gap before one, counts at the end of that bar; several are summed. Those at or
    before the first bar's open, and after the last bar's close, are left out.

    Args:
        bars: of one symbol, `BAR_SCHEMA` or more, sorted by time.
        funding: `FUNDING_SCHEMA`, sorted.
    """
    if bars.is_empty():
        return bars.with_columns(pl.lit(None, dtype=pl.Float64).alias(FUNDING_COLUMN))
    closes = bars.select("close_time")
    due = (
        funding.filter(pl.col("funding_time") > bars["open_time"].min())
        .join_asof(
            closes.with_columns(bar=pl.col("close_time")),
            left_on="funding_time",
            right_on="close_time",
            strategy="forward",
        )
        .drop_nulls("bar")
        .group_by("bar", maintain_order=True)
        .agg(pl.col("rate").sum().alias(FUNDING_COLUMN))
        .select(pl.col("bar").cast(TIME).alias("close_time"), FUNDING_COLUMN)
    )
    return bars.join(due, on="close_time", how="left", maintain_order="left")


def _life(bars: pl.DataFrame) -> tuple[int, int]:
    return int(bars["open_time"].cast(pl.Int64)[0]), int(bars["close_time"].cast(pl.Int64)[-1])
