# mypy: allow-untyped-defs, allow-untyped-calls
"""The stationary bootstrap of means: blocks of random length, summed in constant time through prefix sums.

A resample of Politis & Romano (1994) is a row of blocks that start anywhere, have geometric lengths and wrap around
the end. Its mean needs only the sum of each block, and that is one difference of prefix sums: the work grows with the
number of blocks, n / block length, not with n. Each resample has its own counter-based stream of random numbers
(splitmix64 of seed and index), so that any one of them can be drawn again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent_bt.core.jit import njit


@dataclass(frozen=True, slots=True, kw_only=True)
class Resamples:
    """What every resample found: its mean minus the mean of the data, and its own standard error; float64 (B,)."""

    deviations: np.ndarray
    errors: np.ndarray


def resample_mean(values: np.ndarray, *, block_length: float, resamples: int, seed: int) -> Resamples:
    """Resample the mean of one series by the stationary bootstrap, with a standard error inside each resample.

    The error of a resample comes from its own blocks: sqrt(sum((S_i - m L_i)^2)) / n with block sums S_i, lengths
    L_i and the resample's mean m (Goetze & Kuensch 1996, for blocks of random length). On average it equals
    `mean_error` of the data, so the ratio of deviation and error is the bootstrap's Student statistic.

    Args:
        values: float64 (n,).
        block_length: mean block length in observations, >= 1.
        resamples: how many, B.
        seed: any integer; equal seeds give equal resamples.
    """
    deviations, errors = np.empty(resamples), np.empty(resamples)
    prefix = _prefix_sums(values[:, None])[:, 0].copy()
    _resample_mean(prefix, len(values), float(block_length), np.uint64(seed % 2**64), deviations, errors)
    return Resamples(deviations=deviations, errors=errors)


def resample_means(values: np.ndarray, *, block_length: float, resamples: int, seed: int) -> np.ndarray:
    """Resample the means of several series with the same blocks, minus the means of the data; float64 (B, k).

    Args:
        values: float64 (n, k): k series over the same n observations.
        block_length: mean block length in observations, >= 1.
        resamples: how many, B.
        seed: any integer; equal seeds give equal resamples.
    """
    deviations = np.zeros((resamples, values.shape[1]))
    _resample_means(_prefix_sums(values), len(values), float(block_length), np.uint64(seed % 2**64), deviations)
    return deviations


def mean_error(values: np.ndarray, block_length: float) -> np.ndarray | float:
    """Compute the standard error of the mean, the stationary bootstrap's in the limit of infinitely many resamples.

    Politis & Romano (1994), lemma 1: the variance is 1/n sum of circular autocovariances with weights
    (1 - i/n) (1 - 1/b)^i on both sides.

    Args:
        values: float64 (..., n); the last axis is time.
        block_length: mean block length in observations, >= 1.

    Returns:
        float64 (...).
    """
    n = values.shape[-1]
    centred = values - np.mean(values, axis=-1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, axis=-1)) ** 2
    covariances = np.fft.irfft(spectrum, n=n, axis=-1) / n
    lags = np.arange(1, n)
    weights = np.concatenate([[1.0], 2.0 * (1.0 - lags / n) * (1.0 - 1.0 / block_length) ** lags])
    errors = np.sqrt(np.maximum(covariances @ weights, 0.0) / n)
    return errors if values.ndim > 1 else float(errors)


def sum_units(values: np.ndarray, bars: int) -> np.ndarray:
    """Sum neighbouring observations; the last sum may hold fewer.

    A mean over bars is the sum of these sums over n, so nothing of it is lost. A block bootstrap of the sums is one
    of the bars whose blocks begin and end on this grid: dependence inside a unit is kept whole, and only the number
    of units limits how well the variance is known (to about 1 part in sqrt(m / 2)).

    Args:
        values: observations in time, float64 (..., n).
        bars: how many go into a sum.

    Returns:
        float64 (..., m), m = ceil(n / bars).
    """
    return np.add.reduceat(values, np.arange(0, values.shape[-1], bars), axis=-1)


def _prefix_sums(values: np.ndarray) -> np.ndarray:
    """Prefix sums (2n + 1, k) of the centred series, twice around, so that a wrapping block is one difference."""
    centred = values - np.mean(values, axis=0)
    prefix = np.zeros((2 * len(values) + 1, values.shape[1]))
    np.cumsum(np.concatenate([centred, centred]), axis=0, out=prefix[1:])
    return prefix


@njit
def _mixed(counter):
    """splitmix64: a bijection of 64-bit integers whose outputs at consecutive counters pass as random."""
    z = counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit
def _length(bits, log_stay):
    """The geometric length of 32 random bits, by inversion."""
    return 1.0 + math.floor(math.log((float(bits) + 0.5) / 4294967296.0) / log_stay)


@njit
def _lengths(block_length):
    """Lengths by the first 12 of 32 random bits where those decide it alone, else 0: spares most logarithms."""
    table = np.zeros(4096, np.int64)
    if block_length <= 1.0:
        return table + 1, -np.inf
    log_stay = math.log1p(-1.0 / block_length)
    for i in range(4096):
        first = _length(i << 20, log_stay)
        if first == _length((i << 20) + 0xFFFFF, log_stay):
            table[i] = int(first)
    return table, log_stay


@njit
def _block(counter, n, table, log_stay, left):
    """Start and length of the next block: uniform, and geometric cut to what is left; 32 random bits for each."""
    bits = _mixed(counter)
    start = int(((bits >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
    bits &= np.uint64(0xFFFFFFFF)
    length = table[bits >> np.uint64(20)]
    if length == 0:
        length = int(min(_length(bits, log_stay), float(left)))
    return start, min(length, left)


@njit
def _resample_mean(prefix, n, block_length, seed, deviations, errors):
    table, log_stay = _lengths(block_length)
    for b in range(len(deviations)):
        counter = _mixed(_mixed(seed + np.uint64(1)) + np.uint64(b))
        left = n
        total, squares, cross, lengths = 0.0, 0.0, 0.0, 0.0
        while left > 0:
            counter += np.uint64(1)
            start, length = _block(counter, n, table, log_stay, left)
            # One block of everything is the data: its deviation is exactly 0, and not what rounding left of it.
            block = prefix[start + length] - prefix[start] if length < n else 0.0
            total += block
            squares += block * block
            cross += block * length
            lengths += float(length) * length
            left -= length
        mean = total / n
        deviations[b] = mean
        errors[b] = math.sqrt(max(squares - 2.0 * mean * cross + mean * mean * lengths, 0.0)) / n


@njit
def _resample_means(prefix, n, block_length, seed, deviations):
    table, log_stay = _lengths(block_length)
    for b in range(deviations.shape[0]):
        counter = _mixed(_mixed(seed + np.uint64(1)) + np.uint64(b))
        left = n
        while left > 0:
            counter += np.uint64(1)
            start, length = _block(counter, n, table, log_stay, left)
            for k in range(deviations.shape[1]):
                deviations[b, k] += prefix[start + length, k] - prefix[start, k]
            left -= length
        for k in range(deviations.shape[1]):
            deviations[b, k] /= n
