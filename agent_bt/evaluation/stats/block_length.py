"""Chooses the mean block length of a stationary bootstrap from the data."""

from __future__ import annotations

import math

import numpy as np


def optimal_block_length(values: np.ndarray) -> float:
    """Compute the block length that minimises the error of the stationary bootstrap's variance of the mean.

    Politis & White (2004) with the correction of Patton, Politis & White (2009): a flat-top window over the
    autocovariances, as wide as twice the last lag before a row of insignificant ones, gives
    b = (G^2 n / sigma^4)^(1/3), at most min(3 sqrt(n), n / 3). The tuning constants are those of `arch`.

    Args:
        values: float64 (n,), a stationary series, n >= 2.

    Returns:
        Mean block length in observations, >= 1; 1 for a constant series.
    """
    n = len(values)
    centred = values - np.mean(values)
    longest = max(1.0, math.ceil(min(3.0 * math.sqrt(n), n / 3.0)))
    row = max(5, int(math.log10(n)))
    last_lag = min(math.ceil(math.sqrt(n)) + row, n - 2)
    covariances, correlations = _moments(centred, last_lag)
    if not covariances[0] > 0.0:
        return 1.0

    band = 2.0 * math.sqrt(math.log10(n) / n)
    width = last_lag
    for lag in range(row, last_lag + 1):
        if np.all(correlations[lag - row : lag] < band):
            width = min(2 * max(lag - row, 1), last_lag)
            break

    lags = np.arange(1, width + 1)
    window = np.minimum(1.0, 2.0 * (1.0 - lags / width)) if width else np.zeros(0)
    slope = 2.0 * float(np.sum(window * lags * covariances[1 : width + 1]))
    long_run = float(covariances[0] + 2.0 * np.sum(window * covariances[1 : width + 1]))
    if long_run == 0.0:
        return longest
    length = (slope**2 / long_run**2 * n) ** (1.0 / 3.0)
    return float(min(max(length, 1.0), longest))


def _moments(centred: np.ndarray, last_lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Autocovariances, and absolute autocorrelations scaled by the parts that overlap, of the lags 0..last_lag."""
    n = len(centred)
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    covariances, correlations = np.zeros(last_lag + 1), np.zeros(last_lag + 1)
    for lag in range(last_lag + 1):
        product = float(centred[lag:] @ centred[: n - lag])
        energy = (squares[n] - squares[lag + 1]) * squares[n - lag - 1]
        covariances[lag] = product / n
        correlations[lag] = abs(product) / math.sqrt(energy) if energy > 0.0 else 0.0
    return covariances, correlations
