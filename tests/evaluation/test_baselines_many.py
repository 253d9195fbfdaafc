"""Baselines over several symbols, and random agents that may be short: against plain loops and what they promise."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from agent_bt.core.clock import HOUR, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.engine.market import Market
from agent_bt.engine.vectorised import run_targets
from agent_bt.evaluation.baselines import (
    RANDOM_AGENTS,
    SMA_DECISIONS,
    Baselines,
    Outcome,
    _deal,
    _random_targets,
    run_baselines,
)
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizing import make_limits, make_rules

CASH, ROWS, T0 = 100_000.0, 400, time_us("2024-07-01")
LATE, GONE = 120, 250
RULES = make_rules(
    fill="close", latency_bars=0, slippage_bps=0.0, fee_rate=0.0, lot_step=0.00001, min_quantity=0.0, min_notional=0.0,
    stop_loss=None, take_profit=None, max_drawdown=None, allow_short=True, margin=True, max_leverage=3.0,
)  # fmt: skip
LIMITS = make_limits(max_position=1.0, max_gross=2.0, no_trade_band=0.0, allow_short=True)


def make_market(closes: np.ndarray, *, lives: dict[int, tuple[int, int]] | None = None) -> Market:
    tables = []
    for number, close in enumerate(closes.T):
        born, died = (lives or {}).get(number, (0, len(close)))
        opened = T0 + HOUR * np.arange(len(close))
        table = pl.DataFrame(
            {
                "symbol": f"S{number}", "open_time": opened, "close_time": opened + HOUR, "open": close, "high": close,
                "low": close, "close": close, "volume": 5.0, "quote_asset_volume": 500.0, "trades": 3,
                "taker_base": 2.0, "taker_quote": 200.0, "filled": False,
            }
        ).cast(dict(BAR_SCHEMA))  # fmt: skip
        tables.append(table[born:died])
    bars = pl.concat(tables)
    return Market(
        symbols=[f"S{number}" for number in range(closes.shape[1])], bars=bars, interval=HOUR, start=T0,
        features=np.empty((len(bars), 0)), feature_names=(), lookback=1,
    )  # fmt: skip


def walks(seed: int, symbols: int = 6) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, (ROWS, symbols)), axis=0))


def outcome_of(market: Market, bars: np.ndarray, targets: np.ndarray) -> Outcome:
    broker = SimulatedBroker(prices=market, rules=RULES, cash=CASH, first=market.first)
    fills = run_targets(broker=broker, limits=LIMITS, bars=bars, targets=targets)
    return Outcome(equity=broker.equity, exposure=broker.exposure, fills=fills)


def run(market: Market, bars: np.ndarray, recorded: np.ndarray, outcome: Outcome, seed: int = 7) -> Baselines:
    return run_baselines(
        market=market, rules=RULES, limits=LIMITS, cash=CASH, bars=bars, recorded=recorded, strategy=outcome, seed=seed
    )


def test_buy_and_hold_is_equal_weights_of_what_was_there_first_and_then_left_alone() -> None:
    closes = walks(1)
    market = make_market(closes, lives={1: (LATE, ROWS), 2: (0, GONE)})
    bars = np.arange(9, ROWS, 10)
    found = run(market, bars, bars[:1], outcome_of(market, bars[:1], np.zeros((1, 6)))).buy_and_hold
    there = [0, 2, 3, 4, 5]
    value = np.full(ROWS, CASH)
    for row in range(10, ROWS):
        # What vanishes is sold at its last trade.
        at = {n: min(row, GONE - 1) if n == 2 else row for n in there}
        value[row] = sum(CASH / 5 * closes[at[n], n] / closes[9, n] for n in there)
    assert found.equity == pytest.approx(value, rel=1e-6)
    assert sorted((fill.symbol, fill.bar) for fill in found.fills) == sorted(
        [(f"S{n}", 9) for n in there] + [("S2", GONE - 1)]
    )


def test_sma_holds_an_equal_share_of_each_symbol_above_its_own_average() -> None:
    closes = walks(2)
    market = make_market(closes, lives={1: (LATE, ROWS), 2: (0, GONE)})
    bars = np.arange(3, ROWS, 4)
    found = run(market, bars, bars[:1], outcome_of(market, bars[:1], np.zeros((1, 6)))).sma
    expected = []
    held = dict.fromkeys(range(6), False)
    for at, bar in enumerate(bars.tolist()):
        for n in range(6):
            listed = bar >= LATE if n == 1 else bar < GONE - 1 if n == 2 else True
            seen = [closes[b, n] for b in bars[: at + 1] if n != 1 or b >= LATE][-SMA_DECISIONS:]
            above = listed and len(seen) == SMA_DECISIONS and closes[bar, n] > sum(seen) / SMA_DECISIONS
            if above != held[n]:
                expected.append((bar, f"S{n}", above))
            held[n] = above
    # What is still held of a symbol that vanishes was closed at its last trade, which is no decision of this rule.
    told = [(fill.bar, fill.symbol, fill.quantity > 0) for fill in found.fills if fill.reason == "order"]
    closed = {fill.bar for fill in found.fills if fill.reason == "delisted"}
    late = [one for one in expected if not (one[1] == "S2" and one[0] >= GONE - 1 and closed)]
    assert sorted(told) == sorted(late)
    assert len(told) > 15


def test_random_agents_of_equal_prices_end_where_the_strategy_ends() -> None:
    """Which symbols they hold makes no difference then: sizes, times, sides and costs must be the strategy's."""
    one = walks(3, 1)
    market = make_market(np.repeat(one, 6, axis=1))
    draw = np.random.default_rng(0)
    bars = np.arange(9, ROWS, 10)
    targets = np.where(draw.random((len(bars), 6)) < 0.3, draw.choice([-0.3, 0.0, 0.2, 0.4], (len(bars), 6)), np.nan)
    outcome = outcome_of(market, bars, targets)
    found = run(market, bars, bars, outcome)
    assert len(outcome.fills) > 30
    assert found.random.equity == pytest.approx(outcome.equity, rel=1e-4)
    assert sum(abs(fill.quantity * fill.price) for fill in found.random.fills) == pytest.approx(
        sum(abs(fill.quantity * fill.price) for fill in outcome.fills), rel=0.01
    )


def test_random_agents_follow_orders_that_fill_later() -> None:
    market = make_market(np.repeat(walks(3, 1), 6, axis=1))
    bars = np.arange(9, ROWS, 10)
    late = RULES.copy()
    late["at_close"], late["delay"] = 0, 3
    targets = np.full((len(bars), 6), np.nan)
    targets[::2, 0], targets[1::2, 0] = 0.5, 0.0
    broker = SimulatedBroker(prices=market, rules=late, cash=CASH, first=market.first)
    fills = run_targets(broker=broker, limits=LIMITS, bars=bars, targets=targets)
    outcome = Outcome(equity=broker.equity, exposure=broker.exposure, fills=fills)
    found = run_baselines(
        market=market, rules=late, limits=LIMITS, cash=CASH, bars=bars, recorded=bars, strategy=outcome, seed=1
    )
    assert [fill.bar for fill in found.random.fills] == [fill.bar for fill in fills]
    assert found.random.equity == pytest.approx(outcome.equity, rel=5e-3)


def test_dealing_keeps_what_the_strategy_keeps_and_draws_evenly_from_the_eligible() -> None:
    draw = np.random.default_rng(5)
    decisions, symbols = 40, 8
    eligible = draw.random((decisions, symbols)) < 0.9
    shares = np.zeros((decisions, symbols))
    for at in range(decisions):
        shares[at] = shares[at - 1]
        turned = draw.integers(0, 2, 1)
        shares[at, turned] = np.where(shares[at, turned] == 0.0, 0.25, 0.0)
        shares[at, 3] = -0.1 if at % 10 < 5 else 0.0
    moved = np.diff(shares, axis=0, prepend=0.0) != 0.0
    first = np.zeros(symbols)
    for seed in range(400):
        targets = _deal(shares, moved, eligible, np.random.default_rng(seed).random(np.count_nonzero(shares)))
        held = np.zeros(symbols)
        for at in range(decisions):
            given = ~np.isnan(targets[at])
            held[given] = targets[at, given]
            assert sorted(held[held != 0.0]) == sorted(shares[at][shares[at] != 0.0])
            assert eligible[at][held != 0.0].all()
            if not moved[at].any() and eligible[at].all():
                assert not given.any()
        first += ~np.isnan(targets[0])
    count = int(np.count_nonzero(shares[0]))
    expected = np.where(eligible[0], 400 * count / eligible[0].sum(), 0.0)
    assert first == pytest.approx(expected, abs=5 * np.sqrt(400 * 0.25))


def test_a_strategy_that_holds_nothing_is_compared_with_staying_out() -> None:
    market, bars = make_market(walks(4)), np.arange(9, ROWS, 10)
    found = run(market, bars, bars[:1], outcome_of(market, bars[:1], np.zeros((1, 6))))
    assert (found.random.fills, found.random_beaten) == ([], None)


def test_baselines_decide_where_the_strategy_has_nothing_to_say_too() -> None:
    """A rule that spoke once and was silent ever after has the same rule of averages beside it."""
    market, bars = make_market(walks(6)), np.arange(1, ROWS, 2)
    outcome = outcome_of(market, bars[:1], np.full((1, 6), 0.1))
    often, once = run(market, bars, bars, outcome), run(market, bars, bars[:1], outcome)
    assert len(once.sma.fills) > 10
    assert np.array_equal(often.sma.equity, once.sma.equity)


def test_random_agents_of_one_symbol_are_short_as_long_as_the_strategy() -> None:
    rows, bars = 3_000, np.arange(9, 3_000, 10)
    exposure = np.zeros(rows)
    for first in range(0, rows, 300):
        exposure[first : first + 120], exposure[first + 120 : first + 180] = 0.8, -0.4
    outcome = Outcome(equity=np.full(rows, CASH), exposure=exposure, fills=[])
    long, short, turns = [], [], []
    for seed in range(10):
        for targets in _random_targets(outcome, bars, 0, seed):
            last = np.maximum.accumulate(np.where(np.isnan(targets), 0, np.arange(len(targets))))
            state = np.nan_to_num(targets[last])
            assert np.isin(np.round(state, 9), (0.0, 0.8, -0.4)).all()
            long.append((state > 0).mean())
            short.append((state < 0).mean())
            turns.append(np.count_nonzero((state[:-1] > 0) & (state[1:] < 0)))
    assert len(long) == 10 * RANDOM_AGENTS
    for drawn, wanted in ((long, 0.4), (short, 0.2)):
        assert abs(np.mean(drawn) - wanted) < 4 * np.std(drawn) / np.sqrt(len(drawn))
    # Ten turns from long to short, none back: as many each way in a chain that stays what it is.
    assert np.mean(turns) == pytest.approx(5.0, rel=0.1)
