"""The protocols that connect the packages: data source, strategy, model client, order sizer, broker."""

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
    """A strategy: it decides from its view and the portfolio, and from nothing else.

    Attributes:
        name: names it in records and messages.
        lookback: rows that its view must hold.
        features: columns that its view must have beside those of the bars.
        summary: kind of the 7-day summary that it needs, `calendar` or `rolling`; None: none.
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
        """Decide; a pure function of its arguments.

        Args:
            view: what may be seen at `view.now`.
            portfolio: the account at that instant.
        """
        ...


@runtime_checkable
class VectorisedStrategy(Strategy, Protocol):
    """A strategy that can decide for all bars at once, because it does not look at the account.

    Attributes:
        on_change: whether a target equal to the one given last is left alone (rules) or traded to again (rankers).
    """

    @property
    def on_change(self) -> bool: ...

    def decide_all(self, market: Any, bars: np.ndarray) -> np.ndarray:
        """Compute the target weights of all decisions, equal to `decide` at each bar to the last bit.

        Args:
            market: an `engine.market.Market` of N symbols.
            bars: rows of the decision bars, int64 (D,), ascending.

        Returns:
            float64 (D, N), NaN where a symbol is left alone.
        """
        ...


@runtime_checkable
class AgentStrategy(Strategy, Protocol):
    """A strategy that asks models: decide = interpret(view, portfolio, replies to requests(view, portfolio)).

    `requests` and `interpret` are pure functions, so that they can be replayed, prefetched and tested by themselves.

    Attributes:
        llm: sends the requests.
    """

    llm: LLM

    def requests(self, view: MarketView, portfolio: Portfolio) -> Sequence[Request]:
        """Return the requests whose replies the decision needs; a pure function of its arguments.

        Args:
            view: what may be seen at `view.now`.
            portfolio: the account at that instant.
        """
        ...

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:
        """Turn the replies into a decision; what is not valid becomes a HOLD with its reason.

        Args:
            view: as given to `requests`.
            portfolio: as given to `requests`.
            calls: each request with its reply, in the order of `requests`.
        """
        ...


class LLM(Protocol):
    """A client of a model; cache, limiter and budget are wrappers with the same interface.

    A transport failure (after the retries) is a `Reply` with `failure` set. What would make every further call fail
    (a wrong key, an unknown model) is raised as a `ModelError`.
    """

    def submit(self, request: Request) -> Future[Reply]:
        """Send a request and return a future of its reply at once."""
        ...

    def complete(self, request: Request) -> Reply:
        """Send a request and wait for its reply."""
        ...

    def close(self) -> None:
        """Release threads and connections; may be called again."""
        ...


class OrderSizer(Protocol):
    """What turns a decision into orders within the risk limits; it keeps nothing from one decision to the next."""

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
    """An account and what executes its orders: fills are events, so that a live broker can take its place."""

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
