"""The sample market with many symbols: each has its own life of prices, and all move with one common market."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from agent_bt.core.clock import interval_us, iso, time_us
from agent_bt.core.errors import MissingData
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.panel import life_of
from agent_bt.data.resample import Gaps, whole_bars
from agent_bt.data.sample import BASE_PRICE, FIRST, LAST, SampleSource
from agent_bt.data.spans import Span

LISTED, VANISHED = time_us("2024-08-01"), time_us("2024-09-01")
"""With five symbols or more, the last by name is listed only then, and the one before it delisted."""

FEWEST_WITH_LIVES = 5
_MARKET = "common market"


class SamplePanel:
    """Bars of many symbols of the sample market; never a stand-in for real data: its label says what it is.

    A symbol's price is the price of its own sample market (of this seed and its name) times that of a common one, so
    that all of them move together and each in its own way; minutes that either is missing are missing. Prices and
    volumes are scaled by powers that follow from the name, so that some symbols are traded more than others.

    With `FEWEST_WITH_LIVES` symbols or more one appears late and one vanishes, at fixed dates in the middle of the
    default range (`LISTED`, `VANISHED`): every run on it meets a listing and a delisting.
    """

    def __init__(self, symbols: Sequence[str], seed: int, gaps: Gaps = "forward_fill") -> None:
        self.symbols = tuple(sorted(set(symbols)))
        self.seed = seed
        self.label = f"SAMPLE MARKET (seed {seed}, {len(self.symbols)} symbols)"
        self.notes: tuple[str, ...] = ()
        self._gaps: Gaps = gaps
        if len(self.symbols) >= FEWEST_WITH_LIVES:
            *_, gone, late = self.symbols
            self.notes = (f"{late} is listed at {iso(LISTED)}, {gone} delisted at {iso(VANISHED)}",)

    def __repr__(self) -> str:
        return f"SamplePanel({list(self.symbols)!r}, seed={self.seed}, gaps={self._gaps!r})"

    def fetch_panel(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Bars that open at or after `start` and close by `end` (UTC us), columns of `PANEL_SCHEMA`.

        Raises:
            MissingData: the span is not within 2010 to 2049, or no symbol lives in it.
        """
        length = interval_us(interval)
        span = whole_bars(Span(start, end), length)
        market = (
            SampleSource(_MARKET, self.seed)
            .minutes(span)
            .select("open_time", first=pl.col("open") / BASE_PRICE, last=pl.col("close") / BASE_PRICE)
        )
        lives = []
        for symbol in self.symbols:
            table = self._minutes(symbol, span, market)
            lives.append(life_of(symbol, table, span, length, self._gaps))
        bars = pl.concat(lives)
        if bars.is_empty():
            raise MissingData(f"{self.label}: no bars in {span}; choose another range")
        return bars

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """The settlements in (start, end] of a symbol as a perpetual, columns of `FUNDING_SCHEMA`.

        Raises:
            MissingData: the span is not within 2010 to 2049.
        """
        return SampleSource(symbol, self.seed).fetch_funding(start, end)

    def _minutes(self, symbol: str, span: Span, market: pl.DataFrame) -> pl.DataFrame:
        life = self._life(symbol)
        part = Span(max(span.start, life.start), min(span.end, life.end))
        if part.start >= part.end:
            return STORE_SCHEMA.to_frame()
        price, size = _scales(symbol)
        units = size / price
        own = SampleSource(symbol, self.seed).minutes(part).join(market, on="open_time", how="inner")
        alive = pl.col("open_time").cast(pl.Int64).is_between(part.start, part.end, closed="left")
        return (
            own.filter(alive)
            .with_columns(
                # The outer prices take the outer factor, so that a bar remains one that can be.
                open=(pl.col("open") * pl.col("first") * price).round(6),
                high=(pl.col("high") * pl.max_horizontal("first", "last") * price).round(6),
                low=(pl.col("low") * pl.min_horizontal("first", "last") * price).round(6),
                close=(pl.col("close") * pl.col("last") * price).round(6),
                volume=(pl.col("volume") * units).round(5),
                taker_base=(pl.col("taker_base") * units).round(5),
                quote_asset_volume=(pl.col("quote_asset_volume") * pl.col("last") * size).round(5),
                taker_quote=(pl.col("taker_quote") * pl.col("last") * size).round(5),
                trades=(pl.col("trades") * size).ceil().cast(pl.Int64),
            )
            .select(STORE_SCHEMA.names())
        )

    def _life(self, symbol: str) -> Span:
        listed, vanished = FIRST, LAST
        if len(self.symbols) >= FEWEST_WITH_LIVES:
            listed = LISTED if symbol == self.symbols[-1] else listed
            vanished = VANISHED if symbol == self.symbols[-2] else vanished
        return Span(listed, vanished)


def _scales(symbol: str) -> tuple[float, float]:
    """What price and traded value of a symbol are multiplied by: 1 to 1/1024, and 4 to 1/8."""
    bits = int.from_bytes(hashlib.sha256(f"agent-bt/sample/scales|{symbol}".encode()).digest()[:4], "big")
    # Powers of two lose no bit.
    return 2.0 ** -(bits % 11), 2.0 ** (2 - bits // 11 % 6)
