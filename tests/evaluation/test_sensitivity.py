"""Execution sensitivity: the run's own decisions, refilled; `as_run` is the run itself, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.step import Step
from agent_bt.core.types import Decision, Fill, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.engine.loop import run_decisions
from agent_bt.engine.market import Market
from agent_bt.evaluation.sensitivity import COLUMNS, execution_sensitivity, read_decisions
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.setup import ExecutionSetup
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.records.decision_record import build_content, build_telemetry
from agent_bt.records.schema import decision_schema, json_schema

MINUTE = 60_000_000
CASH = 1_000.0
LIMITS = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=False)
COSTS: dict[str, Any] = {
    "fill": "close", "latency_bars": 0, "slippage_bps": 10.0, "fee_rate": 0.002, "lot_step": 0.001, "min_quantity": 0.0,
    "min_notional": 0.0, "stop_loss": None, "take_profit": None, "max_drawdown": None, "allow_short": False,
}  # fmt: skip


def rules_of(**changes: Any) -> np.ndarray:
    return make_rules(**{**COSTS, **changes})


def setup_of(rules: np.ndarray) -> ExecutionSetup:
    return ExecutionSetup(rules=rules, limits=LIMITS, cash=CASH)


def market_of(opens: Sequence[float], closes: Sequence[float]) -> Market:
    count = len(closes)
    times = np.arange(count, dtype=np.int64) * MINUTE
    frame = pl.DataFrame(
        {
            "open_time": times, "close_time": times + MINUTE, "open": opens, "high": np.maximum(opens, closes),
            "low": np.minimum(opens, closes), "close": closes, "volume": [1.0] * count,
            "quote_asset_volume": [1.0] * count, "trades": [1] * count, "taker_base": [0.5] * count,
            "taker_quote": [0.5] * count, "filled": [False] * count,
        }
    ).cast(BAR_SCHEMA)  # fmt: skip
    return Market(
        symbols=("BTCUSDT",), bars=frame, interval=MINUTE, start=0, features=np.empty((count, 0)), feature_names=(),
        lookback=1,
    )  # fmt: skip


class Script:
    """Decides what a list says."""

    name, lookback, features, summary = "script", 1, (), None

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._decisions = iter(decisions)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        return next(self._decisions)


class Steps(list[Step]):
    """A journal in memory."""


def run(market: Market, decisions: Sequence[Decision], rules: np.ndarray) -> tuple[SimulatedBroker, list[Fill], Steps]:
    broker = SimulatedBroker(prices=market, rules=rules, cash=CASH, first=market.first)
    sizer = RiskLimitedSizer(symbols=market.symbols, rules=rules, limits=LIMITS)
    fills: list[Fill] = []
    steps = Steps()
    bars = range(0, 2 * len(decisions), 2)
    run_decisions(
        market=market, bars=bars, strategy=Script(decisions), sizer=sizer, broker=broker, journal=steps, fills=fills
    )  # fmt: skip
    return broker, fills, steps


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), latency=st.integers(0, 3), fill=st.sampled_from(["close", "next_open"]))
def test_as_run_is_the_run_itself_to_the_last_bit(seed: int, latency: int, fill: str) -> None:
    draw = random.Random(seed)
    prices = [100.0]
    for _ in range(160):
        prices.append(round(prices[-1] * (1 + draw.gauss(0, 0.03)), 2))
    market = market_of(prices[:-1], prices[1:])
    choices = [
        Decision.hold(),
        Decision.buy("BTCUSDT", 0.7),
        Decision.sell("BTCUSDT", 1.0),
        Decision.sell("BTCUSDT", 0.3, sizing="equity"),
        Decision.to({"BTCUSDT": 0.5}),
        Decision.to({"BTCUSDT": 0.0}),
    ]
    decisions = [draw.choice(choices) for _ in range(80)]
    rules = rules_of(fill=fill, latency_bars=latency, stop_loss=0.05, take_profit=0.1, max_drawdown=0.4)
    broker, fills, steps = run(market, decisions, rules)
    replayed = [(step.bar, step.decision) for step in steps]
    as_run = execution_sensitivity(market, replayed, setup_of(rules))[0]
    assert as_run.name == "as_run"
    assert as_run.equity.tobytes() == broker.equity.tobytes()
    assert (as_run.fills, as_run.fees) == (len(fills), sum(fill.fee for fill in fills))


def test_each_variant_fills_where_its_name_says() -> None:
    """One purchase at the close of bar 0 with half the cash, sold never; every price by hand."""
    opens = [100.0, 110.0, 120.0, 130.0, 140.0, 150.0, 160.0, 170.0]
    closes = [101.0, 111.0, 121.0, 131.0, 141.0, 151.0, 161.0, 200.0]
    market = market_of(opens, closes)
    variants = execution_sensitivity(
        market, [(0, Decision.buy("BTCUSDT", 0.5))], setup_of(rules_of(slippage_bps=0.0, fee_rate=0.0))
    )
    bought = {"as_run": 101.0, "next_open": 110.0, "plus_1_bar": 111.0, "plus_5_bars": 151.0, "double_costs": 101.0}
    assert [variant.name for variant in variants] == list(bought)
    quantity = 4.950  # 500 / 101, in whole lots of 0.001
    for variant in variants:
        assert variant.final_equity == pytest.approx(CASH + quantity * (200.0 - bought[variant.name]), rel=1e-12)
        assert variant.total_return == pytest.approx(variant.final_equity / CASH - 1.0, rel=1e-12)
        assert variant.fills == 1


def test_costs_are_doubled_and_the_drawdown_is_the_deepest_fall_from_the_peak() -> None:
    market = market_of([100.0] * 4, [100.0, 150.0, 75.0, 90.0])
    decisions = [(0, Decision.to({"BTCUSDT": 0.5}))]
    single, *_, double = execution_sensitivity(market, decisions, setup_of(rules_of()))
    assert single.fees == pytest.approx(5.0 * 100.1 * 0.002)
    assert double.fees == pytest.approx(5.0 * 100.2 * 0.004)
    assert (single.slippage, double.slippage) == (pytest.approx(0.5), pytest.approx(1.0))
    paid = 5.0 * 0.1 + single.fees
    assert single.max_drawdown == pytest.approx((CASH - paid - 125.0) / (CASH - paid + 250.0) - 1.0)


def test_no_decision_that_wants_anything_leaves_the_cash() -> None:
    variants = execution_sensitivity(market_of([1.0] * 3, [2.0] * 3), [(0, Decision.hold())], setup_of(rules_of()))
    assert {(v.final_equity, v.total_return, v.max_drawdown, v.fills) for v in variants} == {(CASH, 0.0, 0.0, 0)}


def test_decisions_come_back_from_the_table_of_a_run(tmp_path: Path) -> None:
    """What `decisions.parquet` holds, refilled as it was, is the run."""
    market = market_of([100.0] * 12, [100.0, 101, 99, 103, 97, 105, 110, 90, 95, 96, 97, 98])
    decisions = [
        Decision.buy("BTCUSDT", 0.5), Decision.hold(), Decision.to({"BTCUSDT": 0.9}),
        Decision.sell("BTCUSDT", 0.25, sizing="equity"), Decision.sell("BTCUSDT"), Decision.to({}),
    ]  # fmt: skip
    broker, _, steps = run(market, decisions, rules_of())
    rows = [{**build_content(step, window=False), "telemetry": build_telemetry(step, 0)} for step in steps]
    schema = decision_schema([])
    pl.DataFrame(rows, schema=json_schema(schema)).cast(schema).write_parquet(tmp_path / "decisions.parquet")
    recorded = read_decisions(pl.read_parquet(tmp_path / "decisions.parquet", columns=list(COLUMNS)))
    assert [bar for bar, _ in recorded] == [0, 4, 6, 8]
    as_run = execution_sensitivity(market, recorded, setup_of(rules_of()))[0]
    assert as_run.equity.tobytes() == broker.equity.tobytes()
