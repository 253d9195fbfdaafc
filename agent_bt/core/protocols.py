"""The protocols that rooms are plugged together by; the engine knows these and no class behind them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from agent_bt.core.account_state import AccountState
from agent_bt.core.types import (
    Decision,
    FeatureSpec,
    Fill,
    ModelCall,
    Order,
    Portfolio,
    Reply,
    Request,
    SizedOrders,
)
from agent_bt.core.view import MarketView


class DataSource(Protocol):
    """A source of the bars of one symbol: the store, the sample market, a file.

    Attributes:
        symbol: the symbol whose bars it has.
        label: names the source in reports.
    """

    symbol: str
    label: str

    def fetch_ohlcv(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`, sorted by time.

        Args:
            interval: length of the bars, one of `core.clock.BAR_INTERVALS`.
            start: UTC us.
            end: UTC us.

        Returns:
            Columns of `core.schema.BAR_SCHEMA`.

        Raises:
            MissingData: the source does not cover the range.
        """
        ...

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """Return the funding settlements of a perpetual in (start, end].

        Args:
            start: UTC us.
            end: UTC us.

        Returns:
            `funding_time` and `rate`, sorted by time.

        Raises:
            MissingData: the source does not have them all.
        """
        ...


@runtime_checkable
class Strategy(Protocol):
    """Decides from what it may see, and from nothing else.

    `lookback` is the number of rows the view must hold, `features` the columns it must have beside the bars',
    `summary` whether the 7-day summary is needed.
    """

    # Read only, so that a class may declare them with narrower types: `features = (FeatureSpec(...),)`.
    @property
    def name(self) -> str: ...
    @property
    def lookback(self) -> int: ...
    @property
    def features(self) -> Sequence[FeatureSpec]: ...
    @property
    def summary(self) -> str | None: ...

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """The decision at `view.now`; a pure function of its arguments."""
        ...


@runtime_checkable
class VectorisedStrategy(Strategy, Protocol):
    """A strategy that can answer for all bars at once, because it does not look at the account.

    `on_change`: a target that is the one given last is left alone (rules), or established again (rankers).
    """

    @property
    def on_change(self) -> bool: ...

    def decide_all(self, market: Any, bars: np.ndarray) -> np.ndarray:
        """Target shares at the rows `bars` (int64 (D,)) of an `engine.market.Market`; float64 (D, N), NaN: leave alone.

        Equal to `decide` at each of them to the last bit.
        """
        ...


@runtime_checkable
class AgentStrategy(Strategy, Protocol):
    """A strategy that asks models: decide = interpret(view, portfolio, replies of requests(view, portfolio)).

    `requests` and `interpret` are pure, so that they can be replayed, sent ahead and tested alone.
    """

    llm: LLM

    def requests(self, view: MarketView, portfolio: Portfolio) -> Sequence[Request]:
        """The questions this decision needs answered."""
        ...

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:
        """The decision that the replies amount to; whatever is not valid is a HOLD with its reason."""
        ...


class LLM(Protocol):
    """A model behind one face; cache, limiter and budget are wrappers with the same face.

    A transport failure (after the retries) is a `Reply` with `failure` set. What makes every further call useless
    (a wrong key, an unknown model) is raised as a `ModelError`.
    """

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request, return at once."""
        ...

    def complete(self, request: Request) -> Reply:
        """Send the request and wait for its reply."""
        ...

    def close(self) -> None:
        """Release threads and connections; idempotent."""
        ...


class OrderSizer(Protocol):
    """Turns a decision into orders within the risk limits, and keeps nothing from one decision to the next."""

    def size(self, decision: Decision, state: AccountState) -> SizedOrders:
        """Size a decision; a pure function of its arguments.

        Args:
            decision: what the strategy wants.
            state: the account and its market at the close of the decision bar.

        Raises:
            StrategyError: the decision cannot be: an unknown symbol, a weight out of range.
        """
        ...


class Broker(Protocol):
    """Turns orders into fills and keeps the account. It speaks in events, so that a live one can take its place."""

    @property
    def halted(self) -> bool:
        """Whether a limit has ended the trading."""
        ...

    def advance(self, bar: int) -> Sequence[Fill]:
        """Run the market up to and including row `bar`: waiting orders, stops, marks. Return what filled."""
        ...

    def portfolio(self) -> Portfolio:
        """Return the account as a strategy sees it."""
        ...

    def state(self) -> AccountState:
        """Return the account and its market at the close of the current bar, as sizing needs them."""
        ...

    def submit(self, orders: Sequence[Order], targets: Mapping[str, float] | None = None) -> Sequence[Fill]:
        """Accept the orders of a decision at the close of the current bar.

        Args:
            orders: what to trade.
            targets: the target weights of the decision, remembered as those given last; None for a decision without.

        Returns:
            The fills that are due at this close.
        """
        ...


class ForkableBroker(Broker, Protocol):
    """A broker whose account can be copied and rolled forward on a guess, as prefetch does."""

    def fork(self) -> ForkableBroker:
        """Return an independent copy; nothing that happens to it touches this account."""
        ...

    def pending_orders(self) -> Hashable:
        """Return the orders that wait as a value to compare: equal for two forks in which the same orders wait."""
        ...
