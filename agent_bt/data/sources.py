"""The data sources over files: the store, and a single Parquet file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from agent_bt.core.clock import BAR_INTERVALS, DAY, MINUTE, duration_us, interval_us, iso
from agent_bt.core.errors import DataError, MissingData
from agent_bt.core.schema import STORE_SCHEMA, TIME
from agent_bt.data.klines import FIRST_MICROSECOND, sound_prices
from agent_bt.data.resample import Gaps, to_bars, whole_bars
from agent_bt.data.spans import Span, subtract
from agent_bt.data.store import Store


class StoreSource:
    """Bars of the backfilled store of one symbol.

    A span that was never backfilled is an error; a minute that the exchange does not have is a gap.
    """

    def __init__(self, root: Path | str, symbol: str, kind: str = "spot", gaps: Gaps = "forward_fill") -> None:
        self.symbol = symbol
        self.label = f"store {kind}/{symbol}"
        self._gaps: Gaps = gaps
        self._store = Store(root, symbol, kind)

    def __repr__(self) -> str:
        return f"StoreSource({str(self._store.root)!r}, {self.symbol!r}, {self._store.kind!r}, gaps={self._gaps!r})"

    def fetch_ohlcv(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Bars that open at or after `start` and close by `end` (UTC us), columns of `BAR_SCHEMA`.

        Raises:
            MissingData: part of the span was never backfilled; the message has the command that does it.
            DataError: a file of the store is damaged.
        """
        length = interval_us(interval)
        span = whole_bars(Span(start, end), length)
        if missing := subtract([span], self._store.offsets().covered):
            raise MissingData(self._advice(missing))
        return to_bars(self._store.read(span), span, length, self._gaps)

    def latest_window(self, n: int, interval: str = "1m") -> pl.DataFrame:
        """The last `n` closed bars of what is covered without interruption, columns of `BAR_SCHEMA`.

        Raises:
            MissingData: there are fewer.
        """
        covered = self._store.offsets().covered
        if not covered:
            raise MissingData(self._advice([]))
        return _last(n, interval, covered[-1], self._gaps, self._store.read, self.label)

    def _advice(self, missing: list[Span]) -> str:
        command = f"agent-bt data backfill --symbol {self.symbol} --interval 1m"
        if str(self._store.root) != "data":
            command += f" --root {shlex.quote(str(self._store.root))}"
        if not missing:
            return f"{self._store.folder}: the store is empty; fetch data with\n  {command} --months 2"
        spans = ", ".join(str(span) for span in missing)
        first = iso(missing[0].start // DAY * DAY)[:10]
        last = iso(-(-missing[-1].end // DAY) * DAY)[:10]
        return f"{self.label}: no data for {spans}; fetch it with\n  {command} --start {first} --end {last}"


class ParquetSource:
    """Bars of a Parquet file with one symbol: the columns of `STORE_SCHEMA`; `close_time` may be missing.

    `open_time` is a date-time (UTC if it has no zone) or whole milliseconds or microseconds. The length of the bars
    is told from their distances; longer intervals are aggregated from them.
    """

    def __init__(self, path: Path | str, symbol: str, gaps: Gaps = "forward_fill") -> None:
        """Reads the file.

        Raises:
            DataError: not readable, columns missing, or bars that cannot be.
        """
        self.path = Path(path)
        self.symbol = symbol
        self.label = f"file {self.path.name}"
        self._gaps: Gaps = gaps
        self._frame = _read_parquet(self.path, symbol)
        times = self._frame["open_time"].cast(pl.Int64)
        self._step = _bar_length(times, self.path)
        self._covered = Span(int(times[0]), int(times[-1]) + self._step)

    def __repr__(self) -> str:
        return f"ParquetSource({str(self.path)!r}, {self.symbol!r}, gaps={self._gaps!r})"

    def fetch_ohlcv(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Bars that open at or after `start` and close by `end` (UTC us), columns of `BAR_SCHEMA`.

        Raises:
            MissingData: the file does not reach that far, or its bars are longer than `interval`.
        """
        length = self._checked(interval)
        span = whole_bars(Span(start, end), length)
        if subtract([span], [self._covered]):
            raise MissingData(f"{self.path}: holds {self._covered}, asked for {span}; change market.start / market.end")
        return to_bars(self._frame, span, length, self._gaps, step=self._step)

    def latest_window(self, n: int, interval: str = "1m") -> pl.DataFrame:
        """The last `n` closed bars, columns of `BAR_SCHEMA`.

        Raises:
            MissingData: there are fewer.
        """
        self._checked(interval)
        return _last(n, interval, self._covered, self._gaps, lambda _: self._frame, self.label, step=self._step)

    def _checked(self, interval: str) -> int:
        length = interval_us(interval)
        if length % self._step:
            minutes = self._step // MINUTE
            raise MissingData(f"{self.path}: its bars are {minutes} minutes long; {interval} cannot be made of them")
        return length


class _Read(Protocol):
    def __call__(self, span: Span, /) -> pl.DataFrame: ...


def _last(
    n: int, interval: str, covered: Span, gaps: Gaps, read: _Read, label: str, step: int = MINUTE
) -> pl.DataFrame:
    length = interval_us(interval)
    end = covered.end // length * length
    # With dropped gaps, n bars may lie further back than n intervals: look back twice as far until they are found.
    back = n
    while True:
        span = whole_bars(Span(max(covered.start, end - back * length), end), length)
        bars = to_bars(read(span), span, length, gaps, step=step)
        if len(bars) >= n:
            return bars.tail(n)
        if end - back * length <= covered.start:
            raise MissingData(f"{label}: has {len(bars)} bars of {interval} up to {iso(end)}, asked for {n}")
        back *= 2


def _read_parquet(path: Path, symbol: str) -> pl.DataFrame:
    try:
        raw = pl.read_parquet(path, glob=False)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; market.source is sample, store, or a Parquet file") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not readable as Parquet ({str(error).splitlines()[0][:120]})") from error
    if missing := [name for name in STORE_SCHEMA if name not in raw.columns and name != "close_time"]:
        raise DataError(
            f"{path}: no column {', '.join(missing)}; a source needs {', '.join(STORE_SCHEMA)} "
            "(close_time may be left out)"
        )
    if "symbol" in raw.columns and (others := sorted(set(raw["symbol"].unique().cast(pl.String)) - {symbol})):
        raise DataError(f"{path}: holds {', '.join(others[:5])}; a source is a file with {symbol} alone")
    try:
        numbers = [pl.col(name).cast(kind) for name, kind in STORE_SCHEMA.items() if kind != TIME]
        frame = raw.select(_instants(raw["open_time"]).alias("open_time"), *numbers).sort("open_time")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: {str(error).splitlines()[0][:160]}") from error
    if frame.is_empty():
        raise DataError(f"{path}: holds no bars")
    if frame["open_time"].is_duplicated().any():
        raise DataError(f"{path}: holds several bars of one time")
    unsound = frame.filter(~sound_prices().fill_null(False))
    if len(unsound):
        at = iso(int(unsound["open_time"].cast(pl.Int64)[0]))
        raise DataError(f"{path}: {len(unsound)} impossible bars, the first at {at}: prices or volumes cannot be so")
    return frame


def _instants(times: pl.Series) -> pl.Series:
    if times.dtype.is_integer():
        times = times.cast(pl.Int64)
        scale = pl.Series(np.where(times.to_numpy() >= FIRST_MICROSECOND, 1, 1000))
        return (times * scale).cast(TIME)
    if isinstance(times.dtype, pl.Datetime):
        zoned = times if times.dtype.time_zone else times.dt.replace_time_zone("UTC")
        return zoned.dt.convert_time_zone("UTC").cast(TIME)
    raise pl.exceptions.SchemaError(f"open_time is {times.dtype}, not a time")


def _bar_length(times: pl.Series, path: Path) -> int:
    if len(times) < 2:
        return MINUTE
    shortest = int(times.diff().drop_nulls().to_numpy().min())
    lengths = {duration_us(name): name for name in BAR_INTERVALS}
    if shortest not in lengths or (times % shortest != 0).any():
        raise DataError(f"{path}: bars {shortest / MINUTE:g} minutes apart; expected one of {', '.join(BAR_INTERVALS)}")
    return shortest
