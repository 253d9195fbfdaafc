"""Load bars of many symbols at once from a Parquet file or from the store.

A panel has each symbol while it is listed: from the first to the last bar of the symbol in the range. Gaps in between
are filled with the last close and flagged, or left out; no bars are added before the first or after the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from agent_bt.core.clock import MINUTE, interval_us
from agent_bt.core.errors import MissingData
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.data.funding import check_perpetual, fetch_funding, with_funding
from agent_bt.data.parquet import FUNDING_COLUMN, BarFile, read_bar_file
from agent_bt.data.resample import Gaps, to_bars, whole_bars
from agent_bt.data.spans import Span, intersect, subtract
from agent_bt.data.store import Store

PANEL_SCHEMA = pl.Schema([("symbol", pl.String()), *BAR_SCHEMA.items()])
"""Bars of many symbols, sorted by symbol and time."""


class Panel(Protocol):
    """A data source of many symbols.

    Attributes:
        symbols: sorted names of the symbols.
        label: name of the source in reports.
        notes: what is approximate about its data.
    """

    symbols: tuple[str, ...]
    label: str
    notes: tuple[str, ...]

    def fetch_panel(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`.

        Args:
            interval: length of a bar, such as `1m`, `1h` or `1d`.
            start: earliest open time, UTC us.
            end: latest close time, UTC us.

        Returns:
            One row a bar and symbol, columns of `PANEL_SCHEMA`, sorted by symbol and time. A symbol without a bar in
            the range is left out.

        Raises:
            MissingData: the source has no bars in the range, or does not cover it.
        """
        ...

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """Return the settlements of a perpetual in (start, end].

        Args:
            symbol: as the exchange writes it.
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.
        """
        ...


_APPROXIMATION = "quote volume is taken as volume x close, the others as 0"


class PanelSource:
    """Load bars of many symbols from a Parquet file with `symbol`, `open_time`, prices and volume.

    Without a column `quote_asset_volume`, it is volume x close; missing trade counts and taker volumes are 0.
    A column `funding_rate` is kept: the rate of the settlement at the close of a bar, null if there is none.
    """

    def __init__(self, path: Path | str, symbols: Sequence[str] | None = None, gaps: Gaps = "forward_fill") -> None:
        """Read the file.

        Args:
            path: the Parquet file.
            symbols: the symbols to read; None (default): all.
            gaps: `forward_fill` (default) or `drop`, see `data.resample.to_bars`.

        Raises:
            DataError: the file is not readable, lacks columns or symbols, or has invalid bars.
        """
        self._gaps: Gaps = gaps
        self._file: BarFile = read_bar_file(Path(path), symbols)
        self._parts = {
            str(part["symbol"][0]): part for part in self._file.frame.partition_by("symbol", maintain_order=True)
        }
        times = self._file.frame["open_time"].cast(pl.Int64).to_numpy()
        self._covered = Span(int(times.min()), int(times.max()) + self._file.step)
        self.symbols = tuple(self._parts)
        self.label = self._file.label
        self.notes: tuple[str, ...] = (
            (f"{self._file.path.name} has no {', '.join(self._file.missing)}: {_APPROXIMATION}",)
            if self._file.missing
            else ()
        )

    def __repr__(self) -> str:
        return f"PanelSource({str(self._file.path)!r}, {list(self.symbols)!r}, gaps={self._gaps!r})"

    def fetch_panel(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`.

        Args:
            interval: length of a bar, such as `1m`, `1h` or `1d`.
            start: earliest open time, UTC us.
            end: latest close time, UTC us.

        Returns:
            One row a bar and symbol, columns of `PANEL_SCHEMA`, sorted by symbol and time.

        Raises:
            MissingData: the file has no bars in the range, or `interval` is not a multiple of their length.
        """
        length = self._file.interval_us(interval)
        # A bar that ends after the last bar of the file is not complete.
        span = whole_bars(Span(start, min(end, self._covered.end)), length)
        parts = [
            listed_bars(symbol, part, span, length, self._gaps, step=self._file.step)
            for symbol, part in self._parts.items()
        ]
        if FUNDING_COLUMN in self._file.frame.columns:
            parts = [
                with_funding(part, self._file.settlements(symbol))
                for symbol, part in zip(self.symbols, parts, strict=True)
            ]
        bars = pl.concat(parts)
        if bars.is_empty():
            raise MissingData(
                f"{self._file.path}: has bars for {self._covered}, requested {Span(start, end)}; "
                "change market.start / market.end"
            )
        return bars

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """Return the settlements of `symbol` in (start, end].

        Args:
            symbol: as the exchange writes it.
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: the file has no `funding_rate`.
        """
        return _between(self._file.settlements(symbol), start, end)


class StorePanel:
    """Load bars of many symbols from the backfilled store.

    A symbol counts as listed in the part of the range that the store covers.
    """

    def __init__(
        self, root: Path | str, symbols: Sequence[str], kind: str = "spot", gaps: Gaps = "forward_fill"
    ) -> None:
        """Open the store.

        Args:
            root: folder of the store, `data.root`.
            symbols: as the exchange writes them.
            kind: kind of market, `spot` (default) or `um`.
            gaps: `forward_fill` (default) or `drop`, see `data.resample.to_bars`.
        """
        self.symbols = tuple(sorted(set(symbols)))
        self.label = f"store {kind}/{len(self.symbols)} symbols"
        self.notes: tuple[str, ...] = ()
        self._gaps: Gaps = gaps
        self._kind = kind
        self._stores = {symbol: Store(root, symbol, kind) for symbol in self.symbols}
        self._root = Path(root)

    def __repr__(self) -> str:
        return f"StorePanel({str(self._root)!r}, {list(self.symbols)!r}, {self._kind!r}, gaps={self._gaps!r})"

    def fetch_panel(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`.

        Args:
            interval: length of a bar, such as `1m`, `1h` or `1d`.
            start: earliest open time, UTC us.
            end: latest close time, UTC us.

        Returns:
            One row a bar and symbol, columns of `PANEL_SCHEMA`, sorted by symbol and time.

        Raises:
            MissingData: no part of the range was backfilled for a symbol, or part of the range in between is
                missing, or no symbol has a bar; the message has the command that fetches it.
            DataError: a file of the store is damaged.
        """
        length = interval_us(interval)
        span = whole_bars(Span(start, end), length)
        known = {symbol: intersect([span], store.offsets().covered) for symbol, store in self._stores.items()}
        if missing := [text for symbol, spans in known.items() if (text := self._advice(symbol, spans, span))]:
            raise MissingData("\n".join(missing))
        parts = []
        for symbol, spans in known.items():
            whole = whole_bars(Span(spans[0].start, spans[-1].end), length)
            parts.append(listed_bars(symbol, self._stores[symbol].read(whole), whole, length, self._gaps))
        bars = pl.concat(parts)
        if bars.is_empty():
            raise MissingData(f"{self.label}: no bars in {span}; choose another range")
        return bars

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """Return the settlements of `symbol` in (start, end].

        Args:
            symbol: as the exchange writes it.
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: not all of them were backfilled; the message has the command that fetches them.
        """
        check_perpetual(self._kind)
        return fetch_funding(self._root, symbol, start, end)

    def _advice(self, symbol: str, known: Sequence[Span], span: Span) -> str:
        """Return a message with the missing spans of a symbol and the command that fetches them; empty if none."""
        missing = subtract([Span(known[0].start, known[-1].end)], known) if known else [span]
        spans = ", ".join(str(gap) for gap in missing)
        command = self._stores[symbol].command(missing)
        return f"store {self._kind}/{symbol}: no data for {spans}; fetch it with\n  {command}" if missing else ""


def listed_bars(
    symbol: str, frame: pl.DataFrame, span: Span, interval: int, gaps: Gaps, *, step: int = MINUTE
) -> pl.DataFrame:
    """Aggregate the bars of one symbol in `span`, up to its last bar in it, to columns of `PANEL_SCHEMA`.

    Args:
        symbol: value of the first column.
        frame: bars of length `step`, columns of `STORE_SCHEMA` (close_time may be missing), sorted by time.
        span: UTC us, from and to multiples of `interval`.
        interval: length of the resulting bars, us; a multiple of `step`.
        gaps: `forward_fill` or `drop`, see `data.resample.to_bars`.
        step: length of the bars in `frame`, us; default: a minute.
    """
    times = frame["open_time"].cast(pl.Int64).to_numpy()
    first, last = (int(at) for at in np.searchsorted(times, span))
    inside = frame.slice(first, last - first)
    # The last bar before a delisting may have few minutes; it is complete once its interval is over.
    end = int(times[last - 1]) // interval * interval + interval if len(inside) else span.start
    bars = to_bars(inside, Span(span.start, end), interval, gaps, step=step)
    return bars.select(pl.lit(symbol).alias("symbol"), *BAR_SCHEMA.names())


def _between(funding: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    return funding.filter(pl.col("funding_time").cast(pl.Int64).is_between(start, end, closed="right"))
