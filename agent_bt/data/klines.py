"""Rows of an exchange -> sound minute bars in `STORE_SCHEMA`, with a count of everything that was odd."""

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
_WHOLE = {"open_time", "close_time", "trades"}
RAW_SCHEMA = pl.Schema(
    {name: pl.Int64() if name in _WHOLE else pl.String() if name == "ignore" else pl.Float64() for name in RAW_COLUMNS}
)

FIRST_MICROSECOND = 10**14
"""Times from here on are microseconds (1973 as such); below they are milliseconds (the year 5138)."""

MOST_UNSOUND = 0.01
"""More unsound rows than this share (and than ten), and the file is not what it says it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Klines:
    """Sound bars of one file or answer.

    Attributes:
        frame: `STORE_SCHEMA`, sorted, one row a minute.
        units: `ms` and `us`, in the order in which they appear.
        unit_changes: open times (UTC us) at which the unit differs from the row before.
        notes: what was odd -> number of rows; see `normalise`.
    """

    frame: pl.DataFrame
    units: tuple[str, ...]
    unit_changes: tuple[int, ...]
    notes: dict[str, int]


def parse_csv(text: bytes, span: Span, name: str) -> Klines:
    """Read the CSV of an archive; a header line or none, milliseconds or microseconds, told from the content.

    Raises:
        ArchiveError: the text is not a table of klines of `span`.
    """
    header = not text[:1].isdigit()
    try:
        raw = pl.read_csv(
            io.BytesIO(text), has_header=False, skip_rows=int(header), schema=RAW_SCHEMA, infer_schema=False
        )
    except pl.exceptions.PolarsError as error:
        raise ArchiveError(f"{name}: not a table of {len(RAW_COLUMNS)} kline columns ({_first_line(error)})") from error
    return normalise(raw, span, name)


def parse_rows(rows: Sequence[Sequence[Any]], span: Span, name: str) -> Klines:
    """Read the rows of a REST answer: lists of numbers and of numbers as text.

    Raises:
        ArchiveError: the rows are not klines of `span`.
    """
    try:
        columns = list(zip(*rows, strict=True)) or [()] * len(RAW_COLUMNS)
        text = {
            name: pl.Series(column, dtype=pl.String, strict=False)
            for name, column in zip(RAW_COLUMNS, columns, strict=True)
        }
        raw = pl.DataFrame(text).cast(RAW_SCHEMA)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise ArchiveError(f"{name}: not rows of {len(RAW_COLUMNS)} kline columns ({_first_line(error)})") from error
    return normalise(raw, span, name)


def normalise(raw: pl.DataFrame, span: Span, name: str) -> Klines:
    """Bring raw rows to `STORE_SCHEMA`, and leave out what cannot be true, so that another source is asked for it.

    Counted in `notes`: `short_close` (closes before the end of its minute; kept), `zero_volume` (kept),
    `out_of_order` (sorted), `duplicates` (equal rows; one kept), `conflicting` (rows that disagree about one minute;
    left out), `unsound` (outside the file's span, off the minute, an impossible OHLC, a negative or missing number,
    a close_time at or before the open or past the minute; left out).

    Args:
        raw: `RAW_SCHEMA`; times in ms or us, row by row.
        span: what the file is named after.
        name: for messages.

    Raises:
        ArchiveError: no sound rows, or more than `MOST_UNSOUND` of them unsound.
    """
    if raw.is_empty():
        raise ArchiveError(f"{name}: no rows")
    micro = pl.col("open_time") >= FIRST_MICROSECOND
    table = raw.select(
        micro.alias("micro"),
        pl.when(micro).then(pl.col("open_time")).otherwise(pl.col("open_time") * 1000).alias("open_time"),
        # Archives end a minute at its last instant, ...999; the normal form ends where the next minute begins.
        pl.when(pl.col("close_time") >= FIRST_MICROSECOND)
        .then(pl.col("close_time") + 1)
        .otherwise((pl.col("close_time") + 1) * 1000)
        .alias("close_time"),
        *[c for c in STORE_SCHEMA if c not in ("open_time", "close_time")],
    ).with_columns(sound=_sound(span))
    sound = table.filter(pl.col("sound"))
    unsound = len(table) - len(sound)
    if sound.is_empty() or unsound > max(10, MOST_UNSOUND * len(table)):
        raise ArchiveError(f"{name}: {unsound} of {len(table)} rows cannot be minute bars of {span}")

    end = pl.col("open_time") + MINUTE
    distinct = sound.drop("sound").unique(maintain_order=True)
    single = distinct.filter(~pl.col("open_time").is_duplicated())
    turns = single.sort("open_time").filter(pl.col("micro") != pl.col("micro").shift(1))
    notes = {
        "short_close": single.filter(pl.col("close_time") < end).height,
        "zero_volume": single.filter(pl.col("volume") == 0).height,
        "out_of_order": sound.filter(pl.col("open_time").diff() < 0).height,
        "duplicates": len(sound) - len(distinct),
        "conflicting": len(distinct) - len(single),
        "unsound": unsound,
    }
    frame = single.with_columns(close_time=end).sort("open_time").select(STORE_SCHEMA.names())
    return Klines(
        frame=frame.cast({"open_time": TIME, "close_time": TIME}),
        units=tuple("us" if flag else "ms" for flag in single["micro"].unique(maintain_order=True)),
        unit_changes=tuple(turns["open_time"].to_list()),
        notes={key: count for key, count in notes.items() if count},
    )


def describe(notes: dict[str, int]) -> str:
    """The notes that a reader should hear of, as one phrase; empty if there are none."""
    words = {
        "short_close": "closing early (normalised)",
        "out_of_order": "out of order (sorted)",
        "duplicates": "twice (one kept)",
        "conflicting": "contradicting each other (left out)",
        "unsound": "impossible (left out)",
    }
    return ", ".join(
        f"{notes[key]} row{'s' * (notes[key] != 1)} {text}" for key, text in words.items() if notes.get(key)
    )


def sound_prices() -> pl.Expr:
    """True where prices and volumes can be a bar's: finite, positive prices, low <= open, close <= high."""
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


def _sound(span: Span) -> pl.Expr:
    opened, closed = pl.col("open_time"), pl.col("close_time")
    in_place = opened.is_between(span.start, span.end, closed="left") & (opened % MINUTE == 0)
    return (sound_prices() & in_place & (closed > opened) & (closed <= opened + MINUTE)).fill_null(False)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
