"""The market view: what a strategy may see at one instant, in copies of the rows up to it; nothing later is in it."""

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
    """What all views of a market share.

    Attributes:
        interval: length of a bar, us.
        symbols: the second axis of the data.
        columns: the third axis of the data.
        index: position of each column in `columns`.
    """

    interval: int
    symbols: Sequence[str]
    columns: Sequence[str]
    index: Mapping[str, int]


HIDDEN = 2
"""Columns behind the named ones in the data of a view: whether the symbol is eligible, and the close time (us)."""


class MarketView:
    """The last n closed bars and features of every symbol, up to the bar that closes at the instant of the decision.

    Rows go from the oldest to the latest; values that are not defined (not listed yet, too few bars) are NaN.

    Attributes:
        now: the instant of the decision, UTC us; the close time of the last row.
        interval: length of a bar, us.
        symbols: in fixed order; the second axis of the data.
        columns: names of the third axis: `BAR_COLUMNS`, then features.
        times: close times of the rows, int64 (n,), UTC us.
        prices: symbol -> last close, quote units.
        eligible: bool (symbols,): listed, still traded, and in the pool where there is one.
        summary: up to 7 days of the first symbol, oldest first; empty unless the strategy needs it.

    Example:
        >>> bars = np.array([[100.0, 101.0, 99.0, 100.5], [100.5, 104.0, 100.0, 103.0]]).reshape(2, 1, 4)
        >>> view = MarketView(
        ...     now=7_200_000_000, interval=3_600_000_000, symbols=("BTCUSDT",),
        ...     columns=("open", "high", "low", "close"), times=np.array([3_600_000_000, 7_200_000_000]), data=bars,
        ... )
        >>> len(view), view.latest("close"), dict(view.prices)
        (2, 103.0, {'BTCUSDT': 103.0})
        >>> view.column("close").tolist()
        [100.5, 103.0]
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
        """Make a view from arrays, which are copied; strategies receive theirs from the engine.

        Args:
            now: the instant of the decision, UTC us; must be the last of `times`.
            interval: length of a bar, us.
            symbols: the second axis of `data`.
            columns: the third axis of `data`; `close` must be one of them.
            times: close times of the rows, int64 (n,), UTC us.
            data: float64 (n, symbols, columns).
            summary: days of the first symbol, oldest first.
            eligible: bool (symbols,), which symbols may be traded now; default: those with a price.
            eligibility: bool (n, symbols), the same for every row; its last row takes the place of `eligible`.

        Raises:
            ValueError: the rows do not end at `now`.
        """
        index = {name: at for at, name in enumerate(columns)}
        if eligibility is None:
            eligibility = ~np.isnan(data[:, :, index["close"]])
            if eligible is not None:
                eligibility[-1] = eligible
        stamps = np.broadcast_to(times[:, np.newaxis], eligibility.shape)
        if now != times[-1]:
            raise ValueError(
                f"the rows of a view must end at {iso(now)}, got a bar that closes at {iso(int(times[-1]))}"
            )
        self.summary = summary
        self._layout = Layout(interval, symbols, columns, index)
        self._data = np.concatenate([data, eligibility[:, :, np.newaxis], stamps[:, :, np.newaxis]], axis=2)
        self._data.flags.writeable = False
        self._prices: Mapping[str, float] | None = None

    @classmethod
    def over(cls, layout: Layout, data: np.ndarray, summary: tuple[DaySummary, ...]) -> MarketView:
        """Make a view of an array without a copy; the array must not be used elsewhere and becomes read-only.

        Args:
            layout: of the market.
            data: float64 (n, symbols, columns + `HIDDEN`).
            summary: days of the first symbol, oldest first.
        """
        view = cls.__new__(cls)
        view.summary = summary
        view._layout = layout
        view._data = data
        view._prices = None
        # The data of a view is recorded after the decision, so a strategy must not change it.
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
        """The symbols, in fixed order."""
        return self._layout.symbols

    @property
    def columns(self) -> Sequence[str]:
        """The columns: `BAR_COLUMNS`, then features."""
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
        """Return whether one symbol (default: the first) is eligible now."""
        return bool(self._data.item(-1, 0 if symbol is None else self._at(symbol), -HIDDEN) > 0.0)

    def eligibility(self) -> np.ndarray:
        """Return which symbols were eligible at each row; bool (n, symbols)."""
        eligible: np.ndarray = self._data[:, :, -HIDDEN] > 0.0
        return eligible

    def __len__(self) -> int:
        return len(self._data)

    def column(self, name: str, symbol: str | None = None) -> np.ndarray:
        """Return one column of one symbol; float64 (n,), oldest first, NaN where not defined.

        Args:
            name: one of `columns`.
            symbol: one of `symbols`; default: the first.

        Raises:
            KeyError: there is no such column or symbol; the message lists those there are.
        """
        return self._data[:, self._at(symbol), self._column(name)]

    def cross_section(self, name: str) -> np.ndarray:
        """Return the last row of one column, for all symbols; float64 (symbols,)."""
        return self._data[-1, :, self._column(name)]

    def table(self, name: str) -> np.ndarray:
        """Return one column of all symbols; float64 (n, symbols), oldest row first."""
        return self._data[:, :, self._column(name)]

    def latest(self, name: str, symbol: str | None = None) -> float:
        """Return the last value of one column of one symbol.

        Args:
            name: one of `columns`.
            symbol: one of `symbols`; default: the first.

        Raises:
            KeyError: there is no such column or symbol.
        """
        column = self._layout.index.get(name)
        if column is None:
            column = self._column(name)
        value: float = self._data.item(-1, 0 if symbol is None else self._at(symbol), column)
        return value

    def matrix(self, symbol: str | None = None) -> np.ndarray:
        """Return all rows and columns of one symbol (default: the first); float64 (n, columns)."""
        return self._data[:, self._at(symbol), :-HIDDEN]

    def frame(self, symbol: str | None = None) -> pl.DataFrame:
        """Return the rows of one symbol (default: the first) as a table: open_time, close_time, then `columns`."""
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
