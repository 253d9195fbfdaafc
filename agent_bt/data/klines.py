"""Convert the rows of an exchange to valid minute bars in `STORE_SCHEMA`, and count all irregularities."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import ArchiveError
from agent_bt.core.schema import STORE_SCHEMA, TIME
from agent_bt.data.spans import Span

RAW_COLUMNS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_asset_volume",
    "trades",
    "taker_base",
    "taker_quote",
    "ignore",
)
_INTEGERS = {"open_time", "close_time", "trades"}
RAW_SCHEMA = pl.Schema(
    {
        name: pl.Int64() if name in _INTEGERS else pl.String() if name == "ignore" else pl.Float64()
        for name in RAW_COLUMNS
    }
)

FIRST_MICROSECOND = 10**14
"""Smallest number that is read as microseconds (March 1973); smaller ones are milliseconds (until 5138)."""

MAX_INVALID_FRACTION = 0.01
"""A file with a larger fraction of invalid rows (and more than ten of them) is rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Klines:
    """Valid bars of one file or REST response.

    Attributes:
        frame: `STORE_SCHEMA`, sorted, one row a minute.
        units: `ms` and `us`, in the order in which they appear.
        unit_changes: open times (UTC us) at which the unit differs from the row before.
        notes: kind of irregularity -> number of rows; see `normalise`.
    """

    frame: pl.DataFrame
    units: tuple[str, ...]
    unit_changes: tuple[int, ...]
    notes: dict[str, int]


def parse_csv(text: bytes, span: Span, name: str) -> Klines:
    """Read the CSV of an archive, with or without a header line, in milliseconds or microseconds.

    Args:
        text: the CSV; header and unit are recognised from its content.
        span: the time that the file should cover, UTC us.
        name: name of the file in error messages.

    Raises:
        ArchiveError: the text is not a table of klines in `span`.
    """
    header = not text[:1].isdigit()
    try:
        raw = pl.read_csv(
            io.BytesIO(text), has_header=False, skip_rows=int(header), schema=RAW_SCHEMA, infer_schema=False
        )
    except pl.exceptions.PolarsError as error:
        raise ArchiveError(
            f"{name}: must be a table of {len(RAW_COLUMNS)} kline columns ({_first_line(error)})"
        ) from error
    return normalise(raw, span, name)


def parse_rows(rows: Sequence[Sequence[Any]], span: Span, name: str) -> Klines:
    """Read the rows of a REST response.

    Args:
        rows: one list a bar, columns as `RAW_COLUMNS`, numbers or numbers as text.
        span: the time that the rows should be in, UTC us.
        name: name of the response in error messages.

    Raises:
        ArchiveError: the rows are not klines in `span`.
    """
    try:
        columns = list(zip(*rows, strict=True)) or [()] * len(RAW_COLUMNS)
        text = {
            name: pl.Series(column, dtype=pl.String, strict=False)
            for name, column in zip(RAW_COLUMNS, columns, strict=True)
        }
        raw = pl.DataFrame(text).cast(RAW_SCHEMA)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise ArchiveError(
            f"{name}: must be rows of {len(RAW_COLUMNS)} kline columns ({_first_line(error)})"
        ) from error
    return normalise(raw, span, name)


def normalise(raw: pl.DataFrame, span: Span, name: str) -> Klines:
    """Convert raw rows to `STORE_SCHEMA` and leave out invalid ones, so that another source is asked for them.

    Counted in `notes`: `short_close` (closes before the end of its minute; kept), `zero_volume` (kept),
    `out_of_order` (sorted), `duplicates` (equal rows; one kept), `conflicting` (different rows of one
    minute; left out), `unsound` (invalid: outside the file's span, not on a minute, impossible OHLC prices, a
    negative or missing number, a close_time at or before the open or after the minute; left out).

    Args:
        raw: columns of `RAW_SCHEMA`; each time in ms or us.
        span: the time that the rows should be in, UTC us.
        name: name of the file in error messages.

    Raises:
        ArchiveError: no row is valid, or a larger fraction than `MAX_INVALID_FRACTION` is invalid.
    """
    if raw.is_empty():
        raise ArchiveError(f"{name}: must have at least one row, got none")
    micro = pl.col("open_time") >= FIRST_MICROSECOND
    table = raw.select(
        micro.alias("micro"),
        pl.when(micro).then(pl.col("open_time")).otherwise(pl.col("open_time") * 1000).alias("open_time"),
        # Archives close a minute at its last ms or us, ...999; `STORE_SCHEMA` closes it where the next minute begins.
        pl.when(pl.col("close_time") >= FIRST_MICROSECOND)
        .then(pl.col("close_time") + 1)
        .otherwise((pl.col("close_time") + 1) * 1000)
        .alias("close_time"),
        *[c for c in STORE_SCHEMA if c not in ("open_time", "close_time")],
    ).with_columns(valid=_valid(span))
    valid = table.filter(pl.col("valid"))
    invalid = len(table) - len(valid)
    if valid.is_empty() or invalid > max(10, MAX_INVALID_FRACTION * len(table)):
        raise ArchiveError(f"{name}: {invalid} of {len(table)} rows are not valid minute bars of {span}")

    end = pl.col("open_time") + MINUTE
    distinct = valid.drop("valid").unique(maintain_order=True)
    single = distinct.filter(~pl.col("open_time").is_duplicated())
    unit_changes = single.sort("open_time").filter(pl.col("micro") != pl.col("micro").shift(1))
    notes = {
        "short_close": single.filter(pl.col("close_time") < end).height,
        "zero_volume": single.filter(pl.col("volume") == 0).height,
        "out_of_order": valid.filter(pl.col("open_time").diff() < 0).height,
        "duplicates": len(valid) - len(distinct),
        "conflicting": len(distinct) - len(single),
        "unsound": invalid,
    }
    frame = single.with_columns(close_time=end).sort("open_time").select(STORE_SCHEMA.names())
    return Klines(
        frame=frame.cast({"open_time": TIME, "close_time": TIME}),
        units=tuple("us" if flag else "ms" for flag in single["micro"].unique(maintain_order=True)),
        unit_changes=tuple(unit_changes["open_time"].to_list()),
        notes={key: count for key, count in notes.items() if count},
    )


def describe(notes: dict[str, int]) -> str:
    """Format the notes that users should see as one phrase; return an empty string if there are none."""
    phrases = {
        "short_close": "closing early (normalised)",
        "out_of_order": "out of order (sorted)",
        "duplicates": "duplicated (one kept)",
        "conflicting": "conflicting (left out)",
        "unsound": "invalid (left out)",
    }
    return ", ".join(
        f"{notes[key]} row{'s' * (notes[key] != 1)} {text}" for key, text in phrases.items() if notes.get(key)
    )


def valid_prices() -> pl.Expr:
    """Return an expression that is True for valid bars: finite positive prices, low <= open, close <= high.

    Volumes and the trade count must not be negative, and the taker volume not above the volume.
    """
    prices = [pl.col(name) for name in ("open", "high", "low", "close")]
    amounts = [pl.col(name) for name in ("volume", "quote_asset_volume", "taker_base", "taker_quote")]
    return pl.all_horizontal(
        *[price.is_finite() & (price > 0) for price in prices],
        *[amount.is_finite() & (amount >= 0) for amount in amounts],
        pl.col("trades") >= 0,
        pl.col("low") <= pl.min_horizontal("open", "close"),
        pl.col("high") >= pl.max_horizontal("open", "close"),
        pl.col("taker_base") <= pl.col("volume"),
    )


def _valid(span: Span) -> pl.Expr:
    opened, closed = pl.col("open_time"), pl.col("close_time")
    on_grid = opened.is_between(span.start, span.end, closed="left") & (opened % MINUTE == 0)
    return (valid_prices() & on_grid & (closed > opened) & (closed <= opened + MINUTE)).fill_null(False)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
