"""The symbols of a run over many for the page: their names, the candles of each to decode when asked for.

A run over one symbol has its candles in the same place, as the first and only symbol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from agent_bt.reports.html_curves import MAX_CANDLES, pack_candles

QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "USD", "EUR", "BTC", "ETH")
_MOST_CANDLES, _LEAST_EACH = 1_000_000, 2_000


class Symbols:
    """The bars of a run, symbol by symbol.

    Attributes:
        many: whether the run holds several symbols in one account.
        names: as traded, ascending.
        first: position of the one that the page opens with: the most traded.
    """

    def __init__(self, bars: pl.DataFrame, fills: pl.DataFrame, symbol: str) -> None:
        """`bars` as in `market.parquet`; `symbol` names the one of a run over one."""
        self.many = "symbol" in bars.columns
        by_symbol = bars.partition_by("symbol", as_dict=True, include_key=False) if self.many else {(symbol,): bars}
        self._bars = {str(key[0]): frame for key, frame in sorted(by_symbol.items())}
        self.names = tuple(self._bars)
        self.first = self._most_traded(fills)

    def last_closes(self) -> dict[str, float]:
        """Symbol -> its last close in the run."""
        return {name: float(frame["close"][-1]) for name, frame in self._bars.items() if len(frame)}

    def first_block(self) -> dict[str, str]:
        """The packed candles of the symbol that the page opens with, under its name."""
        return {f"candles-{self.first}": self._pack(self.first)}

    def other_blocks(self) -> Iterator[tuple[str, str]]:
        """Those of all others, one after another."""
        return ((f"candles-{at}", self._pack(at)) for at in range(len(self.names)) if at != self.first)

    def _pack(self, at: int) -> str:
        most = max(_LEAST_EACH, min(MAX_CANDLES, _MOST_CANDLES // len(self.names)))
        return pack_candles(self._bars[self.names[at]], most)

    def _most_traded(self, fills: pl.DataFrame) -> int:
        if not self.many or fills.is_empty():
            return 0
        traded = fills.group_by("symbol").agg((pl.col("quantity") * pl.col("price")).abs().sum().alias("notional"))
        most = traded.sort("notional", "symbol", descending=[True, False])["symbol"][0]
        return self.names.index(most) if most in self.names else 0


def short_names(symbols: Sequence[str]) -> dict[str, str]:
    """Symbol -> its name without the quote currency, where all have the same: BTCUSDT -> BTC."""
    for quote in QUOTES:
        if all(symbol.endswith(quote) and symbol != quote for symbol in symbols):
            return {symbol: symbol.removesuffix(quote) for symbol in symbols}
    return {symbol: symbol for symbol in symbols}
