"""The market of a run: bars and features as arrays, and views of them that end at a given bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import polars as pl

from agent_bt.core.clock import DAY
from agent_bt.core.errors import DataError
from agent_bt.core.types import DaySummary
from agent_bt.core.view import BAR_COLUMNS, HIDDEN, Layout, MarketView

Summary = Callable[[int], tuple[DaySummary, ...]]

DELISTED_AFTER = DAY
"""A symbol without a trade for at least this long before the end of the data was delisted after its last trade."""

_FLAT, _EMPTY = ("open", "high", "low"), ("volume", "quote_asset_volume", "trades", "taker_base", "taker_quote")
_PER_ROW = ("times", "open", "high", "low", "close", "traded", "filled", "eligible", "funding", "_data")


class Market:
    """Bars of one or more symbols on a common time axis: the union of theirs.

    A symbol is listed from its first bar to its last trade. Before, its columns are NaN; afterwards its price stays the
    same and its features are NaN. A delisting is known at the last trade, as exchanges announce it; positions are
    closed there.

    Attributes:
        symbols: in fixed order; the second axis of the arrays.
        interval: length of a bar, us.
        times: close times, int64 (T,), UTC us, ascending.
        open, high, low, close: float64 (T, N), C order.
        traded: bool (T, N); False on filled and on zero-volume bars, where nothing fills.
        filled: bool (T, N); bars that were invented over a gap.
        eligible: bool (T, N); listed, not delisted, and in the pool where there is one.
        funding: rate settled at the close, float64 (T, N), 0 where none is; no rows where there is no funding.
        ends: int64 (N,), the row of the last trade of a symbol that is delisted, T for the others.
        special: int64, ascending: the rows that have a settlement or an end.
        first: row of the first bar at or after the start of the run; rows before it are warm-up.
        columns: names of the view's columns.
    """

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        bars: pl.DataFrame,
        interval: int,
        start: int,
        features: np.ndarray,
        feature_names: Sequence[str],
        summary: Summary | None = None,
        lookback: int,
    ) -> None:
        """Arrange the bars in arrays.

        Args:
            symbols: their order is the second axis of the data.
            bars: columns of `BAR_SCHEMA`, ascending in time; of several symbols one after another, with `symbol`. An
                optional `funding_rate` holds the rates that are settled at the closes.
            interval: length of a bar, us.
            start: the first instant of the run, UTC us.
            features: float64 (rows of `bars`, F).
            feature_names: of the F columns.
            summary: maps a row to the 7-day summary of the first symbol; None: views have none.
            lookback: rows of a view.

        Raises:
            DataError: the data has no bar at or after `start`.
        """
        self.symbols = tuple(symbols)
        self.interval = interval
        self.bars = bars
        self.times = bars["close_time"].unique().sort().to_physical().to_numpy()
        self.first = int(np.searchsorted(self.times, start, side="right"))
        if self.first >= len(self.times):
            named = ", ".join(self.symbols[:5])
            raise DataError(f"the period has no bars of {named}; choose another start or end")
        self.lookback = lookback
        self.columns = (*BAR_COLUMNS, *feature_names)
        self._index = {name: at for at, name in enumerate(self.columns)}
        self._layout = Layout(interval, self.symbols, self.columns, self._index)
        self._summary = summary
        self._data, listed = self._grid(bars, features)
        self.open, self.high, self.low, self.close = (
            np.ascontiguousarray(self.column(name)) for name in ("open", "high", "low", "close")
        )
        self.filled = self.column("filled") > 0
        self.traded = (self.column("volume") > 0) & ~self.filled
        self.ends = self._last_trades()
        rows = np.arange(len(self))[:, None]
        self.eligible = (rows >= listed) & (rows < self.ends)
        self._data[:, :, len(BAR_COLUMNS) : -HIDDEN][rows > self.ends] = np.nan
        self._data[:, :, -HIDDEN] = self.eligible
        self._data[:, :, -1] = self.times[:, None]
        self.funding = self._settlements(bars)
        ends = self.ends[self.ends < len(self)]
        self.special = np.union1d(ends, np.flatnonzero(self.funding.any(axis=1))).astype(np.int64)
        self.ready = self._first_full_row()

    def __len__(self) -> int:
        return len(self.times)

    def column(self, name: str) -> np.ndarray:
        """Return one column of the whole market; float64 (T, N), read-only, NaN where not defined.

        Raises:
            KeyError: the column does not exist; the message lists the existing ones.
        """
        if name not in self._index:
            raise KeyError(f"no column {name!r} in market; choose one of {', '.join(self.columns)}")
        values = self._data[:, :, self._index[name]]
        values.setflags(write=False)
        return values

    def at(self, bar: int) -> MarketView:
        """Return the view at the close of row `bar`, with copies of the last `lookback` rows."""
        low = bar + 1 - self.lookback
        rows = self._data[low if low > 0 else 0 : bar + 1].copy()
        return MarketView.over(self._layout, rows, self._summary(bar) if self._summary else ())

    def head(self, rows: int) -> Market:
        """Return the same market, ended after `rows` rows."""
        shorter = copy(self)
        if rows < len(self):
            shorter.bars = self.bars.filter(pl.col("close_time").to_physical() <= int(self.times[rows - 1]))
        for name in _PER_ROW:
            setattr(shorter, name, getattr(self, name)[:rows])
        return shorter

    def restrict(self, pool: np.ndarray) -> None:
        """Make only the members of a pool (bool (T, N)) eligible, in this market itself."""
        self.eligible &= pool
        self._data[:, :, -HIDDEN] = self.eligible

    def _grid(self, bars: pl.DataFrame, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the data (T, N, C), and the first row of each symbol (T if it has none)."""
        values = [bars[name].cast(pl.Float64).to_numpy() for name in BAR_COLUMNS]
        table = np.column_stack([*values, features, np.zeros((len(bars), HIDDEN))])
        if len(self.symbols) == 1:
            return table.reshape(len(table), 1, -1), np.zeros(1, np.int64)
        rows = np.searchsorted(self.times, bars["close_time"].to_physical().to_numpy())
        data = np.full((len(self.times), len(self.symbols), table.shape[1]), np.nan)
        listed = np.full(len(self.symbols), len(self.times), np.int64)
        names = bars["symbol"].to_numpy()
        for number, symbol in enumerate(self.symbols):
            own = names == symbol
            if not own.any():
                continue
            there, mine = rows[own], table[own]
            listed[number] = there[0]
            # The row of the symbol for each row of the common axis: its own, or the last one before.
            source = np.searchsorted(there, np.arange(there[0], len(self.times)), side="right") - 1
            block = mine[source]
            absent = there[source] != np.arange(there[0], len(self.times))
            for name in _FLAT:
                block[absent, self._index[name]] = block[absent, self._index["close"]]
            for name in _EMPTY:
                block[absent, self._index[name]] = 0.0
            block[absent, self._index["filled"]] = 1.0
            data[there[0] :, number] = block
        return data, listed

    def _last_trades(self) -> np.ndarray:
        ends = np.full(len(self.symbols), len(self), np.int64)
        for number in range(len(self.symbols)):
            trades = np.flatnonzero(self.traded[:, number])
            if len(trades) and self.times[-1] - self.times[trades[-1]] >= DELISTED_AFTER:
                ends[number] = trades[-1]
        return ends

    def _settlements(self, bars: pl.DataFrame) -> np.ndarray:
        if "funding_rate" not in bars.columns:
            return np.empty((0, len(self.symbols)))
        rates = np.zeros((len(self), len(self.symbols)))
        rows = np.searchsorted(self.times, bars["close_time"].to_physical().to_numpy())
        known = bars["funding_rate"].fill_null(0.0).to_numpy()
        if len(self.symbols) == 1:
            rates[rows, 0] = known
        else:
            numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
            rates[rows, [numbers[symbol] for symbol in bars["symbol"]]] = known
        return rates

    def _first_full_row(self) -> int:
        """Return the first row at which the whole window of a symbol has all features; len(self) if there is none."""
        features = self._data[:, :, len(BAR_COLUMNS) : -HIDDEN]
        defined = ~np.isnan(features).any(axis=2) & ~np.isnan(self.close)
        starts = [int(np.argmax(column)) for column in defined.T if column.any()]
        if not starts:
            return len(self)
        return max(self.first, min(starts) + self.lookback - 1)
