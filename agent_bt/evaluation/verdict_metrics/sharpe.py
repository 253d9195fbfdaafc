"""The annualised Sharpe ratio of daily returns, and its influence function."""

from __future__ import annotations

import math

import numpy as np

from agent_bt.evaluation.metrics import DAYS_PER_YEAR
from agent_bt.evaluation.stats.metric import Metric, register_metric

FLAT = 1e-12
"""A spread of returns below this is rounding noise."""


def sharpe_values(returns: np.ndarray) -> np.ndarray:
    """Return the annualised Sharpe ratio (ddof = 1, sqrt(365)) of each row plus its influence; float64 (R, n).

    SR + sqrt(365) (z - SR_1 (z^2 - 1) / 2) with z the standardised returns (Lo 2002, as an M-estimator). A row without
    variance counts as 0.
    """
    n = returns.shape[1]
    mean = np.mean(returns, axis=1, keepdims=True)
    spread = np.std(returns, axis=1, keepdims=True)
    flat = spread <= FLAT
    scores = np.where(flat, 0.0, (returns - mean) / np.where(flat, 1.0, spread))
    ratio = np.where(flat, 0.0, mean / np.where(flat, 1.0, spread))
    influence = scores - ratio * (scores**2 - ~flat) / 2.0
    values: np.ndarray = math.sqrt(DAYS_PER_YEAR) * (ratio * math.sqrt((n - 1) / n) + influence)
    return values


register_metric(Metric(name="sharpe", unit="Sharpe ratio, annualised", daily=True, values=sharpe_values))
