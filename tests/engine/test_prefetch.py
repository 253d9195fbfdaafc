"""Prefetch is lossless: whatever the market, the prompt, the replies and their order, the decisions are the same."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.errors import EndpointDown
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.step import Step
from agent_bt.core.types import Decision, ModelCall, Portfolio, Reply, Request
from agent_bt.core.view import MarketView
from agent_bt.engine.depth import DepthControl, decisions_per_round_trip
from agent_bt.engine.loop import run_decisions
from agent_bt.engine.market import Market
from agent_bt.engine.prefetch import Prefetcher
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.llm.priority import current_priority

MINUTE = 60_000_000


def small_market(closes: Sequence[float]) -> Market:
    count = len(closes)
    opens = [closes[0], *closes[:-1]]
    times = np.arange(count, dtype=np.int64) * MINUTE
    frame = pl.DataFrame(
        {
            "open_time": times, "close_time": times + MINUTE, "open": opens,
            "high": np.maximum(opens, closes) * 1.001, "low": np.minimum(opens, closes) * 0.999, "close": closes,
            "volume": [1.0] * count, "quote_asset_volume": [1.0] * count, "trades": [1] * count,
            "taker_base": [0.5] * count, "taker_quote": [0.5] * count, "filled": [False] * count,
        }
    ).cast(BAR_SCHEMA)  # fmt: skip
    return Market(
        symbols=("BTCUSDT",),
        bars=frame,
        interval=MINUTE,
        start=0,
        features=np.empty((count, 0)),
        feature_names=(),
        lookback=2,
    )


class PaperAgent:
    """An agent whose prompt shows a part of the account; the replies are BUY, SELL or HOLD as plain text."""

    name, lookback, features, summary = "paper", 2, (), None

    def __init__(self, llm: Any, shows: str, size: float = 0.9) -> None:
        self.llm = llm
        self.shows = shows
        self.size = size

    def requests(self, view: MarketView, portfolio: Portfolio) -> tuple[Request, ...]:
        seen = f"{view.now} {view.latest('close'):.4f}"
        if self.shows == "cash":
            seen += f" {portfolio.cash:.2f} {portfolio.realised_pnl:.2f}"
        elif self.shows == "share":
            seen += f" {portfolio.share('BTCUSDT', view.prices):.1f}"
        elif self.shows == "held" and portfolio.positions:
            seen += f" since {portfolio.positions['BTCUSDT'].opened}"
        seen += " long" if portfolio.positions and self.shows != "nothing" else " flat"
        body = {"messages": [{"role": "user", "content": seen}]}
        return (Request(provider="test", endpoint_id="here", body=body),)

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:
        reply = calls[0].reply
        if reply.failure:
            return Decision.hold(note=reply.failure)
        made = {"BUY": Decision.buy, "SELL": Decision.sell}.get(reply.text or "")
        return made("BTCUSDT", self.size) if made else Decision.hold()

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        asked = self.requests(view, portfolio)
        return self.interpret(view, portfolio, [ModelCall(request=r, reply=self.llm.complete(r)) for r in asked])


def reply_to(request: Request, hold: float, failing: float) -> Reply:
    """The reply of the model, a function of the request."""
    draw = int(hashlib.sha256(request.address.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    if draw < failing:
        return Reply(failure="timeout")
    rest = (draw - failing) / (1 - failing)
    return Reply(text="HOLD" if rest < hold else "BUY" if rest < (1 + hold) / 2 else "SELL")


class LazyFuture(Future[Reply]):
    """A future that is resolved when it is awaited, or earlier by chance."""

    def __init__(self, model: LazyModel) -> None:
        super().__init__()
        self._model = model

    def result(self, timeout: float | None = None) -> Reply:
        self._model.answer(self)
        return super().result(timeout)


class LazyModel:
    """A model that replies in random order; a call that was sent ahead may fail where a needed one would not."""

    def __init__(self, hold: float, failing: float, seed: int, flaky: float) -> None:
        self.hold, self.failing, self.flaky = hold, failing, flaky
        self.random = random.Random(seed)
        self.pending: list[tuple[LazyFuture, Request, bool]] = []
        self.sent: list[tuple[Request, bool]] = []

    def submit(self, request: Request) -> Future[Reply]:
        future = LazyFuture(self)
        self.pending.append((future, request, current_priority().speculative))
        return future

    def complete(self, request: Request) -> Reply:
        return self.submit(request).result()

    def close(self) -> None:
        pass

    def answer(self, wanted: LazyFuture) -> None:
        others = [entry for entry in self.pending if entry[0] is not wanted and self.random.random() < 0.5]
        self.random.shuffle(others)
        for entry in [*others, *(entry for entry in self.pending if entry[0] is wanted)]:
            self.pending.remove(entry)
            future, request, speculative = entry
            if future.set_running_or_notify_cancel():
                self.sent.append((request, speculative))
                self._settle(future, request, speculative)

    def _settle(self, future: LazyFuture, request: Request, speculative: bool) -> None:
        if speculative and self.random.random() < self.flaky:
            if self.random.random() < 0.5:
                future.set_exception(EndpointDown("cut"))
            else:
                future.set_result(Reply(failure="connection"))
        else:
            future.set_result(reply_to(request, self.hold, self.failing))


class Steps:
    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def append(self, step: Step) -> None:
        exchange = step.decision.calls
        self.rows.append(
            (
                step.index,
                step.bar,
                step.portfolio,
                step.decision.action,
                step.decision.note,
                step.orders,
                step.fills,
                exchange,
            )
        )


def run(
    closes: Sequence[float], model: Any, shows: str, changes: dict[str, Any], control: DepthControl | None,
    guess: Any = None, keep: int = 1, size: float = 0.9,
) -> tuple[Steps, bytes, Prefetcher | None]:  # fmt: skip
    market = small_market(closes)
    rules = make_rules(
        **{
            "fill": "close", "latency_bars": 0, "slippage_bps": 5.0, "fee_rate": 0.001, "lot_step": 0.00001,
            "min_quantity": 0.0, "min_notional": 5.0, "stop_loss": None, "take_profit": None, "max_drawdown": None,
            "allow_short": False, **changes,
        }
    )  # fmt: skip
    limits = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=False)
    broker = SimulatedBroker(prices=market, rules=rules, cash=10_000.0)
    sizer = RiskLimitedSizer(symbols=market.symbols, rules=rules, limits=limits)
    agent, steps = PaperAgent(model, shows, size), Steps()
    bars = list(range(1, len(market), 2))
    prefetcher = None
    if control:
        prefetcher = Prefetcher(
            agent=agent,
            market=market,
            bars=bars,
            sizer=sizer,
            broker=broker,
            guess=guess,
            control=control,
            keep_states=keep,
        )
    run_decisions(
        market=market, bars=bars, strategy=agent, sizer=sizer, broker=broker, journal=steps, fills=[],
        decide=prefetcher.decide if prefetcher else None,
    )  # fmt: skip
    if prefetcher:
        prefetcher.close()
    return steps, broker.equity.tobytes(), prefetcher


closes_lists = st.lists(st.floats(0.97, 1.03), min_size=4, max_size=60).map(lambda moves: list(100 * np.cumprod(moves)))


random_runs = given(
    closes=closes_lists,
    shows=st.sampled_from(["cash", "share", "held", "states", "nothing"]),
    size=st.sampled_from([0.9, 1.0]),
    hold=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    failing=st.sampled_from([0.0, 0.2]),
    flaky=st.sampled_from([0.0, 0.5, 1.0]),
    depth=st.integers(1, 12),
    max_waste=st.sampled_from([0.0, 0.5, 1.0, 10.0]),
    mode=st.sampled_from(["hold", "buy", "last", "states", "lossless"]),
    changes=st.fixed_dictionaries(
        {
            "fill": st.sampled_from(["close", "next_open"]),
            "latency_bars": st.sampled_from([0, 1, 3]),
            "stop_loss": st.sampled_from([None, 0.01]),
            "max_drawdown": st.sampled_from([None, 0.05]),
        }
    ),
    seed=st.integers(0, 2**32),
)


def compare_with_and_without(
    closes: list[float], shows: str, size: float, hold: float, failing: float, flaky: float, depth: int,
    max_waste: float, mode: str, changes: dict[str, Any], seed: int,
) -> None:  # fmt: skip
    plain, equity, _ = run(closes, LazyModel(hold, failing, seed, flaky), shows, changes, None, size=size)
    guess = {"buy": lambda *_: Decision.buy("BTCUSDT", 0.9), "last": lambda view, portfolio, last: last}.get(mode)
    control = DepthControl(depth=depth, max_waste=max_waste, free=mode == "states", lossless=mode == "lossless")
    model = LazyModel(hold, failing, seed, flaky)
    ahead, same, prefetcher = run(closes, model, shows, changes, control, guess, 3 if mode == "states" else 1, size)
    assert [row[:-1] for row in ahead.rows] == [row[:-1] for row in plain.rows]
    assert same == equity
    assert prefetcher is not None
    assert len(model.sent) == control.used + prefetcher.stats.wasted
    assert len([1 for _, speculative in model.sent if speculative]) == prefetcher.stats.speculated
    if mode != "lossless":
        assert prefetcher.stats.wasted <= max_waste * control.used + (2 if mode == "states" else 1) * depth + 1


@random_runs
@settings(max_examples=120)
def test_decisions_equal_those_without_prefetch(**case: Any) -> None:
    compare_with_and_without(**case)


@pytest.mark.verify
@random_runs
@settings(max_examples=5_000)
def test_decisions_equal_those_without_prefetch_in_thousands_of_runs(**case: Any) -> None:
    compare_with_and_without(**case)


class RoundTrips:
    """A model that replies to all pending calls together when one is awaited: one round trip."""

    def __init__(self, hold: float) -> None:
        self.hold = hold
        self.trips = 0
        self.calls = 0
        self.pending: list[tuple[Future[Reply], Request]] = []

    def submit(self, request: Request) -> Future[Reply]:
        model = self

        class Awaited(Future[Reply]):
            def result(self, timeout: float | None = None) -> Reply:
                if not self.done():
                    model.pass_one()
                return super().result(timeout)

        future = Awaited()
        future.set_running_or_notify_cancel()  # sent: it cannot be taken back
        self.calls += 1
        self.pending.append((future, request))
        return future

    def pass_one(self) -> None:
        self.trips += 1
        answered, self.pending = self.pending, []
        for future, request in answered:
            text = request.messages[0]["content"]
            draw = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
            trade = "BUY" if text.endswith("flat") else "SELL"
            future.set_result(Reply(text="HOLD" if draw < self.hold else trade))


def yields(hold: float, shows: str, control: DepthControl, keep: int = 1) -> tuple[float, float]:
    """Decisions per round trip, calls per decision, over 2,000 decisions."""
    model = RoundTrips(hold)
    closes = [100.0 + at % 7 for at in range(4_000)]
    steps, _, _ = run(closes, model, shows, {}, control, None, keep, 1.0)
    return len(steps.rows) / model.trips, model.calls / len(steps.rows)


@pytest.mark.parametrize(
    ("hold", "max_waste", "depth"), [(0.8, 0.5, 31), (0.9, 0.5, 31), (0.9, 1.0, 31), (0.98, 0.5, 31)]
)
def test_a_prompt_that_shows_cash_reaches_the_formula_within_a_tenth(hold: float, max_waste: float, depth: int) -> None:
    decisions, calls = yields(hold, "cash", DepthControl(depth=depth, max_waste=max_waste))
    # The formula, summed term by term: the k-th call is used when all k - 1 guesses before it are correct.
    sums = {k: sum(hold**n for n in range(k)) for k in range(1, depth + 2)}
    best = max(total for k, total in sums.items() if k / total <= 1 + max_waste)
    assert decisions > 0.88 * best
    assert calls <= 1 + max_waste + 0.02


def test_a_prompt_with_rounded_weights_uses_earlier_replies_again() -> None:
    with_cash, dear = yields(0.9, "cash", DepthControl(depth=31, max_waste=2.6))
    scale_free, calls = yields(0.9, "held", DepthControl(depth=31, max_waste=2.6))
    assert scale_free > 11.5
    assert scale_free > 1.2 * with_cash
    assert calls < dear - 0.3


@pytest.mark.parametrize("hold", [0.5, 0.8, 0.98])
def test_with_two_states_kept_ready_the_fraction_of_holds_does_not_matter(hold: float) -> None:
    decisions, calls = yields(hold, "states", DepthControl(depth=32, max_waste=1.0, free=True), keep=4)
    assert 15.5 < decisions < 17.5
    assert calls < 2.05


def test_with_correct_guesses_each_request_is_sent_once() -> None:
    closes = [100.0 + at % 7 for at in range(80)]
    model = LazyModel(1.0, 0.0, 1, 0.0)
    steps, _, prefetcher = run(closes, model, "share", {}, DepthControl(depth=8, max_waste=1.0))
    assert prefetcher is not None
    assert len(model.sent) == len(steps.rows) == 40
    assert prefetcher.stats.hits > 25
    assert prefetcher.stats.wasted == 0


def test_a_prompt_without_the_account_wastes_nothing_whatever_is_decided() -> None:
    closes = [100.0 + at % 7 for at in range(80)]
    model = LazyModel(0.3, 0.0, 1, 0.0)
    steps, _, prefetcher = run(closes, model, "nothing", {}, DepthControl(depth=16, max_waste=0.0, lossless=True))
    assert prefetcher is not None
    assert len(model.sent) == len(steps.rows)
    assert prefetcher.stats.hits == len(steps.rows) - 1


def test_without_allowed_waste_nothing_is_sent_ahead() -> None:
    model = LazyModel(0.5, 0.0, 1, 0.0)
    steps, _, prefetcher = run(
        [100.0 + at % 7 for at in range(40)], model, "cash", {}, DepthControl(depth=8, max_waste=0)
    )
    assert prefetcher is not None
    assert prefetcher.stats.speculated == 0
    assert len(model.sent) == len(steps.rows)


@pytest.mark.parametrize(("hit_rate", "calls"), [(0.9, 32), (0.98, 8), (0.5, 3), (1.0, 5)])
def test_decisions_per_round_trip_equals_a_simulation(hit_rate: float, calls: int) -> None:
    draw = random.Random(5)
    volleys = 20_000
    # An independent count: one certain decision, then one more for every correct guess in a row.
    total = 0
    for _ in range(volleys):
        run_length = 1
        while run_length < calls and draw.random() < hit_rate:
            run_length += 1
        total += run_length
    assert total / volleys == pytest.approx(decisions_per_round_trip(hit_rate, calls), rel=0.03)
