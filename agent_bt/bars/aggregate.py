"""Aggregate ticks of any source to bars of any type in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from agent_bt.bars.streaming import BarType, StreamingAggregator
from agent_bt.bars.ticks import Repair, read_chunks
from agent_bt.core.errors import UsageError

ProgressCallback = Callable[[int, int], None]
"""Called with (current, total): the number of files or tables read so far, and the number of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationResult:
    """Bars, with the number of ticks, the time and the repairs behind them.

    Attributes:
        bars: one row a bar, columns of `bars.streaming.ADVANCED_SCHEMA`, or of `BASIC_SCHEMA`.
        ticks: number of ticks that were aggregated.
        seconds: wall time, including reading.
        repaired: kind of repair -> number of ticks.
    """

    bars: pl.DataFrame
    ticks: int
    seconds: float
    repaired: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FastBarAggregator:
    """Aggregate ticks to bars of one type.

    Attributes:
        bar_type: `time_bar`, `tick_bar`, `volume_bar` or `dollar_bar`.
        threshold: see `bars.streaming.StreamingAggregator`.
        include_advanced: whether `up_move_ratio`, `medium_price` and `reversals` are computed; default True.
        symbol: value of a first column `symbol`; None (default): no such column.
        use_numba: False runs the same functions uncompiled, for debugging; default True.
        n_workers: number of files that are read at the same time; default 1. One thread aggregates the ticks in order,
            so that sums do not depend on the number of workers.
        chunk_size: maximum number of rows of a Parquet file in memory at once; None (default): a whole file.
        include_last: whether the last, unfinished bar is part of the result; default True.
        repair: see `bars.ticks.read_ticks`; default: nothing is repaired.

    Raises:
        UsageError: a parameter is not valid.
    """

    bar_type: BarType
    threshold: float | str
    include_advanced: bool = True
    symbol: str | None = None
    use_numba: bool = True
    n_workers: int = 1
    chunk_size: int | None = None
    include_last: bool = True
    repair: Sequence[Repair] = ()

    def __post_init__(self) -> None:
        if isinstance(self.n_workers, bool) or not isinstance(self.n_workers, int) or self.n_workers < 1:
            raise UsageError(f"n_workers must be an integer of at least 1, got {self.n_workers!r}")
        self._stream()

    def aggregate(self, ticks: Any, progress_callback: ProgressCallback | None = None) -> AggregationResult:
        """Aggregate a table, a file, or a list of tables or files in chronological order.

        Args:
            ticks: see `bars.ticks.read_chunks`.
            progress_callback: called with (current, total) after each file or table; default: none.

        Raises:
            UsageError: the type of `ticks` is not supported.
            DataError: a file cannot be read; a tick is invalid, out of order or a duplicate.
        """
        began = time.perf_counter()
        stream = self._stream()
        sources = list(ticks) if isinstance(ticks, list | tuple) else [ticks]
        frames = []
        for current, chunks in enumerate(self._read(sources), start=1):
            frames += [stream.process(chunk) for chunk in chunks]
            if progress_callback is not None:
                progress_callback(current, len(sources))
        if self.include_last:
            frames.append(stream.finish())
        bars = pl.concat([frame for frame in frames if not frame.is_empty()] or [stream.finish().clear()])
        return AggregationResult(
            bars=bars, ticks=stream.ticks, seconds=time.perf_counter() - began, repaired=dict(stream.repaired)
        )

    def _stream(self) -> StreamingAggregator:
        return StreamingAggregator(
            self.bar_type,
            self.threshold,
            include_advanced=self.include_advanced,
            symbol=self.symbol,
            repair=self.repair,
            use_numba=self.use_numba,
        )

    def _read(self, sources: Sequence[Any]) -> Iterator[Iterator[pl.DataFrame]]:
        """Yield the tables of each source in order, reading the next files ahead if `n_workers` is above 1."""
        files = all(isinstance(source, str | Path) for source in sources)
        if self.n_workers == 1 or not files or self.chunk_size is not None or len(sources) == 1:
            for source in sources:
                yield read_chunks(source, self.chunk_size)
            return
        # Decoding Parquet and CSV releases the GIL: threads are enough, and nothing is copied.
        with ThreadPoolExecutor(self.n_workers) as pool:
            ahead = [pool.submit(_read_all, source) for source in sources[: self.n_workers]]
            for at in range(len(sources)):
                tables = ahead.pop(0).result()
                if at + self.n_workers < len(sources):
                    ahead.append(pool.submit(_read_all, sources[at + self.n_workers]))
                yield iter(tables)


def _read_all(source: Any) -> list[pl.DataFrame]:
    return list(read_chunks(source))


def aggregate_bars(
    data: Any,
    bar_type: BarType = "time_bar",
    threshold: float | str = "1h",
    use_numba: bool = True,
    use_multiprocess: bool = True,
    n_workers: int = 4,
    include_advanced: bool = True,
    symbol: str | None = None,
    progress_callback: ProgressCallback | None = None,
    *,
    include_last: bool = True,
    repair: Sequence[Repair] = (),
) -> pl.DataFrame:
    """Aggregate ticks to bars.

    Args:
        data: a table (Polars, pandas, Arrow), a path (`.parquet`, `.csv`, `.csv.gz`, `.zip`), or a list of them in
            chronological order; columns `timestamp` or `transact_time`, `price`, `quantity`, `is_buyer_maker`.
        bar_type: `time_bar` (default), `tick_bar`, `volume_bar` or `dollar_bar`.
        threshold: a duration such as `"1h"` for time bars (a number is seconds); else a number of ticks, a volume in
            base units, or a dollar volume in quote units. Default `"1h"`.
        use_numba: False runs the same functions uncompiled, for debugging. Default True.
        use_multiprocess: whether several files are read at the same time. Default True.
        n_workers: number of files that are read at the same time; default 4. The result does not depend on it.
        include_advanced: whether `up_move_ratio`, `medium_price` and `reversals` are computed. Default True.
        symbol: value of a first column `symbol`; default: no such column.
        progress_callback: called with (current, total) after each file or table; default: none.
        include_last: whether the last, unfinished bar is part of the result. Default True.
        repair: what may be repaired: `sort`, `drop_duplicates`, `drop_invalid`. Default: nothing; invalid ticks are
            errors.

    Returns:
        One row a bar, see `bars.streaming.ADVANCED_SCHEMA`. Time bars without a tick are left out.

    Raises:
        UsageError: a parameter is not valid, or the type of `data` is not supported.
        DataError: a file cannot be read, or a tick is invalid, out of order or a duplicate.

    >>> ticks = pl.DataFrame({"timestamp": [0, 30, 90], "price": [10.0, 12.0, 11.0], "quantity": [1.0, 1.0, 2.0],
    ...                       "is_buyer_maker": [False, True, False]})
    >>> aggregate_bars(ticks, "time_bar", "1min").select("open", "close", "vwap", "up_move_ratio").rows()
    [(10.0, 12.0, 11.0, 1.0), (11.0, 11.0, 11.0, 0.0)]
    """
    aggregator = FastBarAggregator(
        bar_type=bar_type,
        threshold=threshold,
        include_advanced=include_advanced,
        symbol=symbol,
        use_numba=use_numba,
        n_workers=n_workers if use_multiprocess else 1,
        include_last=include_last,
        repair=repair,
    )
    return aggregator.aggregate(data, progress_callback).bars


def build_time_bars(data: Any, interval: float | str = "1h", **options: Any) -> pl.DataFrame:
    """Aggregate ticks to bars of equal length.

    Args:
        data: see `aggregate_bars`.
        interval: length of a bar, such as `"5min"`; a number is seconds. Default `"1h"`.
        options: other parameters of `aggregate_bars`.

    Raises:
        UsageError, DataError: as for `aggregate_bars`.
    """
    return aggregate_bars(data, "time_bar", interval, **options)


def build_tick_bars(data: Any, n_ticks: int = 1_000, **options: Any) -> pl.DataFrame:
    """Aggregate ticks to bars of an equal number of ticks.

    Args:
        data: see `aggregate_bars`.
        n_ticks: number of ticks in a bar; default 1,000.
        options: other parameters of `aggregate_bars`.

    Raises:
        UsageError, DataError: as for `aggregate_bars`.
    """
    return aggregate_bars(data, "tick_bar", n_ticks, **options)


def build_volume_bars(data: Any, volume_threshold: float = 100.0, **options: Any) -> pl.DataFrame:
    """Aggregate ticks to bars that end when their volume reaches a threshold.

    Args:
        data: see `aggregate_bars`.
        volume_threshold: volume at which a bar ends, base units; default 100.
        options: other parameters of `aggregate_bars`.

    Raises:
        UsageError, DataError: as for `aggregate_bars`.
    """
    return aggregate_bars(data, "volume_bar", volume_threshold, **options)


def build_dollar_bars(data: Any, dollar_threshold: float = 1_000_000.0, **options: Any) -> pl.DataFrame:
    """Aggregate ticks to bars that end when their dollar volume reaches a threshold.

    Args:
        data: see `aggregate_bars`.
        dollar_threshold: dollar volume at which a bar ends, quote units; default 1,000,000.
        options: other parameters of `aggregate_bars`.

    Raises:
        UsageError, DataError: as for `aggregate_bars`.
    """
    return aggregate_bars(data, "dollar_bar", dollar_threshold, **options)
