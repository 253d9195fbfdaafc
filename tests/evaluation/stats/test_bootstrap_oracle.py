"""Block length, bootstrap and Hansen's test beside `arch`, and beside slow ways to compute the same."""

from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap
from arch.bootstrap import optimal_block_length as arch_block_length
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.evaluation.stats.block_length import optimal_block_length
from agent_bt.evaluation.stats.bootstrap import mean_error, resample_mean, resample_means, sum_units
from agent_bt.evaluation.stats.spa import superior_ability


def autoregressive(phi: float, n: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(n)
    for t in range(1, n):
        values[t] += phi * values[t - 1]
    return values


@given(
    phi=st.floats(-0.5, 0.97), n=st.integers(12, 1500), seed=st.integers(0, 10**6), density=st.sampled_from([1.0, 0.05])
)
@settings(max_examples=40)
def test_block_length_is_that_of_arch_but_never_below_one(phi: float, n: int, seed: int, density: float) -> None:
    values = autoregressive(phi, n, seed) * (np.random.default_rng(seed).random(n) < density)
    if np.count_nonzero(values) < 3:
        values[:3] = [1.0, -2.0, 0.5]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = float(arch_block_length(values)["stationary"].iloc[0])
    if np.isfinite(expected):
        assert optimal_block_length(values) == pytest.approx(max(1.0, expected), rel=1e-9)


def test_block_length_of_a_constant_is_one() -> None:
    assert optimal_block_length(np.full(100, 3.0)) == 1.0


@pytest.mark.parametrize("block_length", [1.0, 3.7, 40.0])
def test_resampled_means_are_distributed_as_those_of_arch(block_length: float) -> None:
    values = autoregressive(0.6, 400, 1) + 0.3
    theirs = StationaryBootstrap(block_length, values, seed=5).apply(np.mean, 4000)[:, 0] - values.mean()
    ours = resample_mean(values, block_length=block_length, resamples=40_000, seed=5).deviations
    at = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
    # A quantile of 4,000 draws has a standard error below 0.06 standard deviations even at 1%.
    assert np.quantile(ours, at) == pytest.approx(np.quantile(theirs, at), abs=0.18 * np.std(theirs))
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.05)


@pytest.mark.parametrize("block_length", [1.0, 6.0, 25.0])
def test_mean_error_is_the_closed_form_of_arch(block_length: float) -> None:
    values = np.stack([autoregressive(0.5, 301, seed) for seed in (1, 2)])
    spa = SPA(np.zeros(301), -values.T, block_size=block_length, reps=10, seed=1)
    spa.compute()
    assert mean_error(values, block_length) == pytest.approx(np.sqrt(spa._loss_diff_var / 301), rel=1e-9)


@pytest.mark.parametrize("block_length", [1.0, 6.0, 25.0])
def test_mean_error_is_the_spread_of_the_resamples_and_their_own_error(block_length: float) -> None:
    values = autoregressive(0.5, 2000, 3)
    draws = resample_mean(values, block_length=block_length, resamples=40_000, seed=1)
    expected = mean_error(values, block_length)
    assert np.std(draws.deviations) == pytest.approx(expected, rel=0.02)
    assert np.sqrt(np.mean(draws.errors**2)) == pytest.approx(expected, rel=0.05)


def test_errors_of_resamples_of_single_values_are_those_of_the_resampled_values() -> None:
    # With blocks of one value a resample of 0 and 1 is known from its mean m: its error is sqrt(m (1 - m) / n).
    values = (np.arange(50) % 5 == 0).astype(float)
    draws = resample_mean(values, block_length=1.0, resamples=200, seed=2)
    means = draws.deviations + 0.2
    assert draws.errors == pytest.approx(np.sqrt(means * (1 - means) / 50), abs=1e-12)


def test_resamples_depend_on_the_seed_alone_and_begin_the_same() -> None:
    values = autoregressive(0.3, 200, 4)
    first = resample_mean(values, block_length=5.0, resamples=100, seed=11)
    longer = resample_mean(values, block_length=5.0, resamples=300, seed=11)
    other = resample_mean(values, block_length=5.0, resamples=100, seed=12)
    assert np.array_equal(first.deviations, longer.deviations[:100])
    assert not np.any(first.deviations == other.deviations)
    assert len(np.unique(longer.deviations)) == 300


def test_a_resample_of_one_block_is_the_data_and_has_no_error_of_its_own() -> None:
    values = autoregressive(0.5, 10, seed=3)
    draws = resample_mean(values, block_length=1e9, resamples=50, seed=7)
    assert not draws.deviations.any()
    assert not draws.errors.any()


def test_several_series_are_resampled_with_the_blocks_of_one() -> None:
    values = np.stack([autoregressive(0.3, 200, seed) for seed in range(3)], axis=1)
    together = resample_means(values, block_length=4.0, resamples=50, seed=7)
    for k in range(3):
        alone = resample_mean(values[:, k], block_length=4.0, resamples=50, seed=7)
        assert together[:, k] == pytest.approx(alone.deviations, abs=1e-12)


@pytest.mark.parametrize("block_length", [1.5, 4.0, 60.0])
def test_blocks_have_geometric_lengths(block_length: float) -> None:
    # One spike in a long series: the resample's mean counts how often it was drawn, whose variance is that of
    # arch's blocks; here by the closed form computed lag by lag.
    n = 500
    values = np.zeros(n)
    values[10:40] = 1.0
    centred = values - values.mean()
    circular = np.array([centred @ np.roll(centred, lag) for lag in range(n)]) / n
    weights = np.array([1.0] + [2 * (1 - lag / n) * (1 - 1 / block_length) ** lag for lag in range(1, n)])
    draws = resample_mean(values, block_length=block_length, resamples=40_000, seed=9).deviations
    assert np.var(draws) == pytest.approx(float(circular @ weights) / n, rel=0.04)


def test_sums_of_units_keep_the_total_and_a_short_last_unit() -> None:
    values = np.arange(14.0).reshape(2, 7)
    assert sum_units(values, 3).tolist() == [[3.0, 12.0, 6.0], [24.0, 33.0, 13.0]]


def test_superior_ability_agrees_with_arch_on_means_as_they_are() -> None:
    rng = np.random.default_rng(3)
    differences = rng.standard_normal((300, 6)) + np.array([0.05, 0.0, -0.1, -0.5, 0.1, -0.02])
    spa = SPA(np.zeros(300), -differences, block_size=4, reps=4000, seed=1)
    spa.compute()
    ours = superior_ability(differences, resamples=20_000, seed=1, block_length=4.0, studentise=False)
    theirs = spa.pvalues
    assert [ours.lower, ours.consistent, ours.upper] == pytest.approx(
        [theirs["lower"], theirs["consistent"], theirs["upper"]], abs=0.03
    )
    assert ours.best == 4


def test_superior_ability_counts_hopeless_arms_out() -> None:
    rng = np.random.default_rng(5)
    one = rng.standard_normal((250, 1)) + 0.12
    # One arm is tested like a single mean, one-sided; forty hopeless ones must not change that.
    hopeless = rng.standard_normal((250, 40)) - 3.0
    alone = superior_ability(one, resamples=4000, seed=1, block_length=1.0)
    crowd = superior_ability(np.hstack([one, hopeless]), resamples=4000, seed=1, block_length=1.0)
    assert crowd.consistent == pytest.approx(alone.consistent, abs=0.03)
    assert crowd.upper > 5 * alone.upper
    assert crowd.lower <= crowd.consistent <= crowd.upper
    assert crowd.best == 0


def test_arms_equal_to_the_baseline_are_not_superior() -> None:
    found = superior_ability(np.zeros((50, 2)), resamples=100, seed=1)
    assert found.consistent == found.upper == 1.0
