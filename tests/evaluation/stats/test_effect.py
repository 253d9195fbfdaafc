"""The effect of an arm and its two kinds of noise, where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, ttest_1samp

from agent_bt.evaluation.stats.two_level import Effect, measure_effect

RNG = np.random.default_rng(17)


def effect(arm: np.ndarray, baseline: np.ndarray, **options: float) -> Effect:
    return measure_effect(arm, baseline, **({"resamples": 1999, "seed": 1} | options))


@given(n=st.integers(30, 400), shift=st.floats(-0.4, 0.4), seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_one_replicate_with_single_blocks_is_students_test(n: int, shift: float, seed: int) -> None:
    arm = np.random.default_rng(seed).standard_normal((1, n)) + shift
    found = effect(arm, np.zeros((1, n)), block_length=1.0)
    student = ttest_1samp(arm[0], 0.0)
    assert found.value == pytest.approx(arm.mean())
    assert found.p_value() == pytest.approx(student.pvalue, abs=0.05)
    low, high = found.interval(0.05)
    limits = student.confidence_interval()
    width = limits.high - limits.low
    assert [low, high] == pytest.approx([limits.low, limits.high], abs=0.15 * width)


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.01, 0.05, 0.2]), shift=st.floats(0, 0.5))
@settings(max_examples=40)
def test_interval_excludes_nothing_exactly_where_the_p_value_rejects(seed: int, alpha: float, shift: float) -> None:
    arms = np.random.default_rng(seed).standard_normal((2, 2, 60))
    found = effect(arms[0] + shift, arms[1], resamples=399)
    low, high = found.interval(alpha)
    assert (found.p_value() <= alpha) == (low > 0 or high < 0)


@pytest.mark.parametrize("seed", range(12))
def test_observations_too_few_for_their_blocks_give_no_interval_instead_of_a_huge_one(seed: int) -> None:
    arm = np.random.default_rng(seed).standard_normal((1, 10))
    found = effect(arm, np.zeros((1, 10)), block_length=4.0)
    # One resample in thirteen is a single block of all ten, more than the 5 % that the interval leaves out.
    assert (3 / 4) ** 9 > 0.05
    assert found.interval(0.05) is None
    assert found.smallest_detectable(0.05) is None
    assert found.p_value() > 0.05


def test_swapping_the_arms_changes_only_the_sign() -> None:
    arm, baseline = RNG.standard_normal((2, 3, 200))
    one, other = effect(arm, baseline), effect(baseline, arm)
    assert one.value == -other.value
    assert one.p_value() == other.p_value()
    assert one.error == pytest.approx(other.error)


def test_market_and_model_noise_are_told_apart() -> None:
    n, replicates = 4000, 5
    common = 3.0 * RNG.standard_normal(n)
    arm = common + RNG.standard_normal((replicates, n))
    found = effect(arm, np.zeros((replicates, n)))
    # The baseline stands still: the market moves the arm by 3, the model each of five replicates by 1.
    assert found.market_noise == pytest.approx(3.0 / math.sqrt(n), rel=0.1)
    assert found.model_noise is not None
    assert found.model_noise.low <= 1.0 / math.sqrt(replicates * n) <= found.model_noise.high
    assert found.error == pytest.approx(math.sqrt(9.0 + 1.0 / replicates) / math.sqrt(n), rel=0.1)


def test_equal_noise_of_both_arms_is_model_noise() -> None:
    market = RNG.standard_normal(4000)
    arm, baseline = (market + RNG.standard_normal((5, 4000)) for _ in range(2))
    found = effect(arm, baseline)
    assert found.market_noise < 0.4 * found.error


def test_limits_of_the_model_noise_are_chi_squared() -> None:
    arm, baseline = RNG.standard_normal((2, 3, 500))
    noise = effect(arm, baseline).model_noise
    assert noise is not None
    variances = np.var(arm.mean(axis=1), ddof=1) / 3, np.var(baseline.mean(axis=1), ddof=1) / 3
    welch = sum(variances) ** 2 / sum(v**2 / 2 for v in variances)
    assert noise.error == pytest.approx(math.sqrt(sum(variances)))
    assert noise.degrees_of_freedom == pytest.approx(welch)
    assert noise.low == pytest.approx(noise.error * math.sqrt(welch / chi2.ppf(0.975, welch)), rel=0.05)
    assert noise.high == pytest.approx(noise.error * math.sqrt(welch / chi2.ppf(0.025, welch)), rel=0.15)


def test_one_replicate_knows_no_model_noise_and_two_know_it_poorly() -> None:
    arm, baseline = RNG.standard_normal((2, 2, 500))
    assert effect(arm[:1], baseline[:1]).model_noise is None
    two = effect(arm, baseline).model_noise
    one_sided = effect(arm, baseline[:1]).model_noise
    assert two is not None and two.high > 4 * two.low
    assert one_sided is not None and one_sided.degrees_of_freedom == 1.0


def test_runs_that_drift_widen_the_interval() -> None:
    arm, baseline = RNG.standard_normal((2, 5, 2000))
    steady = effect(arm, baseline)
    offsets = np.array([[-0.4], [-0.2], [0.0], [0.2], [0.4]])
    drifting = effect(arm + offsets, baseline)
    assert drifting.value == pytest.approx(steady.value)
    assert drifting.model_noise is not None and drifting.model_noise.drift
    # The offsets alone have a standard error of sqrt(0.1 / 5), and only four degrees of freedom: t = 2.78.
    assert drifting.error == pytest.approx(math.sqrt(0.1 / 5), rel=0.15)
    assert drifting.critical_value(0.05) == pytest.approx(2.78, rel=0.15)


def test_identical_arms_have_no_effect_whatever_the_order_of_replicates() -> None:
    arm = RNG.standard_normal((3, 100)) * 1e-4
    found = effect(arm, arm[::-1])
    assert (found.identical, found.value, found.p_value(), found.interval(0.05)) == (True, 0.0, 1.0, (0.0, 0.0))


def test_one_difference_alone_gives_no_interval_and_no_rejection() -> None:
    arm = np.zeros((1, 500))
    arm[0, 200] = 50.0
    found = effect(arm, np.zeros((1, 500)))
    assert found.interval(0.05) is None
    assert found.smallest_detectable(0.05) is None
    assert found.p_value() > 0.3


def test_equal_seeds_give_equal_effects() -> None:
    arm, baseline = RNG.standard_normal((2, 3, 150))
    one, other, third = (effect(arm, baseline, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one.statistics, other.statistics)
    assert not np.array_equal(one.statistics, third.statistics)


@pytest.mark.parametrize(
    ("arm", "baseline", "message"),
    [
        (np.zeros((1, 5)), np.zeros((1, 6)), "same two or more"),
        (np.zeros((1, 1)), np.zeros((1, 1)), "same two or more"),
        (np.zeros(5), np.zeros(5), "same two or more"),
        (np.full((1, 5), np.nan), np.zeros((1, 5)), "not finite"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(arm: np.ndarray, baseline: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        effect(arm, baseline)
