"""The annualised Sortino ratio of daily returns, and its influence function."""

from __future__ import annotations

import math

import numpy as np

from agent_bt.evaluation.metrics import DAYS_PER_YEAR
from agent_bt.evaluation.stats.metric import Metric, register_metric

FLAT = 1e-12
"""A spread of returns below this is rounding noise."""


def sortino_values(returns: np.ndarray) -> np.ndarray:
    """Return the annualised Sortino ratio (target 0, downside deviation over all n) of each row plus its influence.

    A row without a losing period counts as 0: its ratio does not exist.
    """
    mean = np.mean(returns, axis=1, keepdims=True)
    losses = np.minimum(returns, 0.0) ** 2
    square = np.mean(losses, axis=1, keepdims=True)
    flat = square <= FLAT**2
    downside = np.sqrt(np.where(flat, 1.0, square))
    ratio = mean / downside
    influence = (returns - mean) / downside - ratio * (losses - square) / (2.0 * downside**2)
    values: np.ndarray = np.where(flat, 0.0, math.sqrt(DAYS_PER_YEAR) * (ratio + influence))
    return values


register_metric(Metric(name="sortino", unit="Sortino ratio, annualised", daily=True, values=sortino_values))
