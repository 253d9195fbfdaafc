"""The metrics that a verdict can be about, each as values over time whose mean is the metric.

A mean return is such a mean by itself. A ratio becomes one through its influence function: the metric plus what each
observation adds to it, to first order. Everything that is known about means (blocks, replicates, power) so holds for
every metric of the table; a metric is added by adding its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agent_bt.core.clock import DAY
from agent_bt.evaluation.metrics import DAYS_PER_YEAR
from agent_bt.evaluation.stats.bootstrap import sum_units

BPS = 1e4
MAX_UNITS = 4096
"""Returns of neighbouring bars are added up until there are at most so many units to resample."""
_FLAT = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A row of the table. `values` maps returns (R, n) to values (R, n) whose mean over time is the metric of each
    replicate; larger is better. `daily`: it wants returns of UTC days, else of bars, and then its values add up."""

    name: str
    unit: str
    daily: bool
    values: Callable[[np.ndarray], np.ndarray]


def sharpe_values(returns: np.ndarray) -> np.ndarray:
    """Annualised Sharpe ratio (ddof = 1, sqrt(365)) of each row and its influence; float64 (R, n) to (R, n).

    SR + sqrt(365) (z - SR_1 (z^2 - 1) / 2) with z the standardised returns (Lo 2002, as an M-estimator). A row without
    variance counts as 0.
    """
    n = returns.shape[1]
    mean = np.mean(returns, axis=1, keepdims=True)
    spread = np.std(returns, axis=1, keepdims=True)
    flat = spread <= _FLAT
    scores = np.where(flat, 0.0, (returns - mean) / np.where(flat, 1.0, spread))
    ratio = np.where(flat, 0.0, mean / np.where(flat, 1.0, spread))
    influence = scores - ratio * (scores**2 - ~flat) / 2.0
    values: np.ndarray = math.sqrt(DAYS_PER_YEAR) * (ratio * math.sqrt((n - 1) / n) + influence)
    return values


def sortino_values(returns: np.ndarray) -> np.ndarray:
    """Annualised Sortino ratio (target 0, downside deviation over all n) of each row and its influence.

    A row without a losing period counts as 0: its ratio does not exist.
    """
    mean = np.mean(returns, axis=1, keepdims=True)
    losses = np.minimum(returns, 0.0) ** 2
    square = np.mean(losses, axis=1, keepdims=True)
    flat = square <= _FLAT**2
    downside = np.sqrt(np.where(flat, 1.0, square))
    ratio = mean / downside
    influence = (returns - mean) / downside - ratio * (losses - square) / (2.0 * downside**2)
    values: np.ndarray = np.where(flat, 0.0, math.sqrt(DAYS_PER_YEAR) * (ratio + influence))
    return values


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="mean_return", unit="bps a day", daily=False, values=lambda returns: BPS * returns),
        Metric(name="total_return", unit="bps a day, compounded", daily=False, values=lambda r: BPS * np.log1p(r)),
        Metric(name="sharpe", unit="Sharpe ratio, annualised", daily=True, values=sharpe_values),
        Metric(name="sortino", unit="Sortino ratio, annualised", daily=True, values=sortino_values),
    )
}


def find_metric(name: str) -> Metric:
    """The metric of this name.

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    if name not in METRICS:
        raise ValueError(f"no metric {name!r}; there is {', '.join(METRICS)}")
    return METRICS[name]


def values_over_time(metric: Metric, returns: np.ndarray, times: np.ndarray, *, bars_per_decision: int) -> np.ndarray:
    """Values whose mean over the last axis is the metric of each replicate.

    Bars are summed up to decisions, and further to `MAX_UNITS` (see `bootstrap.sum_units`): within a decision nothing
    is decided, and weak dependence over many bars, which a block length chosen on minutes misses, shows.

    Args:
        metric: a row of the table.
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
    """Compound the bars of each UTC day: float64 (..., T) to (..., D); a bar closing at 00:00 ends the day before."""
    compounded: np.ndarray = np.multiply.reduceat(1.0 + returns, day_starts(times), axis=-1) - 1.0
    return compounded


def day_starts(times: np.ndarray) -> np.ndarray:
    """Row of the first bar of each UTC day; int64 (D,)."""
    return np.concatenate([[0], np.flatnonzero(np.diff((times - 1) // DAY)) + 1])


def bars_per_day(times: np.ndarray) -> float:
    """Bars in a day without gaps: a day over the shortest step between close times, int64 (T,), T >= 2, UTC us."""
    return DAY / float(np.min(np.diff(times)))
