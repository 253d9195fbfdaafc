"""Convert the rows of an exchange to valid settlements of a perpetual, and find the spans that they cover."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from agent_bt.core.clock import HOUR, MINUTE, SECOND
from agent_bt.core.errors import ArchiveError
from agent_bt.core.schema import TIME
from agent_bt.data.klines import FIRST_MICROSECOND
from agent_bt.data.spans import Span, intersect, merge

_COLUMNS: dict[str, Any] = {"funding_time": TIME, "rate": pl.Float64}
FUNDING_SCHEMA = pl.Schema(_COLUMNS)
"""A settlement: its instant, on the minute, and the fraction of the notional that longs pay to shorts (negative: that
shorts pay to longs)."""

RAW_SCHEMA = pl.Schema({"calc_time": pl.Int64, "funding_interval_hours": pl.Int64, "last_funding_rate": pl.Float64})

MAX_INVALID_FRACTION = 0.1
"""A file with a larger fraction of invalid rows is rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlements:
    """Valid settlements of one file.

    Attributes:
        frame: `FUNDING_SCHEMA`, sorted.
        covered: spans in which no settlement is missing: one funding interval before and after each.
        notes: kind of irregularity -> number of rows: out_of_order, duplicates, conflicting (left out), unsound
            (invalid, left out).
    """

    frame: pl.DataFrame
    covered: list[Span]
    notes: dict[str, int]


def parse_funding_csv(text: bytes, span: Span, name: str) -> Settlements:
    """Read the CSV of an archive, with or without a header line, in milliseconds or microseconds.

    Args:
        text: the CSV; header and unit are recognised from its content.
        span: the time that the file should cover, UTC us.
        name: name of the file in error messages.

    Raises:
        ArchiveError: the text is not a table of settlements in `span`.
    """
    header = not text[:1].isdigit()
    try:
        raw = pl.read_csv(
            io.BytesIO(text), has_header=False, skip_rows=int(header), schema=RAW_SCHEMA, infer_schema=False
        )
    except pl.exceptions.PolarsError as error:
        raise ArchiveError(f"{name}: must be a table of {', '.join(RAW_SCHEMA)} ({str(error)[:200]})") from error
    table = raw.select(
        funding_time=_instant("calc_time"), hours="funding_interval_hours", rate="last_funding_rate"
    ).with_columns(
        valid=(
            pl.col("funding_time").is_between(span.start, span.end, closed="left")
            & pl.col("hours").is_between(1, 24)
            & pl.col("rate").is_finite()
            & (pl.col("rate").abs() < 1)
        ).fill_null(False)
    )
    valid = table.filter("valid").drop("valid")
    invalid = len(table) - len(valid)
    if valid.is_empty() or invalid > MAX_INVALID_FRACTION * len(table):
        raise ArchiveError(f"{name}: {invalid} of {len(table)} rows are not valid settlements of {span}")
    distinct = valid.unique(maintain_order=True)
    single = distinct.filter(~pl.col("funding_time").is_duplicated()).sort("funding_time")
    notes = {
        "out_of_order": valid.filter(pl.col("funding_time").diff() < 0).height,
        "duplicates": len(valid) - len(distinct),
        "conflicting": len(distinct) - len(single),
        "unsound": invalid,
    }
    return Settlements(
        frame=_finish(single),
        covered=_covered(single, span),
        notes={key: count for key, count in notes.items() if count},
    )


def parse_funding_rows(rows: Sequence[Any], symbol: str, span: Span, name: str) -> pl.DataFrame:
    """Read the rows of a REST response.

    Args:
        rows: mappings with `symbol`, `fundingTime` (ms) and `fundingRate`.
        symbol: the symbol that all rows must be of.
        span: the time that the rows must be in, UTC us.
        name: name of the response in error messages.

    Returns:
        One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

    Raises:
        ArchiveError: the rows are not valid settlements of `symbol` in `span`.
    """
    try:
        if others := {row["symbol"] for row in rows} - {symbol}:
            raise ArchiveError(f"{name}: settlements must be of {symbol}, got {', '.join(sorted(map(str, others)))}")
        table = pl.DataFrame(
            {
                "calc_time": pl.Series([int(row["fundingTime"]) for row in rows], dtype=pl.Int64),
                "rate": pl.Series([float(row["fundingRate"]) for row in rows], dtype=pl.Float64),
            }
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ArchiveError(f"{name}: rows must have symbol, fundingTime, fundingRate ({error!r})") from error
    table = table.select("rate", funding_time=_instant("calc_time")).unique(maintain_order=True).sort("funding_time")
    inside = pl.col("funding_time").is_between(span.start, span.end, closed="left")
    valid = inside & pl.col("rate").is_finite() & (pl.col("rate").abs() < 1)
    if not table.select(valid.all()).item() or table["funding_time"].is_duplicated().any():
        raise ArchiveError(f"{name}: all rows must be valid settlements of {span}")
    return _finish(table)


def _instant(column: str) -> pl.Expr:
    # Exchanges record a settlement up to seconds late, sometimes some ms early; they are due on whole minutes.
    time = pl.col(column)
    micro = pl.when(time >= FIRST_MICROSECOND).then(time).otherwise(time * 1000)
    return (micro + SECOND // 2) // MINUTE * MINUTE


def _finish(table: pl.DataFrame) -> pl.DataFrame:
    return table.select(pl.col("funding_time").cast(TIME), "rate").cast(FUNDING_SCHEMA)


def _covered(table: pl.DataFrame, span: Span) -> list[Span]:
    # Where the interval changes, either of the two may have applied.
    hours = pl.max_horizontal("hours", pl.col("hours").shift(1), pl.col("hours").shift(-1)) * HOUR
    edges = table.select(pl.col("funding_time") - hours + MINUTE, until=pl.col("funding_time") + hours)
    return intersect(merge(Span(*row) for row in edges.iter_rows()), [span])
