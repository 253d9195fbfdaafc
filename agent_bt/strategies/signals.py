"""Base class of strategies that are a pure function of columns: `decide` and `decide_all` share one computation."""

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
    """The parts of a market that `decide_all` reads: arrays over all its rows (T) and symbols (N)."""

    symbols: tuple[str, ...]
    times: np.ndarray
    interval: int
    eligible: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """Return one column; float64 (T, N), NaN where undefined."""
        ...


class SignalStrategy(Strategy):
    """A strategy whose target weights follow from columns alone; derive from it and define `targets`.

    One implementation has two callers: `decide` calls `targets` with the rows of the view and takes the last,
    `decide_all` calls it with the rows of the whole market, in one vectorised call.

    Attributes:
        lookback: rows of the view; decisions made with fewer are HOLD.
        reach: rows that one row of `targets` depends on, itself included; None: `lookback`. A longer `lookback` is
            warm-up: time without decisions.
        include, exclude: symbols it may trade (empty: all), and symbols it may not; the others are hidden from it, and
            their positions are kept.
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
            columns: names of the columns that `targets` reads; default: those of the bars alone.
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
            raise ConfigError(f"include and exclude must not both name {', '.join(both)}")

    @abstractmethod
    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return target weights (of equity); float64 (rows, symbols), NaN where a position is kept.

        Row r may depend on rows r - reach + 1 to r only, and its bits on nothing else: no running sums, no numpy
        reductions whose order of summation follows the shape of the array.

        Args:
            columns: columns by name.
            eligible: bool (rows, symbols), what may be traded; the target of anything else must be 0 or NaN.
        """

    def target_weights(self, columns: Columns, eligible: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """Return `targets` of the symbols that it may trade, NaN for the others; float64 (rows, symbols).

        Args:
            columns: columns by name.
            eligible: bool (rows, symbols), what may be traded.
            symbols: names of the symbols, in the order of the second axis.
        """
        if not self.include and not self.exclude:
            return self._checked_targets(columns, eligible)
        seen = _seen(tuple(symbols), tuple(self.include), tuple(self.exclude))
        wanted = np.full(eligible.shape, np.nan)
        wanted[:, seen] = self._checked_targets(
            lambda name: columns(name).take(seen, axis=1), eligible.take(seen, axis=1)
        )
        return wanted

    shares = target_weights
    """Earlier name of `target_weights`."""

    def _checked_targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the result of `targets`; re-raise its exceptions as StrategyError."""
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
        """Return the target weights of the last row of `view`, independent of `portfolio`; HOLD during warm-up."""
        if len(view) < self.lookback:
            return HOLD
        reach = self.reach or self.lookback
        eligible = view.eligible[np.newaxis] if reach == 1 else view.eligibility()[-reach:]
        columns = view.table if len(view) == reach else lambda name: view.table(name)[-reach:]
        return self.decision(view.symbols, self.target_weights(columns, eligible, view.symbols)[-1].tolist())

    def decide_all(self, market: MarketColumns, bars: np.ndarray) -> np.ndarray:
        """Return target weights at the rows `bars` of `market` (int64 (D,), ascending); float64 (D, N), NaN: keep.

        Equal to `decide` at each of them to the last bit.

        Raises:
            StrategyError: `targets` raised an exception, or returned an array of another shape than `eligible`.
        """
        rows = _slice_or(bars)
        if (self.reach or self.lookback) == 1:
            eligible = market.eligible[rows]
            wanted = self.target_weights(lambda name: market.column(name)[rows], eligible, market.symbols)
        else:
            wanted = self.target_weights(market.column, market.eligible, market.symbols)[rows]
        early = int(np.searchsorted(bars, self.lookback - 1))
        if early:
            wanted = wanted.copy()
            wanted[:early] = np.nan
        return wanted

    def _shaped(self, wanted: np.ndarray, eligible: np.ndarray) -> np.ndarray:
        if np.shape(wanted) != eligible.shape:
            raise StrategyError(
                f"strategy {self.name}: targets must return an array of the shape of eligible, "
                f"(rows, symbols) = {eligible.shape}, got {np.shape(wanted)}"
            )
        return wanted

    def decision(self, symbols: Sequence[str], weights: Sequence[float]) -> Decision:
        """Return the decision to hold target weights `weights` of `symbols`; NaN: keep the position."""
        if len(symbols) == 1:
            return HOLD if weights[0] != weights[0] else one_target(symbols[0], weights[0], self.on_change)
        wanted = {symbol: weight for symbol, weight in zip(symbols, weights, strict=True) if weight == weight}
        return Decision.to(wanted, on_change=self.on_change) if wanted else HOLD


@lru_cache(maxsize=256)
def one_target(symbol: str, weight: float, on_change: bool) -> Decision:
    """Return the decision to move one `symbol` to its target `weight`, with `on_change` as in `Decision.to`."""
    # A rule on one symbol has few different decisions; creating each again would cost more than the rule.
    return Decision.to(MappingProxyType({symbol: weight}), on_change=on_change)


@lru_cache(maxsize=64)
def _seen(symbols: tuple[str, ...], include: tuple[str, ...], exclude: tuple[str, ...]) -> np.ndarray:
    for symbol in (*include, *exclude):
        if symbol not in symbols:
            raise StrategyError(
                f"include and exclude must name symbols of the run, got {symbol!r}{did_you_mean(symbol, symbols)};"
                f" this run has {', '.join(symbols)}"
            )
    seen = [at for at, name in enumerate(symbols) if (not include or name in include) and name not in exclude]
    if not seen:
        raise StrategyError("include and exclude must leave at least one symbol to trade")
    return np.array(seen, np.int64)


def _slice_or(bars: np.ndarray) -> Any:
    """Return consecutive rows as a slice, which avoids a copy of the columns."""
    if len(bars) and bars[-1] - bars[0] == len(bars) - 1:
        return slice(int(bars[0]), int(bars[-1]) + 1)
    return bars
