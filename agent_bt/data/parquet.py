"""Read and validate Parquet files of bars of one symbol or many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from agent_bt.core.clock import BAR_INTERVALS, MINUTE, duration_us, interval_us, iso
from agent_bt.core.errors import DataError, MissingData
from agent_bt.core.schema import STORE_SCHEMA, TIME
from agent_bt.core.suggest import did_you_mean
from agent_bt.data.klines import FIRST_MICROSECOND, valid_prices
from agent_bt.data.settlements import FUNDING_SCHEMA

NEEDED = ("open_time", "open", "high", "low", "close", "volume")
"""Columns that a file must have; the other columns of `STORE_SCHEMA` are optional."""

FUNDING_COLUMN = "funding_rate"
"""Column with the rate of the settlement at the close of a bar, null if there is none."""

_DEFAULTS = {
    "quote_asset_volume": pl.col("volume") * pl.col("close"),
    "trades": pl.lit(0, dtype=pl.Int64),
    "taker_base": pl.lit(0.0),
    "taker_quote": pl.lit(0.0),
}

_CONVERT = "; convert a CSV file with polars.read_csv(path, try_parse_dates=True).write_parquet(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class BarFile:
    """The valid bars of a file.

    Attributes:
        path: the file.
        frame: `symbol` and the columns of `STORE_SCHEMA` without close_time, sorted by symbol and time; `funding_rate`
            if the file has it.
        step: length of the bars, us.
        missing: optional columns that the file lacks; quote volume is then volume x close, trade counts and taker
            volumes are 0.
    """

    path: Path
    frame: pl.DataFrame
    step: int
    missing: tuple[str, ...]

    @property
    def label(self) -> str:
        """Return the name of the file in reports, with a remark if the quote volume is approximate."""
        return f"file {self.path.name}" + (" (quote volume = volume x close)" if self.approximate else "")

    @property
    def approximate(self) -> bool:
        """Return whether the quote volume is volume x close."""
        return "quote_asset_volume" in self.missing

    def interval_us(self, interval: str) -> int:
        """Return the length of `interval` in us, after checking that the bars of the file can be aggregated to it.

        Raises:
            MissingData: the length is not a multiple of the length of the bars.
        """
        length = interval_us(interval)
        if length % self.step:
            minutes = self.step // MINUTE
            raise MissingData(
                f"{self.path}: bars of {minutes} minutes cannot be aggregated to {interval}; "
                "choose a multiple of their length"
            )
        return length

    def settlements(self, symbol: str) -> pl.DataFrame:
        """Return the settlements of `symbol` in the file, columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: the file has no `funding_rate`.
        """
        if FUNDING_COLUMN not in self.frame.columns:
            raise MissingData(
                f"{self.path}: no column {FUNDING_COLUMN}; add it (the rate of the settlement at the close of a "
                "bar, else null), or set execution.funding: false"
            )
        own = self.frame.filter((pl.col("symbol") == symbol) & pl.col(FUNDING_COLUMN).is_not_null())
        return own.select(
            funding_time=pl.col("open_time") + pl.duration(microseconds=self.step), rate=FUNDING_COLUMN
        ).cast(FUNDING_SCHEMA)


def read_bar_file(path: Path, symbols: Sequence[str] | None) -> BarFile:
    """Read and validate the bars of a Parquet file.

    `open_time` is a date-time (UTC if it has no zone) or an integer of milliseconds or microseconds. The length of the
    bars is the shortest distance between their open times.

    Args:
        path: the Parquet file.
        symbols: the symbols to read; None: all. A file without a column `symbol` needs exactly one.

    Raises:
        DataError: the file is not readable, lacks columns or symbols, or has invalid bars.
    """
    raw = _read(path)
    if raw.is_empty():
        raise DataError(f"{path}: must have at least one bar, got none")
    if "symbol" not in raw.columns:
        if symbols is None or len(symbols) != 1:
            raise DataError(f"{path}: no column symbol; a panel of many symbols needs {', '.join(('symbol', *NEEDED))}")
        raw = raw.with_columns(symbol=pl.lit(symbols[0]))
    raw = raw.with_columns(pl.col("symbol").cast(pl.String))
    if symbols is not None:
        _check_symbols(path, raw["symbol"], symbols)
        raw = raw.filter(pl.col("symbol").is_in(list(symbols)))
    missing = tuple(name for name in _DEFAULTS if name not in raw.columns)
    optional = [pl.col(FUNDING_COLUMN).cast(pl.Float64).fill_nan(None)] if FUNDING_COLUMN in raw.columns else []
    try:
        numbers = [pl.col(name).cast(kind) for name, kind in STORE_SCHEMA.items() if kind != TIME]
        frame = (
            raw.with_columns(**{name: _DEFAULTS[name] for name in missing})
            .select("symbol", _instants(raw["open_time"]).alias("open_time"), *numbers, *optional)
            .sort("symbol", "open_time")
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: {_first_line(error)}") from error
    if frame["symbol"].null_count() or frame["open_time"].null_count():
        raise DataError(f"{path}: every row must have a symbol and an open_time; remove the others")
    return BarFile(path=path, frame=frame, step=_check_bars(path, frame), missing=missing)


def _read(path: Path) -> pl.DataFrame:
    try:
        raw = pl.read_parquet(path, glob=False)
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; market.source must be sample, store, or the path of a Parquet file"
        ) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not readable as Parquet ({_first_line(error)}){_CONVERT}") from error
    if missing := [name for name in NEEDED if name not in raw.columns]:
        raise DataError(f"{path}: no column {', '.join(missing)}; a source needs the columns {', '.join(NEEDED)}")
    return raw


def _check_symbols(path: Path, column: pl.Series, symbols: Sequence[str]) -> None:
    known = sorted(column.drop_nulls().unique().to_list())
    if unknown := [symbol for symbol in symbols if symbol not in known]:
        hint = did_you_mean(unknown[0], known, cutoff=0.8) or "."
        listed = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        raise DataError(f"{path}: has no {', '.join(unknown[:5])}{hint} It has {len(known)}: {listed}")


def _check_bars(path: Path, frame: pl.DataFrame) -> int:
    """Validate the bars and return their length in us.

    Raises:
        DataError: bars are invalid, or not on one grid; the message names the symbol.
    """
    invalid = frame.filter(~valid_prices().fill_null(False))
    if len(invalid):
        raise DataError(
            f"{path}: {len(invalid)} invalid bars, the first at {_at(invalid, 0)}: prices must be positive and "
            "between low and high, volumes not negative"
        )
    if FUNDING_COLUMN in frame.columns and len(invalid := frame.filter(~(pl.col(FUNDING_COLUMN).abs() < 1))):
        raise DataError(
            f"{path}: {len(invalid)} invalid rates in {FUNDING_COLUMN}, the first at {_at(invalid, 0)}; "
            "a rate must be a fraction between -1 and 1"
        )
    times = frame["open_time"].cast(pl.Int64).to_numpy()
    same = (frame["symbol"] == frame["symbol"].shift(1)).fill_null(False).to_numpy()
    distances = np.where(same, np.diff(times, prepend=0), np.iinfo(np.int64).max)
    if not same.any():
        return MINUTE
    at = int(distances.argmin())
    shortest = int(distances[at])
    if shortest == 0:
        raise DataError(f"{path}: open times must be unique for each symbol, got a duplicate at {_at(frame, at)}")
    lengths = {duration_us(name) for name in BAR_INTERVALS}
    if shortest in lengths:
        off = times % shortest != 0
        if not off.any():
            return shortest
        at = int(off.argmax())
    raise DataError(
        f"{path}: bars are {shortest / MINUTE:g} minutes apart, with one at {_at(frame, at)}; the distance must be "
        f"one of {', '.join(BAR_INTERVALS)}, and each bar must open at a multiple of it"
    )


def _at(frame: pl.DataFrame, row: int) -> str:
    return f"{iso(int(frame['open_time'].cast(pl.Int64)[row]))} ({frame['symbol'][row]})"


def _instants(times: pl.Series) -> pl.Series:
    if times.dtype.is_integer():
        times = times.cast(pl.Int64)
        if times.null_count():
            raise pl.exceptions.SchemaError("open_time must have a time in every row")
        scale = pl.Series(np.where(times.to_numpy() >= FIRST_MICROSECOND, 1, 1000))
        return (times * scale).cast(TIME)
    if isinstance(times.dtype, pl.Datetime):
        zoned = times if times.dtype.time_zone else times.dt.replace_time_zone("UTC")
        return zoned.dt.convert_time_zone("UTC").cast(TIME)
    raise pl.exceptions.SchemaError(
        f"open_time must be a date-time, or an integer of milliseconds or microseconds, got {times.dtype}; in Polars "
        'pl.col("open_time").str.to_datetime(time_zone="UTC")'
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
