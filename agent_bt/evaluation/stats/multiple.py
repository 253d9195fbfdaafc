"""Several arms against one baseline: p-values and levels that keep the chance of any false verdict."""

from __future__ import annotations

from collections.abc import Sequence


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down (1979), in the given order: at most alpha exactly where Holm rejects."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """Compute the level at which Holm's procedure (1979) decides each hypothesis, in the given order.

    The arm of rank k (from 0) is tested at alpha / (m - k) until one is not rejected; that one's level holds for all
    that come after. An interval with confidence 1 - level so excludes 0 exactly where Holm rejects.

    Args:
        p_values: of the hypotheses.
        alpha: chance that any true one is rejected.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    levels = [0.0] * len(p_values)
    level, rejecting = alpha, True
    for rank, at in enumerate(order):
        if rejecting:
            level = alpha / (len(order) - rank)
            rejecting = p_values[at] <= level
        levels[at] = level
    return levels
