"""The mean return of a day, in basis points."""

from __future__ import annotations

from agent_bt.evaluation.stats.metric import Metric, register_metric

register_metric(Metric(name="mean_return", unit="bps a day", daily=False, values=lambda returns: 1e4 * returns))
