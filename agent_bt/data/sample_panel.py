"""Generate a sample market of many symbols that share one common market factor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from agent_bt.core.clock import interval_us, iso, time_us
from agent_bt.core.errors import MissingData
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.panel import listed_bars
from agent_bt.data.resample import Gaps, whole_bars
from agent_bt.data.sample import BASE_PRICE, FIRST, LAST, SampleSource
from agent_bt.data.spans import Span

LISTED, DELISTED = time_us("2024-08-01"), time_us("2024-09-01")
"""With five symbols or more: when the last by name is listed, and when the one before it is delisted, UTC us."""

MIN_SYMBOLS_WITH_LISTINGS = 5
"""Number of symbols from which on one is listed late and one is delisted."""
_MARKET = "common market"


class SamplePanel:
    """Generate bars of many symbols of the sample market; its label marks them as generated, not real, data.

    A symbol's price is the price of its own sample market (of this seed and its name) times that of a common one, so
    that returns are correlated; minutes missing in either are missing. Prices and volumes are scaled by powers of two
    derived from the name, so that some symbols have more volume than others.

    With `MIN_SYMBOLS_WITH_LISTINGS` symbols or more, one is listed late and one is delisted, at fixed dates in the
    middle of the default range (`LISTED`, `DELISTED`), so that every run on it has a listing and a delisting.
    """

    def __init__(self, symbols: Sequence[str], seed: int, gaps: Gaps = "forward_fill") -> None:
        """Choose the symbols.

        Args:
            symbols: any names.
            seed: seed of the generator.
            gaps: `forward_fill` (default) or `drop`, see `data.resample.to_bars`.
        """
        self.symbols = tuple(sorted(set(symbols)))
        self.seed = seed
        self.label = f"SAMPLE MARKET (seed {seed}, {len(self.symbols)} symbols)"
        self.notes: tuple[str, ...] = ()
        self._gaps: Gaps = gaps
        if len(self.symbols) >= MIN_SYMBOLS_WITH_LISTINGS:
            *_, delisted, listed = self.symbols
            self.notes = (f"{listed} is listed at {iso(LISTED)}, {delisted} delisted at {iso(DELISTED)}",)

    def __repr__(self) -> str:
        return f"SamplePanel({list(self.symbols)!r}, seed={self.seed}, gaps={self._gaps!r})"

    def fetch_panel(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`.

        Args:
            interval: length of a bar, such as `1m`, `1h` or `1d`.
            start: earliest open time, UTC us.
            end: latest close time, UTC us.

        Returns:
            One row a bar and symbol, columns of `PANEL_SCHEMA`, sorted by symbol and time.

        Raises:
            MissingData: the range is not within 2010 to 2049, or no symbol is listed in it.
        """
        length = interval_us(interval)
        span = whole_bars(Span(start, end), length)
        market = (
            SampleSource(_MARKET, self.seed)
            .minutes(span)
            .select("open_time", first=pl.col("open") / BASE_PRICE, last=pl.col("close") / BASE_PRICE)
        )
        parts = []
        for symbol in self.symbols:
            table = self._minutes(symbol, span, market)
            parts.append(listed_bars(symbol, table, span, length, self._gaps))
        bars = pl.concat(parts)
        if bars.is_empty():
            raise MissingData(f"{self.label}: no bars in {span}; choose another range")
        return bars

    def fetch_funding(self, symbol: str, start: int, end: int) -> pl.DataFrame:
        """Return the settlements in (start, end] of a symbol as a perpetual.

        Args:
            symbol: any name.
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: the span is not within 2010 to 2049.
        """
        return SampleSource(symbol, self.seed).fetch_funding(start, end)

    def _minutes(self, symbol: str, span: Span, market: pl.DataFrame) -> pl.DataFrame:
        listed = self._listed(symbol)
        part = Span(max(span.start, listed.start), min(span.end, listed.end))
        if part.start >= part.end:
            return STORE_SCHEMA.to_frame()
        price, size = _scales(symbol)
        units = size / price
        own = SampleSource(symbol, self.seed).minutes(part).join(market, on="open_time", how="inner")
        inside = pl.col("open_time").cast(pl.Int64).is_between(part.start, part.end, closed="left")
        return (
            own.filter(inside)
            .with_columns(
                # High and low take the larger and the smaller factor, so that the bar remains valid.
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

    def _listed(self, symbol: str) -> Span:
        listed, delisted = FIRST, LAST
        if len(self.symbols) >= MIN_SYMBOLS_WITH_LISTINGS:
            listed = LISTED if symbol == self.symbols[-1] else listed
            delisted = DELISTED if symbol == self.symbols[-2] else delisted
        return Span(listed, delisted)


def _scales(symbol: str) -> tuple[float, float]:
    """Return the factors of the price (1 to 1/1024) and of the traded value (4 to 1/8) of a symbol."""
    bits = int.from_bytes(hashlib.sha256(f"agent-bt/sample/scales|{symbol}".encode()).digest()[:4], "big")
    # Multiplying by powers of two is exact.
    return 2.0 ** -(bits % 11), 2.0 ** (2 - bits // 11 % 6)
