"""The prompt made for `guess: states` shows few account states, and a run with it keeps requests ready for all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_bt import load_config
from agent_bt.agents.agent import PromptAgent, RequestForm
from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.agents.reply import REPLY_SCHEMA
from agent_bt.backtest.preview import validate
from agent_bt.config.model import FeaturesConfig
from agent_bt.core.clock import HOUR
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.step import Step
from agent_bt.core.types import Portfolio, Position, Reply, Request
from agent_bt.engine.depth import DepthControl
from agent_bt.engine.loop import run_decisions
from agent_bt.engine.market import Market
from agent_bt.engine.prefetch import Prefetcher
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.features.compute import compute
from agent_bt.features.specs import feature_specs

PROMPT = load_prompt("btcusdt_trader/v1-states", prompt_roots()[-1:])
SPECS = feature_specs(FeaturesConfig(window=8))
FORM = RequestForm(provider="test", endpoint_id="here", replicate=0, body=lambda messages: {"messages": messages})
DECISIONS = 400


def hourly_market() -> Market:
    count = DECISIONS + 60
    close = 60_000 * np.exp(np.random.default_rng(3).normal(size=count).cumsum() * 0.002)
    times = np.arange(count, dtype=np.int64) * HOUR
    bars = {
        "open": np.concatenate([close[:1], close[:-1]]), "high": close * 1.004, "low": close * 0.996, "close": close,
        "volume": np.full(count, 5.0), "quote_asset_volume": 5.0 * close, "trades": np.full(count, 9),
        "taker_base": np.full(count, 2.0), "taker_quote": 2.0 * close, "filled": np.full(count, False),
    }  # fmt: skip
    frame = pl.DataFrame({"open_time": times, "close_time": times + HOUR, **bars}).cast(BAR_SCHEMA)
    return Market(
        symbols=("BTCUSDT",), bars=frame, interval=HOUR, start=0, features=compute(frame, SPECS),
        feature_names=[spec.column for spec in SPECS], lookback=8,
    )  # fmt: skip


MARKET = hourly_market()


class Volatile:
    """Trades in and out at every `every`-th hour of the price's last digits; all pending calls are answered at once."""

    def __init__(self, sizes: tuple[float, ...]) -> None:
        self.sizes = sizes
        self.trips = 0
        self.asked: list[str] = []
        self.pending: list[tuple[Future[Reply], Request]] = []

    def submit(self, request: Request) -> Future[Reply]:
        model = self

        class Awaited(Future[Reply]):
            def result(self, timeout: float | None = None) -> Reply:
                if not self.done():
                    model.pass_one()
                return super().result(timeout)

        future = Awaited()
        future.set_running_or_notify_cancel()
        self.asked.append(request.address)
        self.pending.append((future, request))
        return future

    def complete(self, request: Request) -> Reply:
        return self.submit(request).result()

    def close(self) -> None:
        pass

    def pass_one(self) -> None:
        self.trips += 1
        answered, self.pending = self.pending, []
        for future, request in answered:
            draw = int(request.address[:6], 16)
            text: dict[str, Any] = {"action": "HOLD"}
            if draw % 5 == 0:
                flat = "position: flat" in request.messages[-1]["content"]
                size = self.sizes[draw % len(self.sizes)] if flat else 1
                text = {"action": "BUY" if flat else "SELL", "size_pct": size}
            future.set_result(Reply(text=json.dumps(text), finish_reason="stop"))


class Kept:
    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []

    def append(self, step: Step) -> None:
        exchange = step.decision.calls[0]
        self.steps.append((step.index, exchange.request.address, step.decision.action, step.fills))


def run_steps(model: Volatile, prefetch: Mapping[str, Any] | None, rules: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    agent = PromptAgent(prompt=PROMPT, form=FORM, llm=model, window=8, every=HOUR, features=SPECS, summary=None)
    made = make_rules(
        **{
            "fill": "close", "latency_bars": 0, "slippage_bps": 5.0, "fee_rate": 0.001, "lot_step": 0.00001,
            "min_quantity": 0.0, "min_notional": 5.0, "stop_loss": None, "take_profit": None, "max_drawdown": None,
            "allow_short": False, **rules,
        }
    )  # fmt: skip
    limits = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=False)
    broker = SimulatedBroker(prices=MARKET, rules=made, cash=10_000.0)
    sizer = RiskLimitedSizer(symbols=MARKET.symbols, rules=made, limits=limits)
    bars = list(range(MARKET.ready, MARKET.ready + DECISIONS))
    ahead = prefetch and Prefetcher(
        agent=agent, market=MARKET, bars=bars, sizer=sizer, broker=broker, guess=None,
        control=DepthControl(free=True, **prefetch), keep_states=4,
    )  # fmt: skip
    kept = Kept()
    run_decisions(
        market=MARKET, bars=bars, strategy=agent, sizer=sizer, broker=broker, journal=kept, fills=[],
        decide=ahead.decide if ahead else None,
    )  # fmt: skip
    return kept.steps


def shown(quantity: float, average_price: float = 50_000.0, opened: int = 0) -> str:
    view = MARKET.at(MARKET.ready)
    position = Position(quantity=quantity, average_price=average_price, opened=opened)
    portfolio = Portfolio(cash=10_000.0, positions={"BTCUSDT": position} if quantity else {})
    agent = PromptAgent(
        prompt=PROMPT, form=FORM, llm=Volatile((1,)), window=8, every=HOUR, features=SPECS, summary=None
    )
    return agent.requests(view, portfolio)[0].messages[-1]["content"]


def test_it_requests_the_reply_that_is_validated() -> None:
    assert PROMPT.output == REPLY_SCHEMA


@given(quantity=st.floats(0.0, 50.0), price=st.floats(1e3, 1e5), opened=st.integers(0, MARKET.ready))
def test_it_shows_the_account_as_one_of_five_states(quantity: float, price: float, opened: int) -> None:
    text = shown(quantity, price, opened * HOUR)
    line = text.partition("Account\n")[2].partition("\n")[0]
    assert line in {"position: flat", *(f"position: {percent}% of equity" for percent in (25, 50, 75, 100))}
    assert text == shown(quantity)


@pytest.mark.parametrize("rules", [{}, {"stop_loss": 0.01}, {"fill": "next_open"}, {"max_drawdown": 0.2}])
def test_two_states_kept_ready_give_the_same_decisions_several_at_a_time(rules: dict[str, Any]) -> None:
    plain = run_steps(Volatile((1,)), None, rules)
    assert len({step[2] for step in plain}) == 3
    model = Volatile((1,))
    assert run_steps(model, {"depth": 32, "max_waste": 1.2}, rules) == plain
    assert len(plain) / model.trips > 11
    assert len(model.asked) / len(plain) <= 2.2
    assert len(set(model.asked)) == len(model.asked)


def test_more_states_than_are_kept_ready_only_cost_speed() -> None:
    sizes = (0.2, 0.5, 0.8, 1)
    plain = run_steps(Volatile(sizes), None, {})
    model = Volatile(sizes)
    assert run_steps(model, {"depth": 32, "max_waste": 3.0}, {}) == plain
    assert len(plain) / model.trips > 3
    assert len(model.asked) / len(plain) <= 4.1


@pytest.mark.parametrize(("version", "guess", "words"), [
    ("v1", "states", "every entry is a new state"), ("v1", "hold", None), ("v1-states", "states", None),
])  # fmt: skip
def test_validate_warns_if_account_states_never_repeat(version: str, guess: str, words: str | None) -> None:
    settings = [f"strategy.prompt=btcusdt_trader/{version}", f"prefetch.guess={guess}", "market.end=2024-07-03"]
    findings = validate(load_config(overrides=settings, env={}))
    warned = [finding.what for finding in findings if "prompt shows" in finding.what]
    assert len(warned) == (words is not None)
    assert all(str(words) in what for what in warned)
