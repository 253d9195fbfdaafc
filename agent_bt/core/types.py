"""Frozen value types that the packages exchange: portfolio, request, reply, decision, order, fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from agent_bt.core.canonical import content_hash
from agent_bt.core.clock import iso
from agent_bt.core.errors import StrategyError

Action = Literal["BUY", "SELL", "HOLD", "TARGETS"]
ProvenanceKind = Literal["model", "invalid", "transport", "budget"]
Sizing = Literal["available", "equity"]

_ACTIONS, _SIZINGS = get_args(Action), get_args(Sizing)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """A feature column that a strategy needs in its views.

    Attributes:
        column: name of the column, such as `sma_24`.
        kind: name of the computation, as `agent-bt features list` prints them.
        params: its parameters, whole numbers of bars, as (name, value) pairs.

    Example:
        >>> FeatureSpec(column="sma_24", kind="sma", params=(("period", 24),)).column
        'sma_24'
    """

    column: str
    kind: str
    params: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySummary:
    """One day (or 24 hours) of the 7-day summary.

    Attributes:
        start: UTC us.
        open: first price of a bar that was not forward-filled, quote units; as are `high`, `low` and `close`.
        high: highest price.
        low: lowest price.
        close: last price.
        volume: base units.
        taker_share: fraction of the volume bought by takers, in [0, 1].
        filled_share: fraction of the bars that were invented over a gap, in [0, 1].
    """

    start: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    taker_share: float
    filled_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A position in one symbol.

    Attributes:
        quantity: base units, negative for a short.
        average_price: average entry price, quote units.
        opened: close time of the bar in which it was opened, UTC us.
    """

    quantity: float
    average_price: float
    opened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Portfolio:
    """A snapshot of the account; amounts in quote units.

    Attributes:
        cash: quote units; for a short position its proceeds are included.
        positions: symbol -> position; symbols without one are missing.
        realised_pnl: realised profit, before fees and funding.
        fees: fees paid so far.
        funding: funding paid so far (negative: received).
        peak_equity: highest equity so far.

    Example:
        >>> held = Position(quantity=0.5, average_price=40_000.0, opened=0)
        >>> portfolio = Portfolio(cash=5_000.0, positions={"BTCUSDT": held})
        >>> prices = {"BTCUSDT": 30_000.0}
        >>> portfolio.equity(prices), portfolio.weight("BTCUSDT", prices), portfolio.unrealised_pnl(prices)
        (20000.0, 0.75, -5000.0)
    """

    cash: float
    positions: Mapping[str, Position]
    realised_pnl: float = 0.0
    fees: float = 0.0
    funding: float = 0.0
    peak_equity: float = 0.0

    def equity(self, prices: Mapping[str, float]) -> float:
        """Return cash plus the value of all positions at `prices` (symbol -> quote units)."""
        return self.cash + sum(held.quantity * prices[symbol] for symbol, held in self.positions.items())

    def unrealised_pnl(self, prices: Mapping[str, float]) -> float:
        """Return the profit of closing everything at `prices` (symbol -> quote units), before costs."""
        return sum(held.quantity * (prices[s] - held.average_price) for s, held in self.positions.items())

    def weight(self, symbol: str, prices: Mapping[str, float]) -> float:
        """Return the weight of a symbol: the signed value of its position as a fraction of equity, 0 when flat.

        Args:
            symbol: any symbol.
            prices: symbol -> price, quote units; of every symbol that is held.
        """
        held = self.positions.get(symbol)
        return 0.0 if held is None else held.quantity * prices[symbol] / self.equity(prices)

    def share(self, symbol: str, prices: Mapping[str, float]) -> float:
        """Return `weight(symbol, prices)`, under its earlier name.

        Args:
            symbol: any symbol.
            prices: symbol -> price, quote units; of every symbol that is held.
        """
        return self.weight(symbol, prices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to a model: everything that shapes the reply, and nothing else.

    Attributes:
        provider: name of the provider.
        endpoint_id: host, port and path of the endpoint, or its configured id.
        body: the body of a chat-completions call as it is sent: model, messages, parameters, response format.
        replicate: number of the replicate; requests of different replicates get replies of their own.
        address: tagged SHA-256 of all of these, by which the cache stores the reply.
    """

    provider: str
    endpoint_id: str
    body: Mapping[str, Any]
    replicate: int = 0
    address: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parts = [self.provider, self.endpoint_id, self.body, self.replicate]
        object.__setattr__(self, "address", content_hash("agent-bt/request/v1", parts))

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat messages of the body, each with `role` and `content`."""
        messages: list[dict[str, str]] = self.body["messages"]
        return messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call.

    Attributes:
        prompt_tokens: all tokens of the prompt.
        completion_tokens: all tokens of the reply.
        cached_tokens: those of the prompt that the provider had cached.
        cache_write_tokens: those of the prompt that it wrote to its cache, where it charges for that.
        reasoning_tokens: those of the reply that were spent on reasoning.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The reply to a request, or a recorded transport failure.

    `text`, `finish_reason` and `refusal` are content, which is hashed; the rest is telemetry.

    Attributes:
        text: the text of the reply; None if there is none.
        finish_reason: why the model stopped, as the provider reports it.
        refusal: the text of a refusal, if the provider reports one.
        failure: None for a reply, else `timeout`, `connection`, `rate_limit`, `server_error` or `bad_response`.
        error: the failure in words.
        body: the body of the response as it was received.
        usage: tokens, if the provider reports them.
        cost_usd: US dollars; None if the price is not known.
        latency_ms: time from the request to the reply.
        attempts: how often the request was sent; 0 where it never reached the endpoint.
        retry_after_s: how long the endpoint asks to wait before the next attempt, in seconds; None: it does not ask.
        cached: whether the reply comes from the cache.
        speculated: whether the request was sent ahead of its decision, by prefetch.
    """

    text: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    failure: str | None = None
    error: str | None = None
    body: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None
    latency_ms: float = 0.0
    attempts: int = 1
    retry_after_s: float | None = None
    cached: bool = False
    speculated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A request and its reply, kept with the decision that they led to."""

    request: Request
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The origin of a decision; every one but `model` (the strategy's own) is a HOLD.

    Attributes:
        kind: `model`, or why there is no decision: `invalid` reply, `transport` failure, `budget` used up.
        reason: what exactly was wrong.
        repaired: the declared repair that was applied to the reply (`code_fence`, `think`), if any.
    """

    kind: ProvenanceKind = "model"
    reason: str = ""
    repaired: str = ""


MODEL = Provenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision of a strategy: hold, target weights, or trades.

    Make one with `hold`, `to`, `buy` or `sell`.

    Attributes:
        targets: symbol -> target weight, the signed fraction of equity to hold; a missing symbol is left alone.
        trades: symbol -> +p or -p with p in [0, 1]. Under sizing `available`: spend p of the cash (costs included), or
            sell p of the position. Under `equity`: change the position by p times the equity.
        on_change: whether a target equal to the one given last is left alone: a position that was stopped out is not
            opened again until its target changes.
        sizing: what trades are fractions of, `available` or `equity`.
        action: `BUY`, `SELL`, `HOLD`, or `TARGETS` for a decision with targets.
        size: the fraction of a BUY or SELL.
        note: text that is recorded with the decision.
        provenance: where the decision comes from.
        detail: why a reply was not valid, in words.
        calls: the model calls behind the decision.

    Raises:
        StrategyError: the parts contradict each other.

    Example:
        >>> Decision.hold(note="no signal").action
        'HOLD'
        >>> Decision.to({"BTCUSDT": 0.5, "ETHUSDT": -0.25}).targets
        {'BTCUSDT': 0.5, 'ETHUSDT': -0.25}
        >>> Decision.buy("BTCUSDT", 0.5).trades
        {'BTCUSDT': 0.5}
        >>> Decision.sell("BTCUSDT").trades
        {'BTCUSDT': -1.0}
    """

    targets: Mapping[str, float] | None = None
    trades: Mapping[str, float] | None = None
    on_change: bool = False
    sizing: Sizing = "available"
    action: Action = "HOLD"
    size: float | None = None
    note: str = ""
    provenance: Provenance = MODEL
    detail: str = ""
    calls: tuple[ModelCall, ...] = ()

    def __post_init__(self) -> None:
        if self.action not in _ACTIONS:
            raise StrategyError(f"a decision's action must be one of {', '.join(_ACTIONS)}, got {self.action!r}")
        if self.sizing not in _SIZINGS:
            raise StrategyError(f"a decision's sizing must be one of {', '.join(_SIZINGS)}, got {self.sizing!r}")
        if not isinstance(self.note, str):
            raise StrategyError(f"a decision's note must be text, got {self.note!r}")
        if self.targets is not None and (self.trades is not None or self.action != "TARGETS"):
            raise StrategyError(
                "a decision with targets must have the action TARGETS and no trades; make it with Decision.to"
            )
        if self.trades is not None and self.action not in ("BUY", "SELL"):
            raise StrategyError(
                "a decision with trades must be a BUY or a SELL; make it with Decision.buy or Decision.sell"
            )

    @classmethod
    def hold(cls, note: str = "") -> Decision:
        """Decide to leave everything as it is; `note` is recorded."""
        return cls(note=note)

    @classmethod
    def to(cls, targets: Mapping[str, float], note: str = "", *, on_change: bool = False) -> Decision:
        """Decide to move symbols to target weights.

        Args:
            targets: symbol -> signed fraction of equity; a missing symbol is left alone.
            note: text that is recorded.
            on_change: leave a symbol alone whose target is the one given last.
        """
        return cls(targets=targets, action="TARGETS", note=note, on_change=on_change)

    @classmethod
    def buy(cls, symbol: str, share: float = 1.0, *, sizing: Sizing = "available", note: str = "") -> Decision:
        """Decide to buy.

        Args:
            symbol: what to buy.
            share: fraction in [0, 1] of the cash to spend, costs included; sized by equity, of the equity to add.
            sizing: `available` or `equity`.
            note: text that is recorded.
        """
        return cls(trades={symbol: share}, action="BUY", size=share, sizing=sizing, note=note)

    @classmethod
    def sell(cls, symbol: str, share: float = 1.0, *, sizing: Sizing = "available", note: str = "") -> Decision:
        """Decide to sell.

        Args:
            symbol: what to sell.
            share: fraction in [0, 1] of the position to sell; sized by equity, of the equity to sell.
            sizing: `available` or `equity`.
            note: text that is recorded.
        """
        return cls(trades={symbol: -share}, action="SELL", size=share, sizing=sizing, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A sized order.

    Attributes:
        symbol: what to trade.
        lots: whole lots, negative to sell.
        quantity: the same in base units.
    """

    symbol: str
    lots: int
    quantity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskCut:
    """A cut of one order by sizing or the risk limits.

    Attributes:
        symbol: the symbol of the order.
        verdict: `clipped` or `rejected`.
        reason: the rule that cut it.
    """

    symbol: str
    verdict: Literal["clipped", "rejected"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedOrders:
    """The orders of a decision, and what the risk limits cut.

    Attributes:
        orders: what to send to the broker, in the order of the symbols.
        cuts: what was clipped or rejected, with the reason.
        targets: the target weights of the decision, which the broker remembers when the orders are submitted; None for
            a decision without targets.
    """

    orders: tuple[Order, ...] = ()
    cuts: tuple[RiskCut, ...] = ()
    targets: Mapping[str, float] | None = None


NO_ORDERS = SizedOrders()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """An executed trade.

    Attributes:
        time: close time of the bar, UTC us.
        bar: row of the bar in the market.
        symbol: what was traded.
        quantity: base units, negative for a sale.
        price: quote units, slippage included.
        reference_price: quote units, without slippage.
        fee: quote units.
        slippage: cost of slippage, quote units, >= 0.
        realised_pnl: realised profit before the fee, quote units.
        reason: `order`, `stop_loss`, `take_profit`, `drawdown`, `delisted` or `used_up`.
    """

    time: int
    bar: int
    symbol: str
    quantity: float
    price: float
    reference_price: float
    fee: float
    slippage: float
    realised_pnl: float
    reason: str

    def __str__(self) -> str:
        side = "buy" if self.quantity > 0 else "sell"
        return f"{iso(self.time)} {side} {abs(self.quantity):g} {self.symbol} at {self.price:.2f} ({self.reason})"
