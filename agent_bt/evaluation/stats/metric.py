"""What a verdict can be about: metrics by name, each a module of `evaluation.verdict_metrics`, or by import path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent_bt.core.errors import ConfigError
from agent_bt.core.extensions import ExtensionPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric as values over time whose mean is the metric.

    A mean return is such a mean by itself. A ratio becomes one through its influence function: the metric plus what
    each observation adds to it, to first order. Everything that is known about means (blocks, replicates, power) holds
    for every metric in this form.

    Attributes:
        name: what `metric` of an experiment says.
        unit: of its values, for tables: "bps a day".
        daily: whether `values` takes returns of UTC days; else of bars, and then its values add up.
        values: maps simple returns, float64 (R, n), one row for each replicate, to values (R, n) whose mean over time
            is the metric of each replicate; larger is better.
    """

    name: str
    unit: str
    daily: bool
    values: Callable[[np.ndarray], np.ndarray]


METRICS: ExtensionPoint[Any] = ExtensionPoint("metric", "agent_bt.evaluation.verdict_metrics")


def register_metric(metric: Metric) -> Metric:
    """Make a metric available by its name; the module of `evaluation.verdict_metrics` that calls it has that name."""
    registered: Metric = METRICS.register(metric.name)(metric)
    return registered


def find_metric(name: str) -> Metric:
    """Return the metric of this name, or the one at an import path.

    Args:
        name: such as `sharpe`, or `module:NAME` for a `Metric` of the user's own.

    Raises:
        ConfigError: there is none; the message lists what there is, or says what is wrong with the import path.
    """
    found = METRICS.load(name)
    if not isinstance(found, Metric):
        raise ConfigError(f"metric {name} must be a Metric of agent_bt.evaluation.stats.metric, got {found!r}")
    return found
