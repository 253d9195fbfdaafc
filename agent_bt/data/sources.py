"""The data sources over files: the store, and a single Parquet file."""

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

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """The settlements of a perpetual in (start, end], columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: they were not all backfilled; the message has the command that does it.
        """
        check_perpetual(self._store.kind)
        return fetch_funding(self._store.root, self.symbol, start, end)

    def _advice(self, missing: list[Span]) -> str:
        command = self._store.command(missing)
        spans = ", ".join(str(span) for span in missing)
        return f"{self.label}: no data for {spans}; fetch it with\n  {command}"


class ParquetSource:
    """Bars of one symbol of a Parquet file: `open_time`, prices and volume; a file of many symbols has `symbol` too.

    The other columns of `STORE_SCHEMA` may be missing: the quote volume is then volume x close, and trade counts and
    taker volumes are 0. The length of the bars is told from their distances; longer intervals are aggregated.
    """

    def __init__(self, path: Path | str, symbol: str, gaps: Gaps = "forward_fill") -> None:
        """Reads the file.

        Raises:
            DataError: not readable, columns or the symbol missing, or bars that cannot be.
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
        """Bars that open at or after `start` and close by `end` (UTC us), columns of `BAR_SCHEMA`.

        Raises:
            MissingData: the file does not reach that far, or its bars are longer than `interval`.
        """
        length = self._file.checked(interval)
        span = whole_bars(Span(start, end), length)
        if subtract([span], [self._covered]):
            raise MissingData(
                f"{self.path}: holds {self._covered} of {self.symbol}, asked for {span}; "
                "change market.start / market.end"
            )
        return to_bars(self._file.frame, span, length, self._gaps, step=self._file.step)

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """The settlements of a perpetual in (start, end], columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: the file has no `funding_rate`.
        """
        due = pl.col("funding_time").cast(pl.Int64).is_between(start, end, closed="right")
        return self._file.settlements(self.symbol).filter(due)
