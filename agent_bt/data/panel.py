"""Sources of many symbols at once: a Parquet panel, and the store.

A panel holds each symbol over its own life: from the first to the last bar it has in the range. Gaps inside a life
are filled flat and flagged, or left out; nothing is invented before or after it.
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
    """Where bars of many symbols come from. `label` names it in reports, `notes` say what of it is not exact."""

    symbols: tuple[str, ...]
    label: str
    notes: tuple[str, ...]

    def fetch_panel(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Bars that open at or after `start` and close by `end` (UTC us), columns of `PANEL_SCHEMA`.

        A symbol without a bar in the range is left out.

        Raises:
            MissingData: the source has nothing of the range, or not what it should have.
        """
        ...

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """The settlements of a perpetual in (start, end], columns of `FUNDING_SCHEMA`."""
        ...


_INSTEAD = "quote volume is taken as volume x close, the others as 0"


class PanelSource:
    """A Parquet file of many symbols: `symbol`, `open_time`, prices and volume; other columns may be missing.

    Where the file has no `quote_asset_volume`, it is volume x close; trade counts and taker volumes are then 0.
    A column `funding_rate` is kept: the rate of the settlement at the end of a bar, null where there is none.
    """

    def __init__(self, path: Path | str, symbols: Sequence[str] | None = None, gaps: Gaps = "forward_fill") -> None:
        """Reads the file; `symbols`: which ones, None: all.

        Raises:
            DataError: not readable, columns or symbols missing, or bars that cannot be.
        """
        self._gaps: Gaps = gaps
        self._file: BarFile = read_bar_file(Path(path), symbols)
        self._parts = {
            str(part["symbol"][0]): part for part in self._file.frame.partition_by("symbol", maintain_order=True)
        }
        times = self._file.frame["open_time"].cast(pl.Int64).to_numpy()
        self._held = Span(int(times.min()), int(times.max()) + self._file.step)
        self.symbols = tuple(self._parts)
        self.label = self._file.label
        self.notes: tuple[str, ...] = (
            (f"{self._file.path.name} has no {', '.join(self._file.missing)}: {_INSTEAD}",)
            if self._file.missing
            else ()
        )

    def __repr__(self) -> str:
        return f"PanelSource({str(self._file.path)!r}, {list(self.symbols)!r}, gaps={self._gaps!r})"

    def fetch_panel(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Bars that open at or after `start` and close by `end` (UTC us), columns of `PANEL_SCHEMA`.

        Raises:
            MissingData: the file has nothing of the range, or its bars are longer than `interval`.
        """
        length = self._file.checked(interval)
        # Beyond the end of the file nothing is known: a bar that reaches past it is not closed.
        span = whole_bars(Span(start, min(end, self._held.end)), length)
        lives = [
            life_of(symbol, part, span, length, self._gaps, step=self._file.step)
            for symbol, part in self._parts.items()
        ]
        if FUNDING_COLUMN in self._file.frame.columns:
            lives = [
                with_funding(life, self._file.settlements(symbol))
                for symbol, life in zip(self.symbols, lives, strict=True)
            ]
        bars = pl.concat(lives)
        if bars.is_empty():
            raise MissingData(
                f"{self._file.path}: holds {self._held}, asked for {Span(start, end)}; change market.start / market.end"
            )
        return bars

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """The settlements of `symbol` in (start, end], columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: the file has no `funding_rate`.
        """
        return _between(self._file.settlements(symbol), start, end)


class StorePanel:
    """The backfilled store of several symbols.

    What is covered of the range counts as the life of a symbol, so that late listings need not be told apart.
    """

    def __init__(
        self, root: Path | str, symbols: Sequence[str], kind: str = "spot", gaps: Gaps = "forward_fill"
    ) -> None:
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
        """Bars that open at or after `start` and close by `end` (UTC us), columns of `PANEL_SCHEMA`.

        Raises:
            MissingData: nothing of the range was backfilled for a symbol, or there is a hole in what was, or no
                symbol has a bar; the message has the command that fetches it.
            DataError: a file of the store is damaged.
        """
        length = interval_us(interval)
        span = whole_bars(Span(start, end), length)
        known = {symbol: intersect([span], store.offsets().covered) for symbol, store in self._stores.items()}
        if missing := [text for symbol, spans in known.items() if (text := self._advice(symbol, spans, span))]:
            raise MissingData("\n".join(missing))
        lives = []
        for symbol, spans in known.items():
            whole = whole_bars(Span(spans[0].start, spans[-1].end), length)
            lives.append(life_of(symbol, self._stores[symbol].read(whole), whole, length, self._gaps))
        bars = pl.concat(lives)
        if bars.is_empty():
            raise MissingData(f"{self.label}: no bars in {span}; choose another range")
        return bars

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """The settlements of `symbol` in (start, end], columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: they were not all backfilled; the message has the command that does it.
        """
        check_perpetual(self._kind)
        return fetch_funding(self._root, symbol, start, end)

    def _advice(self, symbol: str, known: Sequence[Span], span: Span) -> str:
        """What is missing of a symbol, and how to get it; empty if nothing is."""
        missing = subtract([Span(known[0].start, known[-1].end)], known) if known else [span]
        spans = ", ".join(str(hole) for hole in missing)
        command = self._stores[symbol].command(missing)
        return f"store {self._kind}/{symbol}: no data for {spans}; fetch it with\n  {command}" if missing else ""


def life_of(
    symbol: str, frame: pl.DataFrame, span: Span, interval: int, gaps: Gaps, *, step: int = MINUTE
) -> pl.DataFrame:
    """The bars of one symbol in `span`, columns of `PANEL_SCHEMA`, up to the last that it has and no further.

    Args:
        symbol: goes into the first column.
        frame: the columns of `STORE_SCHEMA` (close_time may be missing), sorted, of bars of length `step`.
        span: UTC us, of whole bars.
        interval: length of the bars, us.
        gaps: `forward_fill` or `drop`.
        step: length of the bars in `frame`, us.
    """
    times = frame["open_time"].cast(pl.Int64).to_numpy()
    first, last = (int(at) for at in np.searchsorted(times, span))
    inside = frame.slice(first, last - first)
    # The last bar of a life may be one of few minutes; it is closed all the same once its time is over.
    end = int(times[last - 1]) // interval * interval + interval if len(inside) else span.start
    bars = to_bars(inside, Span(span.start, end), interval, gaps, step=step)
    return bars.select(pl.lit(symbol).alias("symbol"), *BAR_SCHEMA.names())


def _between(funding: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    return funding.filter(pl.col("funding_time").cast(pl.Int64).is_between(start, end, closed="right"))
