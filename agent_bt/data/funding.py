"""Load the funding settlements of perpetuals and assign each rate to the bar at whose close it is due.

A settlement at instant tau is paid on positions held at tau and belongs to the bar with close_time == tau: the
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
    """A data source of one perpetual that has its settlements."""

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """Return the settlements in (start, end].

        Args:
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: the source does not cover the range.
        """
        ...


class PanelFundingSource(Protocol):
    """A data source of many perpetuals that has their settlements."""

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """Return the settlements of `symbol` in (start, end].

        Args:
            symbol: as the exchange writes it.
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: the source does not cover the range.
        """
        ...


def load_funding(source: FundingSource, bars: pl.DataFrame) -> pl.DataFrame:
    """Add the column `funding_rate` to bars of one perpetual; see `with_funding`.

    Args:
        source: has the settlements.
        bars: columns of `BAR_SCHEMA`, sorted by time.

    Raises:
        MissingData: the source does not have all settlements of these bars.
    """
    funding = FUNDING_SCHEMA.to_frame() if bars.is_empty() else source.fetch_funding(*_range(bars))
    return with_funding(bars, funding)


def load_panel_funding(source: PanelFundingSource, bars: pl.DataFrame) -> pl.DataFrame:
    """Add the column `funding_rate` to bars of many perpetuals; bars that have it already are returned unchanged.

    Args:
        source: has the settlements of each symbol from its first to its last bar.
        bars: columns of `PANEL_SCHEMA`, sorted by symbol and time.

    Raises:
        MissingData: the source does not have all settlements of these bars.
    """
    if FUNDING_COLUMN in bars.columns:
        return bars
    parts = [
        with_funding(part, source.fetch_funding(str(part["symbol"][0]), *_range(part)))
        for part in bars.partition_by("symbol", maintain_order=True)
    ]
    return pl.concat(parts)


def fetch_funding(root: Path | str, symbol: str, start: int, end: int) -> pl.DataFrame:
    """Read the settlements in (start, end] from the backfilled store.

    A settlement at `end` itself is optional: it is returned if the store has it, and no error if not.

    Args:
        root: folder of the store, `data.root`.
        symbol: as the exchange writes it.
        start: UTC us, exclusive.
        end: UTC us, inclusive.

    Returns:
        One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

    Raises:
        MissingData: settlements before `end` were never backfilled; the message has the command that fetches them.
        DataError: a file of the store is damaged.
    """
    store = Store(root, symbol, "um", SETTLEMENTS)
    if missing := subtract([Span(start + MINUTE, end)], store.offsets().covered):
        spans = ", ".join(str(span) for span in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise MissingData(f"store um/{symbol}: no funding for {spans}; fetch it with\n  {store.command(missing)}")
    return store.read(Span(start + MINUTE, end + MINUTE))


def check_perpetual(kind: str) -> None:
    """Raise DataError for a market without funding.

    Raises:
        DataError: `kind` is not `um`.
    """
    if kind != "um":
        raise DataError(f"market.kind must be um (perpetuals) for funding, got {kind}")


def with_funding(bars: pl.DataFrame, funding: pl.DataFrame) -> pl.DataFrame:
    """Add the column `funding_rate` (Float64): the rate that is due at the close of a bar, null if there is none.

    A settlement within a bar, or in a gap before one, counts at the close of that bar; several are summed. Settlements
    at or before the open of the first bar, and after the close of the last, are left out.

    Args:
        bars: bars of one symbol, columns of `BAR_SCHEMA` at least, sorted by time.
        funding: settlements, columns of `FUNDING_SCHEMA`, sorted by time.
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


def _range(bars: pl.DataFrame) -> tuple[int, int]:
    return int(bars["open_time"].cast(pl.Int64)[0]), int(bars["close_time"].cast(pl.Int64)[-1])
