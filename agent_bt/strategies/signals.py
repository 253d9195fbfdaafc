"""Strategies that are a pure function of columns: one arithmetic for `decide` and for `decide_all`."""

from __future__ import annotations

import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from agent_bt.core.errors import AgentBtError, ConfigError, StrategyError
from agent_bt.core.params import names, whole
from agent_bt.core.suggest import did_you_mean
from agent_bt.core.types import Decision, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.features.names import specs_of
from agent_bt.strategies.base import Strategy

Columns = Callable[[str], np.ndarray]
"""A column by its name: float64 (rows, symbols), oldest row first, NaN where undefined."""

HOLD = Decision.hold()


class MarketColumns(Protocol):
    """What `decide_all` reads of a market: arrays over all its rows (T) and symbols (N)."""

    symbols: tuple[str, ...]
    times: np.ndarray
    interval: int
    eligible: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """One column; float64 (T, N), NaN where undefined."""
        ...


class SignalStrategy(Strategy):
    """A strategy whose target weights follow from columns alone; derive from it and write `targets`.

    One implementation serves two callers: `decide` calls `targets` with the rows of the view and takes the last,
    `decide_all` calls it with the rows of the whole market, at the speed of arrays.

    Attributes:
        lookback: rows of the view; decisions made with fewer are HOLD.
        reach: rows that one row of `targets` depends on, itself included; None: `lookback`. A longer `lookback` is
            warm-up: time in which nothing is decided.
        include, exclude: symbols it may trade (empty: all), and symbols it may not; the others it does not see, and
            leaves alone.
    """

    reach: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __init__(
        self,
        *,
        columns: Iterable[str] = (),
        reach: int = 1,
        warm_up: int = 0,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        """Set what `targets` reads.

        Args:
            columns: names of the columns that `targets` asks for; default: those of the bars alone.
            reach: rows that one row of `targets` depends on, itself included; default 1.
            warm_up: bars before the first decision beyond `reach`; default 0.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.

        Raises:
            ConfigError: a parameter is not valid.
        """
        self.features = specs_of(columns)
        self.reach = reach
        self.lookback = reach + whole("warm_up", warm_up, 0)
        self.include, self.exclude = names("include", include), names("exclude", exclude)
        if both := sorted(set(self.include) & set(self.exclude)):
            raise ConfigError(f"include and exclude: {', '.join(both)} stands in both")

    @abstractmethod
    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return target weights (of equity); float64 (rows, symbols), NaN where a symbol is left alone.

        Row r may depend on rows r - reach + 1 to r only, and its bits on nothing else: no running sums, no numpy
        reductions whose order of summation follows the shape of the array.

        Args:
            columns: columns by name.
            eligible: bool (rows, symbols), what may be traded; the target of anything else must be 0 or NaN.
        """

    def shares(self, columns: Columns, eligible: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """Return `targets` of the symbols it may trade, NaN for the others; float64 (rows, symbols).

        Args:
            columns: columns by name.
            eligible: bool (rows, symbols), what may be traded.
            symbols: names of the symbols, in the order of the second axis.
        """
        if not self.include and not self.exclude:
            return self._asked(columns, eligible)
        seen = _seen(tuple(symbols), tuple(self.include), tuple(self.exclude))
        wanted = np.full(eligible.shape, np.nan)
        wanted[:, seen] = self._asked(lambda name: columns(name).take(seen, axis=1), eligible.take(seen, axis=1))
        return wanted

    def _asked(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return what `targets` returns; what it raises becomes a StrategyError."""
        try:
            wanted = self.targets(columns, eligible)
        except AgentBtError:
            raise
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            hint = "; name it in super().__init__(columns=[...])" if isinstance(error, KeyError) else ""
            raise StrategyError(
                f"strategy {self.name}: targets failed: {type(error).__name__}: {error}{hint} "
                f"({at.filename}, line {at.lineno})"
            ) from error
        return self._shaped(wanted, eligible)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:  # noqa: ARG002
        """Move to the target weights of the last row of `view`, whatever `portfolio` is; HOLD in warm-up."""
        if len(view) < self.lookback:
            return HOLD
        reach = self.reach or self.lookback
        eligible = view.eligible[np.newaxis] if reach == 1 else view.eligibility()[-reach:]
        columns = view.table if len(view) == reach else lambda name: view.table(name)[-reach:]
        return self.decision(view.symbols, self.shares(columns, eligible, view.symbols)[-1].tolist())

    def decide_all(self, market: MarketColumns, bars: np.ndarray) -> np.ndarray:
        """Return target weights at the rows `bars` of `market` (int64 (D,), ascending); float64 (D, N), NaN: leave.

        Equal to `decide` at each of them to the last bit.

        Raises:
            StrategyError: `targets` failed, or gave another shape than it should.
        """
        rows = _slice_or(bars)
        if (self.reach or self.lookback) == 1:
            eligible = market.eligible[rows]
            wanted = self.shares(lambda name: market.column(name)[rows], eligible, market.symbols)
        else:
            wanted = self.shares(market.column, market.eligible, market.symbols)[rows]
        early = int(np.searchsorted(bars, self.lookback - 1))
        if early:
            wanted = wanted.copy()
            wanted[:early] = np.nan
        return wanted

    def _shaped(self, wanted: np.ndarray, eligible: np.ndarray) -> np.ndarray:
        if np.shape(wanted) != eligible.shape:
            raise StrategyError(
                f"strategy {self.name}: targets gave an array of shape {np.shape(wanted)}; "
                f"it must be that of eligible, (rows, symbols) = {eligible.shape}"
            )
        return wanted

    def decision(self, symbols: Sequence[str], shares: Sequence[float]) -> Decision:
        """Return the decision to hold target weights `shares` of `symbols`; NaN: left alone."""
        if len(symbols) == 1:
            return HOLD if shares[0] != shares[0] else one_target(symbols[0], shares[0], self.on_change)
        wanted = {symbol: share for symbol, share in zip(symbols, shares, strict=True) if share == share}
        return Decision.to(wanted, on_change=self.on_change) if wanted else HOLD


@lru_cache(maxsize=256)
def one_target(symbol: str, share: float, on_change: bool) -> Decision:
    """Return the decision to move one `symbol` to its weight `share`, with `on_change` as in `Decision.to`."""
    # A rule on one symbol has a handful of answers; making each again would cost more than the rule.
    return Decision.to(MappingProxyType({symbol: share}), on_change=on_change)


@lru_cache(maxsize=64)
def _seen(symbols: tuple[str, ...], include: tuple[str, ...], exclude: tuple[str, ...]) -> np.ndarray:
    for symbol in (*include, *exclude):
        if symbol not in symbols:
            raise StrategyError(
                f"include or exclude names {symbol!r}{did_you_mean(symbol, symbols)}; this run has {', '.join(symbols)}"
            )
    seen = [at for at, name in enumerate(symbols) if (not include or name in include) and name not in exclude]
    if not seen:
        raise StrategyError("include and exclude leave no symbol to trade")
    return np.array(seen, np.int64)


def _slice_or(bars: np.ndarray) -> Any:
    """Rows as a slice where they follow each other: no copy of a million numbers."""
    if len(bars) and bars[-1] - bars[0] == len(bars) - 1:
        return slice(int(bars[0]), int(bars[-1]) + 1)
    return bars
