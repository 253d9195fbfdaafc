"""A broker and a sizer with exactly the members of the protocols are enough; and who is blamed for an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from test_prefetch import LazyModel, PaperAgent, Steps, small_market

from agent_bt.core import records
from agent_bt.core.account_state import AccountState
from agent_bt.core.errors import BudgetReached, StrategyError
from agent_bt.core.protocols import Broker, ForkableBroker, OrderSizer
from agent_bt.core.types import Decision, Fill, Order, Portfolio, Position, SizedOrders
from agent_bt.core.view import MarketView
from agent_bt.engine.depth import DepthControl
from agent_bt.engine.loop import run_decisions
from agent_bt.engine.prefetch import Prefetcher
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules

CLOSES = [100.0, 101.0, 99.0, 104.0, 103.0, 108.0, 107.0, 90.0, 95.0, 97.0, 99.0, 101.0]
BTC = "BTCUSDT"


def members(protocol: type) -> set[str]:
    """The public names of a protocol, those of its bases included."""
    return {name for base in protocol.__mro__ for name in vars(base) if not name.startswith("_")}


class ToyBroker:
    """One symbol, whole units, filled at the close without costs."""

    halted = False

    def __init__(self, closes: Sequence[float]) -> None:
        self._closes = closes
        self._bar = -1
        self._cash, self._units, self._target = 1_000.0, 0, np.nan

    def advance(self, bar: int) -> Sequence[Fill]:
        self._bar = bar
        return ()

    def portfolio(self) -> Portfolio:
        held = {BTC: Position(quantity=float(self._units), average_price=1.0, opened=0)} if self._units else {}
        return Portfolio(cash=self._cash, positions=held)

    def state(self) -> AccountState:
        account, positions = np.zeros(1, records.ACCOUNT), records.new_positions(1)
        account["cash"], account["equity"] = self._cash, self._cash + self._units * self._closes[self._bar]
        positions["lots"] = positions["quantity"] = self._units
        positions["target"] = self._target
        return AccountState(account, positions, np.array([self._closes[self._bar]]), np.array([True]), 1_000.0)

    def submit(self, orders: Sequence[Order], targets: Mapping[str, float] | None = None) -> Sequence[Fill]:
        self._target = (targets or {}).get(BTC, self._target)
        price = self._closes[self._bar]
        for order in orders:
            self._cash -= order.lots * price
            self._units += order.lots
        return [
            Fill(
                time=self._bar, bar=self._bar, symbol=BTC, quantity=order.quantity, price=price, reference_price=price,
                fee=0.0, slippage=0.0, realised_pnl=0.0, reason="order",
            )
            for order in orders
        ]  # fmt: skip


class ToySizer:
    """Whole units of the target weight."""

    def size(self, decision: Decision, state: AccountState) -> SizedOrders:
        if not decision.targets:
            return SizedOrders()
        units = int(decision.targets[BTC] * float(state.account[0]["equity"]) / float(state.closes[0]))
        lots = units - int(state.positions[0]["lots"])
        orders = (Order(symbol=BTC, lots=lots, quantity=float(lots)),) if lots else ()
        return SizedOrders(orders=orders, targets=decision.targets)


class Scripted:
    """Makes the decisions it is given, one after another."""

    name, lookback, features, summary = "saying", 1, (), None

    def __init__(self, *decisions: Any) -> None:
        self._decisions = iter(decisions)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        made = next(self._decisions)
        if isinstance(made, BaseException):
            raise made
        decision: Decision = made
        return decision


def run(strategy: Any, sizer: Any, broker: Any, bars: Sequence[int] = range(3), decide: Any = None) -> Steps:
    steps = Steps()
    run_decisions(
        market=small_market(CLOSES), bars=bars, strategy=strategy, sizer=sizer, broker=broker, journal=steps, fills=[],
        decide=decide,
    )  # fmt: skip
    return steps


def simulated() -> tuple[SimulatedBroker, RiskLimitedSizer]:
    rules = make_rules(
        fill="close", latency_bars=0, slippage_bps=5.0, fee_rate=0.001, lot_step=0.001, min_quantity=0.0,
        min_notional=5.0, stop_loss=0.05, take_profit=None, max_drawdown=None, allow_short=False,
    )  # fmt: skip
    limits = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=False, max_daily_loss=0.5)
    market = small_market(CLOSES)
    return (
        SimulatedBroker(prices=market, rules=rules, cash=10_000.0),
        RiskLimitedSizer(symbols=market.symbols, rules=rules, limits=limits),
    )


class Narrowed:
    """An object of which only the members of a protocol can be reached; so is what it is forked into."""

    def __init__(self, whole: Any, protocol: type) -> None:
        self._whole = whole
        self._protocol = protocol
        self._names = members(protocol)

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AssertionError(f"{name} is not a member of {self._protocol.__name__}")
        return getattr(self._whole, name)

    def fork(self) -> Narrowed:
        assert "fork" in self._names
        return Narrowed(self._whole.fork(), self._protocol)


def test_the_toys_have_the_members_of_the_protocols_and_no_others() -> None:
    assert {name for name in dir(ToyBroker) if not name.startswith("_")} == members(Broker)
    assert {name for name in dir(ToySizer) if not name.startswith("_")} == members(OrderSizer)
    broker: Broker = ToyBroker(CLOSES)
    sizer: OrderSizer = ToySizer()
    steps = run(Scripted(Decision.to({BTC: 0.5}), Decision.hold(), Decision.to({BTC: 0.0})), sizer, broker)
    assert [[order.lots for order in orders] for *_, orders, _, _ in steps.rows] == [[5], [], [-5]]
    assert [[fill.price for fill in fills] for *_, fills, _ in steps.rows] == [[100.0], [], [99.0]]
    assert broker.portfolio() == Portfolio(cash=1_000.0 - 5 * 100.0 + 5 * 99.0, positions={})


def test_the_same_decision_again_is_not_sized_and_another_object_with_the_same_targets_is() -> None:
    class Counting(ToySizer):
        calls = 0

        def size(self, decision: Decision, state: AccountState) -> SizedOrders:
            self.calls += 1
            return super().size(decision, state)

    once, again = Decision.to({BTC: 0.5}, on_change=True), Decision.to({BTC: 0.5}, on_change=True)
    sizer = Counting()
    run(Scripted(once, once, Decision.hold(), once, again), sizer, ToyBroker(CLOSES), range(5))
    assert sizer.calls == 4
    always, sizer = Decision.to({BTC: 0.5}), Counting()
    run(Scripted(always, always), sizer, ToyBroker(CLOSES), range(2))
    assert sizer.calls == 2


def test_the_loop_uses_nothing_of_the_simulated_account_but_the_protocols() -> None:
    decisions = [
        Decision.to({BTC: 0.9}, on_change=True), Decision.buy(BTC, 0.5), Decision.hold(), Decision.sell(BTC, 0.5),
        *[Decision.to({BTC: 0.9}, on_change=True)] * 5,
    ]  # fmt: skip
    broker, sizer = simulated()
    whole = run(Scripted(*decisions), sizer, broker, range(2, 11))
    other, sizer = simulated()
    narrow = run(Scripted(*decisions), Narrowed(sizer, OrderSizer), Narrowed(other, Broker), range(2, 11))
    assert whole.rows == narrow.rows
    assert broker.equity.tobytes() == other.equity.tobytes()


def test_prefetch_uses_nothing_of_the_simulated_account_but_the_protocols() -> None:
    bars = list(range(1, len(CLOSES)))

    def agent_run(narrow: bool) -> tuple[list[Any], Any]:
        broker, sizer = simulated()
        agent = PaperAgent(LazyModel(hold=0.5, failing=0.0, seed=1, flaky=0.0), "cash")
        account = Narrowed(broker, ForkableBroker) if narrow else broker
        sizing = Narrowed(sizer, OrderSizer) if narrow else sizer
        prefetcher = Prefetcher(
            agent=agent, market=small_market(CLOSES), bars=bars, sizer=sizing, broker=account,
            guess=lambda *_: Decision.buy(BTC, 0.5), control=DepthControl(depth=4, max_waste=2.0),
        )  # fmt: skip
        steps = run(agent, sizing, account, bars, prefetcher.decide)
        prefetcher.close()
        return steps.rows, prefetcher.stats

    whole, stats = agent_run(narrow=False)
    assert agent_run(narrow=True)[0] == whole
    assert stats.speculated > 0


class Broken(Exception):
    pass


def test_what_fails_in_the_sizer_is_not_reported_as_the_strategys_fault() -> None:
    class Failing(ToySizer):
        def size(self, decision: Decision, state: AccountState) -> SizedOrders:
            raise Broken("sizer")

    with pytest.raises(Broken, match=r"^sizer$"):
        run(Scripted(Decision.hold()), Failing(), ToyBroker(CLOSES))


@pytest.mark.parametrize("method", ["advance", "portfolio", "state", "submit"])
def test_what_fails_in_the_broker_is_not_reported_as_the_strategys_fault(method: str) -> None:
    def fail(*arguments: object) -> None:
        raise Broken(method)

    broker = ToyBroker(CLOSES)
    setattr(broker, method, fail)
    with pytest.raises(Broken, match=f"^{method}$"):
        run(Scripted(Decision.to({BTC: 0.5})), ToySizer(), broker)


def test_what_fails_on_a_guess_is_not_reported_as_the_agents_fault() -> None:
    class Failing:
        def size(self, decision: Decision, state: AccountState) -> SizedOrders:
            raise Broken("guess")

    broker, sizer = simulated()
    agent = PaperAgent(LazyModel(hold=1.0, failing=0.0, seed=1, flaky=0.0), "cash")
    prefetcher = Prefetcher(
        agent=agent, market=small_market(CLOSES), bars=[1, 2, 3], sizer=Failing(), broker=broker,
        guess=lambda *_: Decision.hold(), control=DepthControl(depth=2, max_waste=1.0),
    )  # fmt: skip
    with pytest.raises(Broken, match=r"^guess$"):
        run(agent, sizer, broker, [1, 2, 3], prefetcher.decide)


@pytest.mark.parametrize("part", ["requests", "interpret"])
def test_what_fails_in_an_agent_is_its_fault_with_prefetch_too(part: str) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("agent")

    broker, sizer = simulated()
    agent = PaperAgent(LazyModel(hold=1.0, failing=0.0, seed=1, flaky=0.0), "cash")
    setattr(agent, part, fail)
    prefetcher = Prefetcher(
        agent=agent, market=small_market(CLOSES), bars=[1, 2, 3], sizer=sizer, broker=broker, guess=None,
        control=DepthControl(depth=2, max_waste=1.0),
    )  # fmt: skip
    with pytest.raises(StrategyError, match="strategy paper, decision 0 at 1970-01-01T00:02Z: KeyError: 'agent'"):
        run(agent, sizer, broker, [1, 2, 3], prefetcher.decide)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "decide must return a Decision, got None"),
        (Decision.to({"ETHUSDT": 1.0}), "a decision names 'ETHUSDT'; this run trades BTCUSDT"),
        (Decision.to({BTC: 101.0}), "must be finite numbers in [-100, 100], got 101.0 for BTCUSDT"),
        (Decision.to({BTC: "half"}), "got 'half' for BTCUSDT"),  # type: ignore[dict-item]
        (Decision.to([BTC]), "must map symbols to numbers, got ['BTCUSDT']"),  # type: ignore[arg-type]
        (Decision.buy(BTC, 1.5), "must be finite numbers in [-1, 1], got 1.5 for BTCUSDT"),
        (ZeroDivisionError("here"), "ZeroDivisionError: here"),
    ],
)
def test_a_decision_that_is_not_valid_is_the_strategys_fault(wrong: Any, words: str) -> None:
    broker, sizer = simulated()
    with pytest.raises(StrategyError) as raised:
        run(Scripted(Decision.hold(), wrong), sizer, broker)
    assert str(raised.value).startswith("strategy saying, decision 1 at 1970-01-01T00:02Z: ")
    assert words in str(raised.value)


def test_a_spent_budget_is_raised_as_it_is() -> None:
    broker, sizer = simulated()
    with pytest.raises(BudgetReached, match=r"^spent$"):
        run(Scripted(BudgetReached("spent")), sizer, broker)
