"""What a strategy may see at one instant. A view owns copies of its rows: nothing later exists in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import polars as pl

from agent_bt.core.schema import TIME
from agent_bt.core.types import DaySummary

BAR_COLUMNS = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_asset_volume",
    "trades",
    "taker_base",
    "taker_quote",
    "filled",
)
"""The columns that every view starts with, before the features; `filled` is 1.0 on invented bars."""


class MarketView:
    """The last `n` closed bars and features of every symbol, up to and including the bar that closed at `now`.

    Attributes:
        now: the instant of the decision, UTC us; equals the close_time of the last row.
        interval: length of a bar, us.
        symbols: in fixed order; the second axis of the data.
        columns: names of the third axis: `BAR_COLUMNS`, then features.
        times: close times of the rows, int64 (n,), UTC us.
        prices: symbol -> last close (quote units).
        eligible: bool (symbols,): listed, still traded, and in the pool where there is one.
        summary: up to 7 days of the first symbol, oldest first; empty unless the strategy asked for it.
    """

    __slots__ = (
        "_data",
        "_eligibility",
        "_index",
        "columns",
        "eligible",
        "interval",
        "now",
        "prices",
        "summary",
        "symbols",
        "times",
    )

    def __init__(
        self,
        *,
        now: int,
        interval: int,
        symbols: Sequence[str],
        columns: Sequence[str],
        times: np.ndarray,
        data: np.ndarray,
        summary: tuple[DaySummary, ...] = (),
        index: Mapping[str, int] | None = None,
        eligible: np.ndarray | None = None,
        eligibility: np.ndarray | None = None,
    ) -> None:
        """`data` is float64 (n, symbols, columns), the view's own and read-only from here on.

        `index` maps column names to the third axis of `data`; without `eligible`, whatever has a price is eligible.
        `eligibility`, bool (n, symbols), says it for every row; its last one is `eligible`.
        """
        self.now = now
        self.interval = interval
        self.symbols = symbols
        self.columns = columns
        self.times = times
        self.summary = summary
        self._data = data
        self._index = index if index is not None else {name: at for at, name in enumerate(columns)}
        # What a strategy was shown goes into the record after it has decided: nobody may write to it.
        data.setflags(write=False)
        times.setflags(write=False)
        closes = data[-1, :, self._index["close"]]
        self.prices: Mapping[str, float] = MappingProxyType(dict(zip(symbols, closes.tolist(), strict=True)))
        if eligible is None:
            eligible = ~np.isnan(closes) if eligibility is None else eligibility[-1]
        self.eligible = eligible
        self.eligible.setflags(write=False)
        self._eligibility = eligibility

    def __len__(self) -> int:
        return len(self.times)

    def column(self, name: str, symbol: str | None = None) -> np.ndarray:
        """One column of one symbol (default: the first), oldest first; float64 (n,), NaN where undefined.

        Raises:
            KeyError: there is no such column or symbol; the message lists what there is.
        """
        return self._data[:, self._at(symbol), self._column(name)]

    def cross_section(self, name: str) -> np.ndarray:
        """The last row of one column over all symbols; float64 (symbols,)."""
        return self._data[-1, :, self._column(name)]

    def table(self, name: str) -> np.ndarray:
        """One column of every symbol, oldest row first; float64 (n, symbols)."""
        return self._data[:, :, self._column(name)]

    def eligibility(self) -> np.ndarray:
        """Which symbols could be traded, at every row; bool (n, symbols). Rows nobody spoke of go by their price."""
        if self._eligibility is None:
            self._eligibility = ~np.isnan(self.table("close"))
            self._eligibility[-1] = self.eligible
        self._eligibility.setflags(write=False)
        return self._eligibility

    def latest(self, name: str, symbol: str | None = None) -> float:
        """The last value of one column of one symbol."""
        return float(self._data[-1, self._at(symbol), self._column(name)])

    def matrix(self, symbol: str | None = None) -> np.ndarray:
        """All rows and columns of one symbol; float64 (n, columns)."""
        return self._data[:, self._at(symbol), :]

    def frame(self, symbol: str | None = None) -> pl.DataFrame:
        """All rows of one symbol as a table: open_time, close_time, then `columns`."""
        table = pl.DataFrame(self.matrix(symbol), schema=list(self.columns), orient="row")
        close_time = pl.Series("close_time", self.times).cast(TIME)
        open_time = pl.Series("open_time", self.times - self.interval).cast(TIME)
        return table.insert_column(0, close_time).insert_column(0, open_time)

    def _at(self, symbol: str | None) -> int:
        if symbol is None:
            return 0
        if symbol not in self.symbols:
            raise KeyError(f"no symbol {symbol!r} in view; there is {', '.join(self.symbols)}")
        return self.symbols.index(symbol)

    def _column(self, name: str) -> int:
        try:
            return self._index[name]
        except KeyError:
            raise KeyError(f"no column {name!r} in view; there is {', '.join(self.columns)}") from None
