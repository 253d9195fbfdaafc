"""Computes the features of many strategies once over a market, and keeps each as long as it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
import polars as pl

from agent_bt.core.types import FeatureSpec
from agent_bt.engine.market import Market
from agent_bt.features.compute import compute

Lookup = Callable[[str], np.ndarray]


class SharedColumns:
    """Feature columns over all rows of a market, equal to those that `Market` computes itself."""

    def __init__(self, market: Market) -> None:
        """Share columns over `market`; features that it already has are not used."""
        self._market = market
        bars = market.bars
        many = "symbol" in bars.columns and len(market.symbols) > 1
        self._parts = bars.partition_by("symbol", maintain_order=True) if many else [bars]
        self._columns: dict[str, np.ndarray] = {}
        self._defined: dict[str, np.ndarray] = {}

    def load(self, specs: Iterable[FeatureSpec], workers: Executor) -> None:
        """Compute the features that are missing, and drop those that are no longer needed.

        Args:
            specs: the features needed from now on.
            workers: threads to compute in.

        Raises:
            StrategyError: a feature cannot be computed.
        """
        wanted = {spec.column: spec for spec in specs}
        for name in [name for name in self._columns if name not in wanted]:
            del self._columns[name], self._defined[name]
        new = [spec for name, spec in wanted.items() if name not in self._columns]
        for spec, column in zip(new, workers.map(self._compute, new), strict=True):
            column.setflags(write=False)
            self._columns[spec.column] = column
            self._defined[spec.column] = ~np.isnan(column)

    def column(self, name: str) -> np.ndarray:
        """Return a feature or a column of the bars; float64 (T, N)."""
        found = self._columns.get(name)
        return self._market.column(name) if found is None else found

    def ready(self, specs: Sequence[FeatureSpec], lookback: int) -> int:
        """Return the first row with a complete window of every feature, as `Market` does; T if there is none.

        Args:
            specs: features that have been loaded.
            lookback: rows of a window.
        """
        market = self._market
        defined = ~np.isnan(market.close) if not specs else self._defined[specs[0].column]
        starts = []
        for symbol in range(len(market.symbols)):
            row = _first(defined[:, symbol], market.close[:, symbol])
            for spec in specs[1:]:
                row = max(row, _first(self._defined[spec.column][:, symbol], market.close[:, symbol]))
            # A feature may be undefined again later: then the first row that has them all comes after that.
            if row < len(market) and not all(self._defined[spec.column][row, symbol] for spec in specs):
                every = np.logical_and.reduce([self._defined[spec.column][:, symbol] for spec in specs])
                row = _first(every, market.close[:, symbol])
            if row < len(market):
                starts.append(row)
        return max(market.first, min(starts) + lookback - 1) if starts else len(market)

    def market(self) -> Market:
        """Return the market with these columns, for `decide_all`."""
        return _Columned(self._market, self.column, self._columns)

    def _compute(self, spec: FeatureSpec) -> np.ndarray:
        market = self._market
        if len(self._parts) == 1:
            column = compute(self._parts[0], [spec])
            column[int(market.ends[0]) + 1 :] = np.nan
            return column
        column = np.full((len(market), len(market.symbols)), np.nan)
        for part in self._parts:
            symbol = market.symbols.index(str(part["symbol"][0]))
            _write_on_common_rows(
                column[:, symbol], compute(part, [spec])[:, 0], market, part, int(market.ends[symbol])
            )
        return column


class _Columned(Market):
    """A market that takes its columns from a function."""

    def __init__(self, market: Market, lookup: Lookup, more: Mapping[str, np.ndarray]) -> None:
        self.__dict__.update(market.__dict__)
        self.columns = (*market.columns, *more)
        self._lookup = lookup

    def column(self, name: str) -> np.ndarray:
        """Return a column of the market or a shared one; float64 (T, N)."""
        return self._lookup(name)


def _first(defined: np.ndarray, close: np.ndarray) -> int:
    """Return the first row that is defined and has a close; the number of rows if there is none."""
    row = int(np.argmax(defined))
    if defined[row] and not np.isnan(close[row]):
        return row
    both = defined & ~np.isnan(close)
    row = int(np.argmax(both))
    return row if both[row] else len(both)


def _write_on_common_rows(column: np.ndarray, values: np.ndarray, market: Market, part: pl.DataFrame, end: int) -> None:
    """Write the values of a symbol to the common rows; a missing bar repeats the previous value, as in `Market`."""
    there = np.searchsorted(market.times, part["close_time"].to_physical().to_numpy())
    rows = np.arange(there[0], min(len(market) - 1, end) + 1)
    column[rows] = values[np.searchsorted(there, rows, side="right") - 1]
