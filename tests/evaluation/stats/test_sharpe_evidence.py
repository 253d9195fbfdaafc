"""Probabilistic and deflated Sharpe ratio against published numbers, and against a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agent_bt.evaluation.stats.sharpe import deflated_sharpe, expected_maximum, probabilistic_sharpe, sharpe_evidence


@pytest.mark.parametrize(("trials", "expected"), [(10, 1.574598), (100, 2.530603), (1000, 3.255122)])
def test_expected_maximum_of_published_trials(trials: int, expected: float) -> None:
    assert expected_maximum(trials) == pytest.approx(expected, abs=5e-7)


def test_expected_maximum_is_near_the_simulated_one() -> None:
    drawn = np.random.default_rng(1).standard_normal((20_000, 20)).max(axis=1).mean()
    assert expected_maximum(20) == pytest.approx(drawn, abs=0.05)


def test_deflated_sharpe_of_the_published_example() -> None:
    variance = 0.5 / 250
    assert math.sqrt(variance) * expected_maximum(100) == pytest.approx(0.1132, abs=5e-5)
    found = deflated_sharpe(
        2.5 / math.sqrt(250), observations=1250, skew=-3.0, kurtosis=10.0, trials=100, trial_variance=variance
    )
    assert found == pytest.approx(0.9004, abs=5e-5)


def test_one_trial_deflates_nothing_and_none_is_an_error() -> None:
    plain = probabilistic_sharpe(0.1, observations=100, skew=0.0, kurtosis=3.0)
    deflated = deflated_sharpe(0.1, observations=100, skew=0.0, kurtosis=3.0, trials=1, trial_variance=0.5)
    assert deflated == plain > 0.5
    with pytest.raises(ValueError, match="0 trials"):
        expected_maximum(0)


def test_probability_of_worthless_normal_returns_is_uniform() -> None:
    returns = np.random.default_rng(2).standard_normal((2000, 1, 250))
    found = [evidence.psr for sample in returns if (evidence := sharpe_evidence(sample)) is not None]
    assert np.mean(np.array(found) > 0.95) == pytest.approx(0.05, abs=0.015)
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)


def test_best_of_worthless_trials_deflates_to_a_coin_toss() -> None:
    rng = np.random.default_rng(3)
    lucky, found = [], []
    for _ in range(300):
        trials = rng.standard_normal((50, 200))
        best = trials[np.argmax(trials.mean(axis=1) / trials.std(axis=1))]
        evidence = sharpe_evidence(best[None], trials=50)
        assert evidence is not None
        lucky.append(evidence.psr)
        found.append(evidence.dsr)
    assert np.mean(lucky) > 0.95
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)


def test_no_variance_or_too_few_periods_is_no_evidence() -> None:
    assert sharpe_evidence(np.full((1, 50), 0.01)) is None
    assert sharpe_evidence(np.array([[0.01, 0.02]])) is None
