"""The symbols of a run for the page: their names, and the candles of each, decoded on demand.

A run over one symbol has its candles in the same place, as the first and only symbol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from agent_bt.reports.html_curves import MAX_CANDLES, pack_candles

QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "USD", "EUR", "BTC", "ETH")
"""Quote currencies that names of symbols may end with."""
_MOST_CANDLES, _LEAST_EACH = 1_000_000, 2_000


class Symbols:
    """The bars of a run, by symbol.

    Attributes:
        multi_symbol: whether the run holds several symbols in one account.
        names: of the symbols, ascending.
        first: position of the symbol that the page opens with, the most traded one.
    """

    def __init__(self, bars: pl.DataFrame, fills: pl.DataFrame, symbol: str) -> None:
        """Divide the bars by symbol.

        Args:
            bars: as in `market.parquet`.
            fills: of the run.
            symbol: name of the symbol of a run over one.
        """
        self.multi_symbol = "symbol" in bars.columns
        by_symbol = (
            bars.partition_by("symbol", as_dict=True, include_key=False) if self.multi_symbol else {(symbol,): bars}
        )
        self._bars = {str(key[0]): frame for key, frame in sorted(by_symbol.items())}
        self.names = tuple(self._bars)
        self.first = self._most_traded(fills)

    def last_closes(self) -> dict[str, float]:
        """Return symbol -> its last close in the run."""
        return {name: float(frame["close"][-1]) for name, frame in self._bars.items() if len(frame)}

    def first_block(self) -> dict[str, str]:
        """Pack the candles of the symbol that the page opens with."""
        return {f"candles-{self.first}": self._pack(self.first)}

    def other_blocks(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the packed candles of all other symbols."""
        return ((f"candles-{at}", self._pack(at)) for at in range(len(self.names)) if at != self.first)

    def _pack(self, at: int) -> str:
        most = max(_LEAST_EACH, min(MAX_CANDLES, _MOST_CANDLES // len(self.names)))
        return pack_candles(self._bars[self.names[at]], most)

    def _most_traded(self, fills: pl.DataFrame) -> int:
        if not self.multi_symbol or fills.is_empty():
            return 0
        traded = fills.group_by("symbol").agg((pl.col("quantity") * pl.col("price")).abs().sum().alias("notional"))
        most = traded.sort("notional", "symbol", descending=[True, False])["symbol"][0]
        return self.names.index(most) if most in self.names else 0


def short_names(symbols: Sequence[str]) -> dict[str, str]:
    """Return symbol -> its name without the quote currency, if all have the same: BTCUSDT -> BTC."""
    for quote in QUOTES:
        if all(symbol.endswith(quote) and symbol != quote for symbol in symbols):
            return {symbol: symbol.removesuffix(quote) for symbol in symbols}
    return {symbol: symbol for symbol in symbols}
