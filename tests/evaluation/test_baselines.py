"""The baselines against hand computation, plain loops, and the statistics they promise."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from agent_bt.core.clock import MINUTE, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import Fill
from agent_bt.engine.market import Market
from agent_bt.evaluation.baselines import (
    RANDOM_AGENTS,
    SMA_DECISIONS,
    Baselines,
    Outcome,
    _random_targets,
    run_baselines,
)
from agent_bt.execution.sizing import make_limits, make_rules

CASH, FEE, SLIPPAGE, STEP = 10_000.0, 0.001, 0.0005, "0.00001"
T0 = time_us("2024-07-01")


def make_market(closes: np.ndarray) -> Market:
    rows = len(closes)
    opened = T0 + MINUTE * np.arange(rows)
    opens = np.concatenate([closes[:1], closes[:-1]])
    bars = pl.DataFrame(
        {
            "open_time": opened, "close_time": opened + MINUTE, "open": opens, "high": np.maximum(opens, closes),
            "low": np.minimum(opens, closes), "close": closes, "volume": 5.0, "quote_asset_volume": 500.0, "trades": 3,
            "taker_base": 2.0, "taker_quote": 200.0, "filled": False,
        },
        schema_overrides={"filled": pl.Boolean},
    ).with_columns(pl.lit(5.0).alias("volume"))  # fmt: skip
    return Market(
        symbols=("BTCUSDT",), bars=bars.cast(dict(BAR_SCHEMA)), interval=MINUTE, start=T0,
        features=np.empty((rows, 0)), feature_names=[], lookback=1,
    )  # fmt: skip


def make_fill() -> Fill:
    return Fill(
        time=T0, bar=0, symbol="BTCUSDT", quantity=1.0, price=1.0, reference_price=1.0, fee=0.0, slippage=0.0,
        realised_pnl=0.0, reason="order",
    )  # fmt: skip


def make_outcome(exposure: np.ndarray, final: float = CASH) -> Outcome:
    held = bool((exposure > 0).any())
    return Outcome(equity=np.full(len(exposure), final), exposure=exposure, fills=[make_fill()] if held else [])


def run(market: Market, bars: np.ndarray, outcome: Outcome, seed: int = 7) -> Baselines:
    rules = make_rules(
        fill="close", latency_bars=0, slippage_bps=SLIPPAGE * 1e4, fee_rate=FEE, lot_step=float(STEP), min_quantity=0.0,
        min_notional=5.0, stop_loss=0.01, take_profit=0.01, max_drawdown=0.02, allow_short=False,
    )  # fmt: skip
    limits = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=False)
    return run_baselines(
        market=market,
        rules=rules,
        limits=limits,
        cash=CASH,
        bars=bars,
        recorded=bars,
        strategy=outcome,
        seed=seed,
    )


def run_decisions(seed: int, rows: int) -> np.ndarray:
    return np.round(60_000 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.004, rows))), 2)


def all_in(cash: float, close: float) -> Decimal:
    """The most whole lots that the cash pays for, costs included."""
    most = Decimal(cash) / (Decimal(close) * (1 + Decimal(str(SLIPPAGE))) * (1 + Decimal(str(FEE))))
    return (most / Decimal(STEP)).to_integral_value(ROUND_FLOOR) * Decimal(STEP)


def plain_account(closes: np.ndarray, wants: dict[int, bool]) -> np.ndarray:
    """Equity of an account that is all in or all out, from its decisions by row."""
    cash, held, equity = CASH, 0.0, []
    for row, close in enumerate(closes.tolist()):
        want = wants.get(row)
        if want is True and not held:
            held = float(all_in(cash, close))
            cash -= held * close * (1 + SLIPPAGE) * (1 + FEE)
        elif want is False and held:
            cash += held * close * (1 - SLIPPAGE) * (1 - FEE)
            held = 0.0
        equity.append(cash + held * close)
    return np.array(equity)


@pytest.mark.parametrize("seed", range(3))
def test_buy_and_hold_equals_hand_computation_and_has_no_stops(seed: int) -> None:
    closes, bars = run_decisions(seed, 600), np.arange(29, 600, 30)
    found = run(make_market(closes), bars, make_outcome(np.zeros(600))).buy_and_hold
    assert len(found.fills) == 1
    assert found.fills[0].bar == 29
    assert found.fills[0].quantity == float(all_in(CASH, closes[29]))
    assert found.equity == pytest.approx(plain_account(closes, {29: True}), rel=1e-12)
    # A walk of this width passes the 1 % stop of the run: the baseline has none.
    assert closes[30:].min() < 0.99 * closes[29]


@pytest.mark.parametrize("seed", range(4))
def test_sma_equals_a_plain_loop_over_the_decision_closes(seed: int) -> None:
    rows, every = 3_000, 10
    closes, bars = run_decisions(seed, rows), np.arange(every - 1, rows, every)
    wants, before = {}, False
    seen: list[float] = []
    for bar in bars.tolist():
        seen.append(float(closes[bar]))
        long = len(seen) >= SMA_DECISIONS and seen[-1] > sum(seen[-SMA_DECISIONS:]) / SMA_DECISIONS
        if long != before:
            wants[bar] = long
        before = long
    assert len(wants) > 1
    found = run(make_market(closes), bars, make_outcome(np.zeros(rows))).sma
    assert [fill.bar for fill in found.fills] == list(wants)
    assert [fill.quantity > 0 for fill in found.fills] == list(wants.values())
    assert found.equity == pytest.approx(plain_account(closes, wants), rel=1e-9)


def test_fewer_decisions_than_the_mean_needs_stay_out() -> None:
    closes = run_decisions(0, 490)
    found = run(make_market(closes), np.arange(9, 490, 10), make_outcome(np.zeros(490)))
    assert (found.sma.fills, found.sma.equity[-1]) == ([], CASH)


def stretches(rows: int, spans: list[tuple[int, int]], size: float = 0.6) -> np.ndarray:
    exposure = np.zeros(rows)
    for first, last in spans:
        exposure[first:last] = size
    return exposure


PROFILES = {
    "one long hold": [(300, 1_900)],
    "one short hold": [(900, 950)],
    "from the first bar to the last": [(0, 3_000)],
    "bought late, never sold": [(1_200, 3_000)],
    "often": [(first, first + 40) for first in range(20, 2_980, 100)],
    "nearly always": [(first, first + 90) for first in range(0, 3_000, 100)],
}


@pytest.mark.parametrize("profile", PROFILES)
def test_random_agents_hold_as_long_and_enter_as_often_as_the_strategy_on_average(profile: str) -> None:
    rows, every = 3_000, 10
    spans, bars = PROFILES[profile], np.arange(every - 1, rows, every)
    outcome = make_outcome(stretches(rows, spans))
    shares, entries = [], []
    for seed in range(20):
        chains = list(_random_targets(outcome, bars, 0, seed))
        assert len(chains) == RANDOM_AGENTS
        for targets in chains:
            long, held, count = False, 0, 0
            for target in targets.tolist():
                if target == target:
                    assert target in (0.0, pytest.approx(0.6))
                    assert (target > 0) != long, "a target is given where it changes, and only there"
                    long, count = target > 0, count + (target > 0)
                held += long
            shares.append(held / len(bars))
            entries.append(count)
    for drawn, wanted in ((shares, outcome.exposure.astype(bool).mean()), (entries, len(spans))):
        error = np.std(drawn) / np.sqrt(len(drawn))
        assert abs(np.mean(drawn) - wanted) <= 4 * error + 1e-12


def test_holding_times_of_random_agents_are_geometric() -> None:
    """Against a second simulation: lengths of holds drawn directly, 30 long spells of 4 decisions on average."""
    rows, every = 3_000, 10
    bars = np.arange(every - 1, rows, every)
    outcome = make_outcome(stretches(rows, [(first, first + 40) for first in range(30, 3_000, 100)]))
    lengths = []
    for seed in range(10):
        for targets in _random_targets(outcome, bars, 0, seed):
            changes = [(at, target > 0) for at, target in enumerate(targets.tolist()) if target == target]
            lengths += [end - at for (at, long), (end, _) in pairwise(changes) if long]
    leave = (30 - 0.4) / (len(bars) - 1) / 0.4
    drawn = np.random.default_rng(1).geometric(leave, 200_000)
    for most in (1, 2, 4, 8):
        assert np.mean(np.array(lengths) <= most) == pytest.approx(np.mean(drawn <= most), abs=0.02)


def test_a_strategy_that_never_trades_is_compared_with_staying_out() -> None:
    closes = run_decisions(1, 600)
    found = run(make_market(closes), np.arange(9, 600, 10), make_outcome(np.zeros(600)))
    assert (found.random.fills, found.random.equity[-1], found.random_beaten) == ([], CASH, None)


@pytest.mark.parametrize(("final", "beaten"), [(1e9, 1.0), (0.0, 0.0)])
def test_random_beaten_is_the_share_of_agents_that_end_lower(final: float, beaten: float) -> None:
    rows = 1_000
    outcome = make_outcome(stretches(rows, [(100, 400), (600, 700)]), final)
    assert run(make_market(run_decisions(2, rows)), np.arange(9, rows, 10), outcome).random_beaten == beaten


def test_the_median_agent_ends_in_the_middle_and_the_seed_decides_who_it_is() -> None:
    rows = 1_000
    market, bars = make_market(run_decisions(2, rows)), np.arange(9, rows, 10)
    exposure = stretches(rows, [(100, 400), (600, 700)])
    median = run(market, bars, make_outcome(exposure)).random
    again = run(market, bars, make_outcome(exposure, final=float(median.equity[-1])))
    assert np.array_equal(again.random.equity, median.equity)
    assert again.random_beaten == pytest.approx(0.5, abs=0.02)
    other = run(market, bars, make_outcome(exposure), seed=8).random
    assert not np.array_equal(other.equity, median.equity)


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_decisions_are_enough(count: int) -> None:
    rows = 100
    outcome = make_outcome(stretches(rows, [(50, 100)]))
    found = run(make_market(run_decisions(3, rows)), np.array([49, 80][:count]), outcome)
    assert np.isfinite(found.random.equity).all()
    assert len(found.buy_and_hold.fills) == 1
