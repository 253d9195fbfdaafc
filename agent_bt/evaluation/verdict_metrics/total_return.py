"""The compounded return of a day, in basis points: the mean of log returns."""

from __future__ import annotations

import numpy as np

from agent_bt.evaluation.stats.metric import Metric, register_metric

register_metric(
    Metric(
        name="total_return", unit="bps a day, compounded", daily=False, values=lambda returns: 1e4 * np.log1p(returns)
    )
)
