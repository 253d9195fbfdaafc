"""The words of the house: frozen value types that the rooms hand to each other. Times are UTC microseconds."""

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
    """One column a strategy wants to see: `kind` names the computation, `params` its whole-number periods."""

    column: str
    kind: str
    params: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySummary:
    """One day (or 24 hours) of the 7-day summary; prices in quote units, `volume` in base units, share in [0, 1]."""

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
    """A holding: signed `quantity` (base units), average entry price (quote), when it was opened (UTC us)."""

    quantity: float
    average_price: float
    opened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Portfolio:
    """The account as it stands at one instant; amounts in quote units. Positions hold no zero quantities."""

    cash: float
    positions: Mapping[str, Position]
    realised_pnl: float = 0.0
    fees: float = 0.0
    funding: float = 0.0
    peak_equity: float = 0.0

    def equity(self, prices: Mapping[str, float]) -> float:
        """Cash plus the value of all holdings at `prices` (quote units)."""
        return self.cash + sum(held.quantity * prices[symbol] for symbol, held in self.positions.items())

    def unrealised_pnl(self, prices: Mapping[str, float]) -> float:
        """What closing everything at `prices` would realise, before costs (quote units)."""
        return sum(held.quantity * (prices[s] - held.average_price) for s, held in self.positions.items())

    def share(self, symbol: str, prices: Mapping[str, float]) -> float:
        """Signed share of equity held in `symbol`; 0 when flat."""
        held = self.positions.get(symbol)
        return 0.0 if held is None else held.quantity * prices[symbol] / self.equity(prices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a model: everything that shapes the answer, and nothing else.

    `body` is the effective body of a chat-completions call, as it is sent: model, messages, parameters, response
    format. `address` is the tagged SHA-256 by which a reply to it is cached and found again.
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
        """The chat messages of the body: `role` and `content` each."""
        messages: list[dict[str, str]] = self.body["messages"]
        return messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call; cached ones are part of the prompt's, reasoning ones part of the completion's."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for a request: an answer, or a recorded transport failure.

    `text`, `finish_reason`, `refusal` are content; the rest is telemetry. `failure` is None for an answer, else one
    of `timeout`, `connection`, `rate_limit`, `server_error`, `bad_response`, and `error` says it in words.
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
    cached: bool = False
    speculated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A request and its reply, as a decision's evidence."""

    request: Request
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a decision comes from. Everything but `model` (the strategy's own answer) is a HOLD with its `reason`.

    `repaired` names the declared repair that was applied to the reply (`code_fence`, `think`), if any.
    """

    kind: ProvenanceKind = "model"
    reason: str = ""
    repaired: str = ""


MODEL = Provenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a strategy wants: nothing (hold), target shares, or trades. At most one of the two maps is given.

    `targets`: symbol -> signed share of equity; a missing symbol is left alone. With `on_change`, so is a symbol whose
    target is the one it was given last: a position that was stopped stays out until the target changes.
    `trades`: symbol -> +p or -p with p in [0, 1]: under sizing `available` spend p of the cash (costs included) or
    sell p of the holding; under `equity` change the position by p x equity. `detail` says in words why a reply was
    not valid.

    Raises:
        StrategyError: the parts do not make one decision.
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
            raise StrategyError(f"a decision's action is one of {', '.join(_ACTIONS)}, not {self.action!r}")
        if self.sizing not in _SIZINGS:
            raise StrategyError(f"a decision's sizing is one of {', '.join(_SIZINGS)}, not {self.sizing!r}")
        if not isinstance(self.note, str):
            raise StrategyError(f"a decision's note is text, not {self.note!r}")
        if self.targets is not None and (self.trades is not None or self.action != "TARGETS"):
            raise StrategyError("a decision with targets has action TARGETS and no trades; make it with Decision.to")
        if self.trades is not None and self.action not in ("BUY", "SELL"):
            raise StrategyError("a decision with trades is a BUY or a SELL; make it with Decision.buy or Decision.sell")

    @classmethod
    def hold(cls, note: str = "") -> Decision:
        """Leave everything as it is."""
        return cls(note=note)

    @classmethod
    def to(cls, targets: Mapping[str, float], note: str = "", *, on_change: bool = False) -> Decision:
        """Move each named symbol to its signed share of equity; with `on_change`, only where that is a new one."""
        return cls(targets=targets, action="TARGETS", note=note, on_change=on_change)

    @classmethod
    def buy(cls, symbol: str, share: float = 1.0, *, sizing: Sizing = "available", note: str = "") -> Decision:
        """Spend `share` of the cash (or, sized by equity, add `share` of the equity)."""
        return cls(trades={symbol: share}, action="BUY", size=share, sizing=sizing, note=note)

    @classmethod
    def sell(cls, symbol: str, share: float = 1.0, *, sizing: Sizing = "available", note: str = "") -> Decision:
        """Sell `share` of the holding (or, sized by equity, `share` of the equity)."""
        return cls(trades={symbol: -share}, action="SELL", size=share, sizing=sizing, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A sized order: signed whole `lots`; `quantity` is the same in base units."""

    symbol: str
    lots: int
    quantity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskCut:
    """What sizing and the risk limits did to one order: `clipped` or `rejected`, with the rule that did it."""

    symbol: str
    verdict: Literal["clipped", "rejected"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedOrders:
    """What sizing and the risk limits made of a decision.

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
    """What happened to an order.

    `quantity` is signed (base units); `price` includes slippage, `reference_price` does not; `fee`, `slippage`
    (>= 0) and `realised_pnl` (before the fee) in quote units. `reason`: order, stop_loss, take_profit, drawdown.
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
