"""Values over time of a metric, summed up to units that can be resampled."""

from __future__ import annotations

import math

import numpy as np

from agent_bt.core.clock import DAY
from agent_bt.evaluation.stats.bootstrap import sum_units
from agent_bt.evaluation.stats.metric import Metric

BPS = 1e4
"""Basis points of 1."""

MAX_UNITS = 4096
"""Returns of neighbouring bars are added up until there are at most this many units to resample."""


def values_over_time(metric: Metric, returns: np.ndarray, times: np.ndarray, *, bars_per_decision: int) -> np.ndarray:
    """Return values whose mean over the last axis is the metric of each replicate.

    Bars are summed up to decisions, and further to `MAX_UNITS` (see `bootstrap.sum_units`): within a decision nothing
    is decided, and weak dependence over many bars, which a block length chosen on minutes misses, shows.

    Args:
        metric: see `find_metric`.
        returns: float64 (R, T), simple return of each bar, one row for each replicate.
        times: close times, int64 (T,), UTC us, ascending.
        bars_per_decision: bars from one decision to the next, >= 1.

    Returns:
        float64 (R, n), in the metric's unit.
    """
    if metric.daily:
        return metric.values(daily_returns(returns, times))
    bars = returns.shape[1]
    unit = bars_per_decision * math.ceil(bars / (bars_per_decision * MAX_UNITS))
    sums = sum_units(metric.values(returns), unit)
    scaled: np.ndarray = sums * (bars_per_day(times) * sums.shape[1] / bars)
    return scaled


def daily_returns(returns: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Compound the bars of each UTC day; a bar that closes at 00:00 ends the day before.

    Args:
        returns: of each bar, fractions, float64 (..., T).
        times: close of each bar, UTC us, int64 (T,).

    Returns:
        float64 (..., D).
    """
    compounded: np.ndarray = np.multiply.reduceat(1.0 + returns, day_starts(times), axis=-1) - 1.0
    return compounded


def day_starts(times: np.ndarray) -> np.ndarray:
    """Return the row of the first bar of each UTC day; int64 (D,)."""
    return np.concatenate([[0], np.flatnonzero(np.diff((times - 1) // DAY)) + 1])


def bars_per_day(times: np.ndarray) -> float:
    """Return bars per day without gaps: a day over the shortest step of close times, int64 (T,), T >= 2, UTC us."""
    return DAY / float(np.min(np.diff(times)))
