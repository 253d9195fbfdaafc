"""What a strategy may see at one instant. A view owns copies of its rows: nothing later exists in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl

from agent_bt.core.clock import iso
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


@dataclass(frozen=True, slots=True)
class Layout:
    """What all views of a market share; `index` maps the names of the columns to the third axis of the data."""

    interval: int
    symbols: Sequence[str]
    columns: Sequence[str]
    index: Mapping[str, int]


HIDDEN = 2
"""Columns behind the named ones in the data of a view: whether the symbol is eligible, and the close time (us)."""


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

    __slots__ = ("_data", "_layout", "_prices", "summary")

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
        eligible: np.ndarray | None = None,
        eligibility: np.ndarray | None = None,
    ) -> None:
        """`data`: float64 (n, symbols, columns).

        Without `eligible`, whatever has a price is eligible. `eligibility`, bool (n, symbols), says it for every row;
        its last one is `eligible`.
        """
        index = {name: at for at, name in enumerate(columns)}
        if eligibility is None:
            eligibility = ~np.isnan(data[:, :, index["close"]])
            if eligible is not None:
                eligibility[-1] = eligible
        stamps = np.broadcast_to(times[:, np.newaxis], eligibility.shape)
        if now != times[-1]:
            raise ValueError(f"a view of {iso(now)} cannot end with a bar that closes at {iso(int(times[-1]))}")
        self.summary = summary
        self._layout = Layout(interval, symbols, columns, index)
        self._data = np.concatenate([data, eligibility[:, :, np.newaxis], stamps[:, :, np.newaxis]], axis=2)
        self._data.flags.writeable = False
        self._prices: Mapping[str, float] | None = None

    @classmethod
    def over(cls, layout: Layout, data: np.ndarray, summary: tuple[DaySummary, ...]) -> MarketView:
        """A view of `data`, float64 (n, symbols, columns + `HIDDEN`), which is its own and read-only from here on."""
        view = cls.__new__(cls)
        view.summary = summary
        view._layout = layout
        view._data = data
        view._prices = None
        # What a strategy was shown goes into the record after it has decided: nobody may write to it.
        data.setflags(write=False)
        return view

    @property
    def now(self) -> int:
        """The instant of the decision, UTC us."""
        return int(self._data.item(-1, 0, -1))

    @property
    def interval(self) -> int:
        """Length of a bar, us."""
        return self._layout.interval

    @property
    def symbols(self) -> Sequence[str]:
        """In fixed order."""
        return self._layout.symbols

    @property
    def columns(self) -> Sequence[str]:
        """`BAR_COLUMNS`, then features."""
        return self._layout.columns

    @property
    def times(self) -> np.ndarray:
        """Close times of the rows, int64 (n,), UTC us."""
        times: np.ndarray = self._data[:, 0, -1].astype(np.int64)
        times.flags.writeable = False
        return times

    @property
    def prices(self) -> Mapping[str, float]:
        """Symbol -> last close (quote units)."""
        if self._prices is None:
            closes = self._data[-1, :, self._layout.index["close"]].tolist()
            self._prices = MappingProxyType(dict(zip(self._layout.symbols, closes, strict=True)))
        return self._prices

    @property
    def eligible(self) -> np.ndarray:
        """Which symbols may be traded now; bool (symbols,)."""
        eligible: np.ndarray = self._data[-1, :, -HIDDEN] > 0.0
        return eligible

    def may_trade(self, symbol: str | None = None) -> bool:
        """Whether one symbol (default: the first) is eligible now."""
        return bool(self._data.item(-1, 0 if symbol is None else self._at(symbol), -HIDDEN) > 0.0)

    def eligibility(self) -> np.ndarray:
        """The same at every row; bool (n, symbols)."""
        eligible: np.ndarray = self._data[:, :, -HIDDEN] > 0.0
        return eligible

    def __len__(self) -> int:
        return len(self._data)

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

    def latest(self, name: str, symbol: str | None = None) -> float:
        """The last value of one column of one symbol."""
        column = self._layout.index.get(name)
        if column is None:
            column = self._column(name)
        value: float = self._data.item(-1, 0 if symbol is None else self._at(symbol), column)
        return value

    def matrix(self, symbol: str | None = None) -> np.ndarray:
        """All rows and columns of one symbol; float64 (n, columns)."""
        return self._data[:, self._at(symbol), :-HIDDEN]

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
            return self._layout.index[name]
        except KeyError:
            raise KeyError(f"no column {name!r} in view; there is {', '.join(self.columns)}") from None
