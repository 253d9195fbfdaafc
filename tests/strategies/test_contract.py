"""The contract that every registered strategy keeps, whatever it is and whoever adds the next one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_market import FLAT, PaperMarket, noise_market, same_bits, traded_market, wanted_of

from agent_bt.core.types import Portfolio, Position
from agent_bt.strategies.base import Strategy
from agent_bt.strategies.registration import registered
from agent_bt.strategies.registry import create_strategy
from agent_bt.strategies.signals import SignalStrategy

TWO_RULES = [{"kind": "rsi", "params": {"period": 5}}, {"kind": "momentum", "params": {"lookback_col": "return_5"}}]

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "buy_and_hold": [{}],
    "stay_out": [{}],
    "rule": [
        {"long": ["rsi_5 < 40"], "exit": "rsi_5 > 60"},
        {
            "long": [{"any": ["close crosses_above sma_5", "volume > 4"]}, "filled != 1"],
            "exit": {"column": "close", "operator": "crosses_below", "value": "sma_5"},
            "short": "rsi_5 > 70",
            "cover": "rsi_5 <= 50",
            "size": 0.3,
            "warm_up": 4,
        },
    ],
    "technical": [{"preset": "rsi", "period": 5}],
    "rsi": [{"period": 5, "low": 40, "high": 60}, {"period": 5, "allow_short": True, "size": 0.25}],
    "ma_cross": [{"fast": 3, "slow": 8}, {"fast": 3, "slow": 8, "kind": "ema", "allow_short": True}],
    "bollinger": [{"period": 8, "deviations": 1}, {"period": 8, "deviations": 1, "allow_short": True}],
    "momentum_rule": [{"lookback": 5, "threshold": 0.01}, {"lookback": 5, "threshold": 0.01, "allow_short": True}],
    "macd": [{"fast": 3, "slow": 6, "signal": 3}, {"fast": 3, "slow": 6, "signal": 3, "allow_short": True}],
    "factor": [
        {"factors": [{"column": "return_5", "weight": 2.0}, {"column": "volatility_5", "weight": -1.0}]},
        {"factors": ["return_5"], "long_threshold": 0.5, "short_threshold": -0.5, "normalise": "zscore"},
        {"factors": ["return_5"], "long_threshold": 0.3, "short_threshold": -0.3, "normalise": "rank"},
    ],
    "rank": [
        {"column": "return_5", "top_n": 2},
        {"column": "return_5", "top_n": 2, "bottom_n": 2, "ascending": True, "exclude": ["S0"]},
    ],
    "ensemble": [
        *({"members": TWO_RULES, "method": how, "window": 7} for how in ("weighted_average", "best_of_recent")),
        {"members": ["macd", *TWO_RULES], "method": "majority_vote", "weights": [1, 2, 1.5], "window": 7},
        {"members": TWO_RULES, "method": "unanimous", "window": 3, "warm_up": 2},
        {"members": [{"kind": "ensemble", "params": {"members": TWO_RULES, "window": 4}}, "equal_weight"]},
    ],
    "momentum": [{}, {"lookback_col": "return_5", "top_n_long": 2, "top_n_short": 1, "warm_up": 3}],
    "mean_reversion": [{"lookback_col": "return_5", "top_n_long": 1}],
    "equal_weight": [{}, {"gross": 0.7, "exclude": ["S0"]}],
    "long_short": [{"top_n": 1}, {"factors": ["return_5", "volume"], "top_n": 2, "normalise": "rank"}],
    "inverse_volatility": [{"vol_col": "volatility_5"}, {"vol_col": "volatility_5", "top_n": 2}],
}
"""Parameters of every registered kind; the contract is tested with each."""

CASES = [(kind, params) for kind in registered() for params in EXAMPLES.get(kind, [])]
SIGNALS = [case for case in CASES if case[0] not in ("buy_and_hold", "stay_out")]

every_case = pytest.mark.parametrize(("kind", "params"), CASES)
every_signal = pytest.mark.parametrize(("kind", "params"), SIGNALS)


def make(kind: str, params: dict[str, Any], count: int = 4) -> Any:
    if count == 1 and "exclude" in params:
        params = {name: value for name, value in params.items() if name != "exclude"}
    return create_strategy(kind, **params)


def decided(strategy: Strategy, market: PaperMarket, bars: np.ndarray, more: int = 0) -> np.ndarray:
    """`decide` at every one of these rows, on views of its look-back (and `more` rows)."""
    rows = [strategy.decide(market.at(int(bar), strategy.lookback + more), FLAT) for bar in bars]
    return np.array([wanted_of(decision, market.symbols) for decision in rows]).reshape(len(bars), len(market.symbols))


def test_every_registered_kind_has_examples() -> None:
    assert set(EXAMPLES) == set(registered())
    assert all(EXAMPLES.values())


@every_signal
@pytest.mark.parametrize("count", [1, 4])
def test_decide_is_decide_all_to_the_last_bit(kind: str, params: dict[str, Any], count: int) -> None:
    strategy = make(kind, params, count)
    assert isinstance(strategy, SignalStrategy)
    market = traded_market(strategy.features, 140, count, seed=count)
    bars = np.arange(len(market))
    whole = strategy.decide_all(market, bars)
    assert whole.shape == (len(bars), count)
    assert np.isfinite(whole).any()
    assert same_bits(whole, decided(strategy, market, bars))
    some = np.array([0, 3, 50, 51, 77, 139])
    assert same_bits(strategy.decide_all(market, some), whole[some])
    assert same_bits(strategy.decide_all(market, bars[60:]), whole[60:])
    assert strategy.decide_all(market, bars[:0]).shape == (0, count)


@every_signal
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 6), rows=st.integers(1, 40), more=st.integers(0, 3))
def test_decide_is_decide_all_on_any_numbers(
    kind: str, params: dict[str, Any], seed: int, count: int, rows: int, more: int
) -> None:
    strategy = make(kind, params, count)
    market = noise_market([spec.column for spec in strategy.features] + ["volume", "filled"], rows, count, seed)
    if strategy.exclude and count == 1:
        return
    bars = np.flatnonzero(np.random.default_rng(seed).random(rows) < 0.7)
    assert same_bits(strategy.decide_all(market, bars), decided(strategy, market, bars, more))


@every_case
@pytest.mark.parametrize("count", [1, 4])
def test_what_comes_later_changes_nothing(kind: str, params: dict[str, Any], count: int) -> None:
    strategy = make(kind, params, count)
    market = traded_market(strategy.features, 120, count, seed=5)
    for row in (20, 63, 90):
        later = market.changed(slice(row + 1, None), seed=row)
        bars = np.arange(row + 1)
        if isinstance(strategy, SignalStrategy):
            assert same_bits(
                strategy.decide_all(later, np.arange(len(later)))[: row + 1], strategy.decide_all(market, bars)
            )
        assert same_bits(decided(strategy, later, bars[-3:]), decided(strategy, market, bars[-3:]))


@every_case
def test_what_lies_before_the_look_back_changes_nothing(kind: str, params: dict[str, Any]) -> None:
    strategy = make(kind, params)
    market = traded_market(strategy.features, 160, 4, seed=6)
    for bar in (130, 150):
        before = market.changed(slice(0, bar - strategy.lookback + 1), seed=bar)
        rows = np.array([bar])
        if isinstance(strategy, SignalStrategy):
            assert same_bits(strategy.decide_all(before, rows), strategy.decide_all(market, rows))
        assert same_bits(decided(strategy, before, rows, more=5), decided(strategy, market, rows))


@every_case
def test_a_strategy_keeps_nothing_between_calls(kind: str, params: dict[str, Any]) -> None:
    strategy, other = make(kind, params), make(kind, params)
    market = traded_market(strategy.features, 130, 4, seed=7)
    bars = np.arange(90, 130)
    first = decided(strategy, market, bars)
    decided(other, market.changed(slice(0, None), seed=1), bars)
    assert same_bits(decided(other, market, bars[::-1])[::-1], first)
    assert same_bits(decided(strategy, market, bars), first)
    held = Portfolio(cash=1.0, positions={"S1": Position(quantity=2.0, average_price=90.0, opened=0)})
    if isinstance(strategy, SignalStrategy):
        view = market.at(120, strategy.lookback)
        assert strategy.decide(view, held) == strategy.decide(view, FLAT)


@every_signal
def test_in_warm_up_nothing_is_wanted(kind: str, params: dict[str, Any]) -> None:
    strategy = make(kind, params)
    market = traded_market(strategy.features, 120, 4, seed=8)
    early = np.arange(strategy.lookback - 1)
    assert np.isnan(decided(strategy, market, early)).all()
    assert np.isnan(strategy.decide_all(market, early)).all()
    unknown = PaperMarket({name: np.full((60, 3), np.nan) for name in market.data}, np.ones((60, 3), bool))
    wanted = strategy.decide_all(unknown, np.arange(60))
    assert not wanted[~np.isnan(wanted)].any()


@every_case
def test_nothing_that_is_not_eligible_is_wanted(kind: str, params: dict[str, Any]) -> None:
    strategy = make(kind, params)
    market = traded_market(strategy.features, 140, 4, seed=9)
    bars = np.arange(max(40, strategy.lookback), 140)
    wanted = decided(strategy, market, bars)
    gone = ~market.eligible[bars]
    assert gone.any()
    assert not np.nan_to_num(wanted[gone]).any()
    if isinstance(strategy, SignalStrategy):
        seen = [symbol not in strategy.exclude for symbol in market.symbols]
        assert (wanted[:, seen][gone[:, seen]] == 0.0).all()


@every_signal
def test_weights_stay_within_the_capital(kind: str, params: dict[str, Any]) -> None:
    strategy = make(kind, params)
    market = traded_market(strategy.features, 140, 4, seed=10)
    wanted = np.nan_to_num(strategy.decide_all(market, np.arange(140)))
    assert wanted.any()
    assert np.abs(wanted).sum(axis=1).max() <= (1.2 + 1e-12 if params.get("size") == 0.3 else 1.0 + 1e-12)
