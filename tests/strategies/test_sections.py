"""Factors, ranks and cross-sectional strategies: numbers by hand, by SciPy, and by a slow way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from paper_market import FLAT, PaperMarket, noise_market
from scipy import stats

from agent_bt.core.errors import ConfigError
from agent_bt.strategies.factors import FactorConfig, FactorSignalGenerator
from agent_bt.strategies.ranks import RankSignalGenerator
from agent_bt.strategies.registry import create_strategy
from agent_bt.strategies.section import places, zscores

NAN = math.nan


def row(strategy: Any, eligible: list[bool] | None = None, **columns: list[float]) -> list[float]:
    """The targets of one row."""
    market = PaperMarket(
        {name: np.array([values], float) for name, values in columns.items()},
        None if eligible is None else np.array([eligible]),
    )
    weights: list[float] = strategy.decide_all(market, np.arange(1))[0].tolist()
    return weights


@pytest.mark.parametrize("seed", range(5))
def test_zscores_and_places_are_those_of_scipy(seed: int) -> None:
    values = np.round(np.random.default_rng(seed).normal(5, 3, (20, 9)), 1)
    values[values > 9] = NAN
    for mine, theirs in zip(zscores(values), values, strict=True):
        there = ~np.isnan(theirs)
        np.testing.assert_allclose(mine[there], stats.zscore(theirs[there]), rtol=1e-12, atol=1e-12)
        assert np.isnan(mine[~there]).all()
    for mine, theirs in zip(places(values), values, strict=True):
        there = ~np.isnan(theirs)
        ranks = stats.rankdata(theirs[there])
        np.testing.assert_allclose(mine[there], 2 * (ranks - 1) / (there.sum() - 1) - 1, atol=1e-15)


def test_a_section_without_spread_or_with_one_member_scores_zero() -> None:
    values = np.array([[0.1, 0.1, 0.1], [NAN, 7.0, NAN], [NAN, NAN, NAN]])
    for scores in (zscores(values), places(values)):
        assert scores[0].tolist() == [0.0] * 3
        assert scores[1, 1] == 0.0
        assert np.isnan(scores[2]).all()


def test_factors_are_weighted_and_cut_at_their_thresholds() -> None:
    factors = [FactorConfig("close", 2.0), FactorConfig("volume", -1.0)]
    columns = {"close": [1.0, 2.0, 3.0, NAN, 3.0], "volume": [1.0, 4.0, 8.0, 1.0, 0.0]}
    strategy = FactorSignalGenerator(factors, long_threshold=0.5, short_threshold=-0.5)
    wanted = row(strategy, [True] * 4 + [False], **columns)
    assert wanted[:3] + wanted[4:] == [0.2, 0.0, -0.2, 0.0]
    assert math.isnan(wanted[3])
    assert row(FactorSignalGenerator(factors, long_threshold=0.5), **columns)[:3] == [0.2, 0.0, 0.0]
    long_only = FactorSignalGenerator(factors, long_threshold=0.5, short_threshold=-0.5, allow_short=False)
    assert row(long_only, **columns)[:3] == [0.2, 0.0, 0.0]


def test_factors_are_normalised_one_by_one_among_the_eligible() -> None:
    columns = {"close": [1.0, 2.0, 3.0, 900.0], "volume": [3_000.0, 1_000.0, 2_000.0, 0.0]}
    strategy = create_strategy(
        "factor", factors=["close", {"column": "volume"}], normalise="rank", long_threshold=0.5, size=1.0
    )
    assert row(strategy, [True, True, True, False], **columns) == [0.0, 0.0, 1.0, 0.0]
    scores = stats.zscore([1.0, 2.0, 3.0]) + 0.5 * stats.zscore([3.0, 1.0, 2.0])
    strategy = create_strategy(
        "factor",
        factors=["close", {"column": "volume", "weight": 0.5}],
        normalise="zscore",
        long_threshold=float(scores[2]) - 1e-9,
        size=1.0,
    )
    assert row(strategy, [True, True, True, False], **columns) == [0.0, 0.0, 1.0, 0.0]


def test_ranks_take_ties_in_the_order_of_the_symbols() -> None:
    values = {"close": [5.0, 7.0, 7.0, 7.0, 5.0]}
    assert row(RankSignalGenerator("close", 2), **values) == [0.0, 0.5, 0.5, 0.0, 0.0]
    assert row(RankSignalGenerator("close", 2, 1), **values) == [-0.5, 0.25, 0.25, 0.0, 0.0]
    assert row(RankSignalGenerator("close", 2, 1, ascending=True), **values) == [0.25, -0.5, 0.0, 0.0, 0.25]
    assert row(RankSignalGenerator("close", 0, 2), **values) == [-0.5, 0.0, 0.0, 0.0, -0.5]


def test_a_leg_takes_what_there_is_and_never_what_the_other_has() -> None:
    both = RankSignalGenerator("close", 2, 2)
    assert row(both, close=[1.0, 2.0, 3.0]) == [-0.5, 0.25, 0.25]
    assert row(both, close=[NAN, 2.0, math.inf]) == [0.0, 0.5, 0.0]
    assert row(both, [False, True, True, True], close=[9.0, 1.0, 2.0, 3.0]) == [0.0, -0.5, 0.25, 0.25]
    nothing = row(both, [True, False], close=[NAN, 1.0])
    assert math.isnan(nothing[0]) and nothing[1] == 0.0


def slow_legs(values: list[float], eligible: list[bool], top: int, bottom: int, sign: int) -> list[float] | None:
    there = [at for at, value in enumerate(values) if eligible[at] and math.isfinite(value)]
    if not there:
        return None
    longs = sorted(there, key=lambda at: (-sign * values[at], at))[:top]
    shorts = [at for at in sorted(there, key=lambda at: (sign * values[at], at)) if at not in longs][:bottom]
    half = 0.5 if bottom else 1.0
    return [half / len(longs) if at in longs else -half / len(shorts) if at in shorts else 0.0
            for at in range(len(values))]  # fmt: skip


@pytest.mark.parametrize("kind", ["momentum", "mean_reversion"])
@pytest.mark.parametrize("legs", [(2, 0), (1, 3), (3, 2)])
def test_momentum_and_mean_reversion_are_sorting(kind: str, legs: tuple[int, int]) -> None:
    strategy = create_strategy(kind, lookback_col="return_5", top_n_long=legs[0], top_n_short=legs[1])
    market = noise_market(["return_5"], 80, 5, seed=legs[1])
    wanted = strategy.decide_all(market, np.arange(80))
    sign = 1 if kind == "momentum" else -1
    for at in range(80):
        values, eligible = market.data["return_5"][at].tolist(), market.eligible[at].tolist()
        expected = slow_legs(values, eligible, *legs, sign)
        if expected is None:
            assert np.isnan(wanted[at][market.eligible[at]]).all()
        else:
            assert wanted[at].tolist() == expected


def test_momentum_as_it_is_called_from_python_is_long_only() -> None:
    strategy = create_strategy("momentum", lookback_col="return_20", top_n_long=10)
    assert [spec.column for spec in strategy.features] == ["return_20"]
    assert (strategy.lookback, strategy.on_change) == (1, False)
    weights = row(strategy, return_20=list(range(30)), close=[1.0] * 30)
    assert weights == [0.0] * 20 + [0.1] * 10


def test_what_is_no_longer_chosen_or_eligible_is_closed() -> None:
    market = PaperMarket(
        {"close": np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])},
        np.array([[True] * 3, [True] * 3, [True, True, False]]),
    )
    strategy = RankSignalGenerator("close", 1)
    decided = [strategy.decide(market.at(bar, 1), FLAT).targets for bar in range(3)]
    assert decided == [
        {"S0": 1.0, "S1": 0.0, "S2": 0.0},
        {"S0": 0.0, "S1": 0.0, "S2": 1.0},
        {"S0": 0.0, "S1": 1.0, "S2": 0.0},
    ]


def test_equal_weight_and_inverse_volatility() -> None:
    close = [1.0, 2.0, NAN, 4.0]
    assert row(create_strategy("equal_weight"), [True, True, True, False], close=close) == [0.5, 0.5, 0.0, 0.0]
    assert row(create_strategy("equal_weight", gross=0.5), close=close) == [0.5 / 3, 0.5 / 3, 0.0, 0.5 / 3]
    calm = create_strategy("inverse_volatility", vol_col="volatility_5")
    weights = row(calm, volatility_5=[0.1, 0.2, 0.0, 0.4, NAN], close=[1.0] * 5)
    np.testing.assert_allclose(weights, [4 / 7, 2 / 7, 0.0, 1 / 7, 0.0], rtol=1e-15)
    calmest = create_strategy("inverse_volatility", vol_col="volatility_5", top_n=2, gross=0.9)
    weights = row(calmest, [False, True, True, True], volatility_5=[0.1, 0.2, 0.3, 0.6], close=[1.0] * 4)
    np.testing.assert_allclose(weights, [0.0, 0.54, 0.36, 0.0], rtol=1e-15)


def test_long_short_by_two_factors() -> None:
    strategy = create_strategy(
        "long_short",
        factors=[{"column": "return_5", "weight": 1.0}, {"column": "volatility_5", "weight": -2.0}],
        top_n=1,
    )
    returns, volatility = [0.05, 0.01, 0.03, 0.02], [0.9, 0.1, 0.2, 0.3]
    scores = stats.zscore(returns) - 2 * stats.zscore(volatility)
    expected = [0.0] * 4
    expected[int(np.argmax(scores))], expected[int(np.argmin(scores))] = 0.5, -0.5
    assert row(strategy, return_5=returns, volatility_5=volatility, close=[1.0] * 4) == expected


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "top": (lambda: create_strategy("momentum", top_n_long=-1), "top_n_long must be at least 0, got -1"),
    "none": (lambda: create_strategy("rank", column="close", top_n=0), "must not both be 0"),
    "short": (
        lambda: create_strategy("momentum", top_n_short=3, allow_short=False),
        "must be 0 when allow_short is false, got 3",
    ),
    "gross": (lambda: create_strategy("equal_weight", gross=math.inf), "gross must be a finite number, got inf"),
    "column": (lambda: create_strategy("momentum", lookback_col="retrun_20"), "retrun_20"),
    "lacking": (lambda: create_strategy("rank", column="close"), "must have top_n"),
    "key": (
        lambda: create_strategy("momentum", lookback="return_5"),
        "unknown key 'lookback'; did you mean lookback_col",
    ),
    "factors": (lambda: create_strategy("factor", factors="close"), "factors must be a list of"),
    "factor": (lambda: create_strategy("factor", factors=[{"colum": "close"}]), r"factors\[0\]: unknown key 'colum'"),
    "weight": (
        lambda: create_strategy("factor", factors=[{"column": "close", "weight": "2"}]),
        "finite number, got '2'",
    ),
    "thresholds": (
        lambda: create_strategy("factor", factors=["close"], short_threshold=1),
        "must be at most long_threshold",
    ),
    "normalise": (
        lambda: create_strategy("factor", factors=["close"], normalise="z"),
        "must be one of none, zscore, rank",
    ),
    "ascending": (lambda: create_strategy("rank", column="close", top_n=1, ascending="no"), "true or false, got 'no'"),
    "top_n": (lambda: create_strategy("inverse_volatility", top_n=0), "top_n must be at least 1, got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_error_for_an_invalid_parameter_names_it(case: str) -> None:
    build, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        build()
