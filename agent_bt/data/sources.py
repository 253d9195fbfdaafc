"""Load bars of one symbol from the store or from a Parquet file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from agent_bt.core.clock import interval_us
from agent_bt.core.errors import MissingData
from agent_bt.data.funding import check_perpetual, fetch_funding
from agent_bt.data.parquet import read_bar_file
from agent_bt.data.resample import Gaps, to_bars, whole_bars
from agent_bt.data.spans import Span, subtract
from agent_bt.data.store import Store


class StoreSource:
    """Load bars of one symbol from the backfilled store.

    A span that was never backfilled is an error; a minute that the exchange does not have is a gap.
    """

    def __init__(self, root: Path | str, symbol: str, kind: str = "spot", gaps: Gaps = "forward_fill") -> None:
        """Open the store.

        Args:
            root: folder of the store, `data.root`.
            symbol: as the exchange writes it.
            kind: kind of market, `spot` (default) or `um`.
            gaps: `forward_fill` (default) or `drop`, see `data.resample.to_bars`.
        """
        self.symbol = symbol
        self.label = f"store {kind}/{symbol}"
        self._gaps: Gaps = gaps
        self._store = Store(root, symbol, kind)

    def __repr__(self) -> str:
        return f"StoreSource({str(self._store.root)!r}, {self.symbol!r}, {self._store.kind!r}, gaps={self._gaps!r})"

    def fetch_ohlcv(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`.

        Args:
            interval: length of a bar, such as `1m`, `1h` or `1d`.
            start: earliest open time, UTC us.
            end: latest close time, UTC us.

        Returns:
            One row a bar, columns of `BAR_SCHEMA`, sorted by time.

        Raises:
            MissingData: part of the range was never backfilled; the message has the command that fetches it.
            DataError: a file of the store is damaged.
        """
        length = interval_us(interval)
        span = whole_bars(Span(start, end), length)
        if missing := subtract([span], self._store.offsets().covered):
            raise MissingData(self._advice(missing))
        return to_bars(self._store.read(span), span, length, self._gaps)

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """Return the settlements of a perpetual in (start, end].

        Args:
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: not all of them were backfilled; the message has the command that fetches them.
        """
        check_perpetual(self._store.kind)
        return fetch_funding(self._store.root, self.symbol, start, end)

    def _advice(self, missing: list[Span]) -> str:
        command = self._store.command(missing)
        spans = ", ".join(str(span) for span in missing)
        return f"{self.label}: no data for {spans}; fetch it with\n  {command}"


class ParquetSource:
    """Load bars of one symbol from a Parquet file with `open_time`, prices and volume, and `symbol` if it has many.

    The other columns of `STORE_SCHEMA` are optional: a missing quote volume is volume x close, missing trade counts and
    taker volumes are 0. The shortest distance between bars is their length; longer intervals are aggregated.
    """

    def __init__(self, path: Path | str, symbol: str, gaps: Gaps = "forward_fill") -> None:
        """Read the file.

        Args:
            path: the Parquet file.
            symbol: the symbol to read.
            gaps: `forward_fill` (default) or `drop`, see `data.resample.to_bars`.

        Raises:
            DataError: the file is not readable, lacks columns or the symbol, or has invalid bars.
        """
        self.path = Path(path)
        self.symbol = symbol
        self._gaps: Gaps = gaps
        self._file = read_bar_file(self.path, [symbol])
        self.label = self._file.label
        times = self._file.frame["open_time"].cast(pl.Int64)
        self._covered = Span(int(times[0]), int(times[-1]) + self._file.step)

    def __repr__(self) -> str:
        return f"ParquetSource({str(self.path)!r}, {self.symbol!r}, gaps={self._gaps!r})"

    def fetch_ohlcv(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`.

        Args:
            interval: length of a bar, such as `1m`, `1h` or `1d`.
            start: earliest open time, UTC us.
            end: latest close time, UTC us.

        Returns:
            One row a bar, columns of `BAR_SCHEMA`, sorted by time.

        Raises:
            MissingData: the file does not cover the range, or `interval` is not a multiple of the length of its bars.
        """
        length = self._file.interval_us(interval)
        span = whole_bars(Span(start, end), length)
        if subtract([span], [self._covered]):
            raise MissingData(
                f"{self.path}: has {self.symbol} for {self._covered}, requested {span}; "
                "change market.start / market.end"
            )
        return to_bars(self._file.frame, span, length, self._gaps, step=self._file.step)

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """Return the settlements of a perpetual in (start, end].

        Args:
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: the file has no `funding_rate`.
        """
        due = pl.col("funding_time").cast(pl.Int64).is_between(start, end, closed="right")
        return self._file.settlements(self.symbol).filter(due)
