"""Probabilistic and deflated Sharpe ratio: how sure is it that a Sharpe ratio is real, after so many trials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_EULER = 0.5772156649015329
_FLAT = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class SharpeEvidence:
    """Probabilities that the true Sharpe ratio is above 0 (`psr`), and above the best of the trials' luck (`dsr`)."""

    psr: float
    dsr: float


def probabilistic_sharpe(
    sharpe: float, *, observations: int, skew: float, kurtosis: float, benchmark: float = 0.0
) -> float:
    """Compute the probability that the true Sharpe ratio exceeds `benchmark` (Bailey & Lopez de Prado 2012).

    Phi((SR - SR*) sqrt(T - 1) / sqrt(1 - skew SR + (kurtosis - 1) / 4 SR^2)).

    Args:
        sharpe: per period, not annualised.
        observations: number of returns, T >= 2.
        skew: of the returns.
        kurtosis: of the returns, not excess: 3 for a normal distribution.
        benchmark: per period.
    """
    scale = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    distance = (sharpe - benchmark) * math.sqrt(observations - 1)
    if scale <= 0.0:
        return 0.5 if distance == 0.0 else float(distance > 0.0)
    return _NORMAL.cdf(distance / math.sqrt(scale))


def expected_maximum(trials: int) -> float:
    """Approximate the expected maximum of `trials` independent standard normals (Bailey & Lopez de Prado 2014).

    (1 - g) z(1 - 1/N) + g z(1 - 1/(N e)), g Euler's constant; 0 for one trial.

    Raises:
        ValueError: there is no trial.
    """
    if trials < 1:
        raise ValueError(f"{trials} trials: the run that is judged is itself one")
    if trials == 1:
        return 0.0
    upper = _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    beyond = _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return (1.0 - _EULER) * upper + _EULER * beyond


def deflated_sharpe(
    sharpe: float, *, observations: int, skew: float, kurtosis: float, trials: int, trial_variance: float
) -> float:
    """Compute the probability that the true Sharpe ratio exceeds what the best of `trials` has by chance.

    Bailey & Lopez de Prado (2014): `probabilistic_sharpe` against sqrt(trial variance) x `expected_maximum`.

    Args:
        sharpe: per period, not annualised.
        observations: number of returns, >= 2.
        skew: of the returns.
        kurtosis: of the returns, not excess.
        trials: how many variants were tried, this one included.
        trial_variance: variance of the trials' Sharpe ratios, per period.
    """
    benchmark = math.sqrt(trial_variance) * expected_maximum(trials)
    return probabilistic_sharpe(sharpe, observations=observations, skew=skew, kurtosis=kurtosis, benchmark=benchmark)


def sharpe_evidence(
    returns: np.ndarray, *, trials: int = 1, trial_variance: float | None = None
) -> SharpeEvidence | None:
    """Compute the probabilistic and deflated Sharpe ratio of one arm, the mean over its replicates.

    Args:
        returns: float64 (R, n), returns per period, one row for each replicate.
        trials: how many variants were tried, this one included.
        trial_variance: variance of their Sharpe ratios, per period; None takes 1 / (n - 1), which is what estimates
            of worthless, normal strategies have.

    Returns:
        None for fewer than 3 periods, or where a replicate has no variance.
    """
    n = returns.shape[1]
    if n < 3:
        return None
    mean = np.mean(returns, axis=1, keepdims=True)
    spread = np.std(returns, axis=1, keepdims=True)
    if np.any(spread <= _FLAT):
        return None
    scores = (returns - mean) / spread
    ratios = mean[:, 0] / np.std(returns, axis=1, ddof=1)
    skews, kurtoses = np.mean(scores**3, axis=1), np.mean(scores**4, axis=1)
    variance = 1.0 / (n - 1) if trial_variance is None else trial_variance
    psr, dsr = [], []
    for sharpe, skew, kurtosis in zip(ratios.tolist(), skews.tolist(), kurtoses.tolist(), strict=True):
        psr.append(probabilistic_sharpe(sharpe, observations=n, skew=skew, kurtosis=kurtosis))
        dsr.append(
            deflated_sharpe(
                sharpe, observations=n, skew=skew, kurtosis=kurtosis, trials=trials, trial_variance=variance
            )
        )
    return SharpeEvidence(psr=float(np.mean(psr)), dsr=float(np.mean(dsr)))
