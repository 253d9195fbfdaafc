"""The market of a run: bars and features as arrays, and the view of them that ends at a given bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import polars as pl

from agent_bt.core.errors import DataError
from agent_bt.core.types import DaySummary
from agent_bt.core.view import BAR_COLUMNS, MarketView

Summary = Callable[[int], tuple[DaySummary, ...]]


class Market:
    """Bars of one or more symbols on a common time axis.

    Attributes:
        symbols, interval: as in the view; the interval in us.
        times: close times, int64 (T,), UTC us, ascending.
        open, high, low, close: float64 (T, N), C order.
        traded: bool (T, N); False on filled and on zero-volume bars, where nothing fills.
        filled: bool (T, N); bars that were invented over a gap.
        first: row of the first bar at or after the start of the run; rows before it are warm-up.
        columns: names of the view's columns.
    """

    def __init__(
        self,
        *,
        symbol: str,
        bars: pl.DataFrame,
        interval: int,
        start: int,
        features: np.ndarray,
        feature_names: Sequence[str],
        summary: Summary | None = None,
        lookback: int,
    ) -> None:
        """`bars` in `BAR_SCHEMA`; `features` float64 (T, F) on the same rows; `summary` maps a row to its days.

        Raises:
            DataError: there is no bar at or after `start`.
        """
        self.symbols = (symbol,)
        self.interval = interval
        self.bars = bars
        self.times = bars["close_time"].to_physical().to_numpy()
        self.first = int(np.searchsorted(self.times, start, side="right"))
        if self.first >= len(self.times):
            raise DataError(f"there are no bars of {symbol} in the asked range; choose another start or end")
        values = [bars[name].cast(pl.Float64).to_numpy() for name in BAR_COLUMNS]
        by_name = dict(zip(BAR_COLUMNS, values, strict=True))
        self.open, self.high, self.low, self.close = (
            np.ascontiguousarray(by_name[name]).reshape(-1, 1) for name in ("open", "high", "low", "close")
        )
        self.filled = (by_name["filled"] > 0).reshape(-1, 1)
        self.traded = ((by_name["volume"] > 0) & (by_name["filled"] == 0)).reshape(-1, 1)
        self.lookback = lookback
        self.columns = (*BAR_COLUMNS, *feature_names)
        self._index = {name: at for at, name in enumerate(self.columns)}
        self._data = np.column_stack([*values, features]).reshape(len(bars), 1, -1)
        self._summary = summary
        self.ready = self._first_full_row(features)

    def __len__(self) -> int:
        return len(self.times)

    def at(self, bar: int) -> MarketView:
        """What may be seen at the close of row `bar`: copies of the last `lookback` rows."""
        low = max(0, bar + 1 - self.lookback)
        return MarketView(
            now=int(self.times[bar]),
            interval=self.interval,
            symbols=self.symbols,
            columns=self.columns,
            times=self.times[low : bar + 1].copy(),
            data=self._data[low : bar + 1].copy(),
            summary=self._summary(bar) if self._summary else (),
            index=self._index,
        )

    def head(self, rows: int) -> Market:
        """The same market, ended after so many rows."""
        shorter = copy(self)
        shorter.bars = self.bars.head(rows)
        for name in ("times", "open", "high", "low", "close", "traded", "filled", "_data"):
            setattr(shorter, name, getattr(self, name)[:rows])
        return shorter

    def _first_full_row(self, features: np.ndarray) -> int:
        """The first row whose whole window has every feature; len(self) if there is none."""
        defined = ~np.isnan(features).any(axis=1)
        if not defined.any():
            return len(self)
        return max(self.first, int(np.argmax(defined)) + self.lookback - 1)
