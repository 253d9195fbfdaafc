"""Two arms compared decision by decision: flips, agreement, what the flips earned, failures and costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

ACTIONS = ("BUY", "SELL", "HOLD")
"""The rows (baseline) and columns (arm) of every matrix here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of `count` cases, with Wilson's limits."""

    share: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two arms decide alike: the share of equal actions, and Cohen's kappa (None if both never vary)."""

    rate: Rate
    kappa: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipResults:
    """Arm minus baseline, added up over the intervals after each kind of flip.

    `by_flip`: float64 (3, 3), rows the baseline's action, columns the arm's; the diagonal is 0. `before`: what
    differed before the first flip. All of it together is the whole difference.
    """

    by_flip: np.ndarray
    before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PerDecision:
    """A quantity per decision, in its own unit. `unknown` decisions had no value and count nowhere else."""

    total: float
    mean: float | None
    median: float | None
    p95: float | None
    unknown: int


def flip_matrix(baseline: Sequence[str], arm: Sequence[str]) -> np.ndarray:
    """Count each pair of actions on the same decisions.

    Args:
        baseline: its actions, each one of `ACTIONS`.
        arm: the other arm's, at the same decisions.

    Returns:
        int64 (3, 3), rows the baseline's actions, columns the arm's.

    Raises:
        ValueError: the arms differ in length, or an action is none of `ACTIONS`.
    """
    first, second = _codes(baseline, arm)
    counts = np.zeros((3, 3), np.int64)
    np.add.at(counts, (first, second), 1)
    return counts


def agreement(matrix: np.ndarray, *, alpha: float = 0.05) -> Agreement:
    """Compute the agreement of a flip matrix with its confidence limits; kappa by Cohen (1960).

    Args:
        matrix: as `flip_matrix` returns it, int (3, 3).
        alpha: 1 - confidence of the limits.

    Raises:
        ValueError: there is no decision.
    """
    total = int(matrix.sum())
    rate = wilson_rate(int(np.trace(matrix)), total, alpha=alpha)
    expected = float(matrix.sum(axis=0) @ matrix.sum(axis=1)) / total**2
    kappa = (rate.share - expected) / (1.0 - expected) if expected < 1.0 else None
    return Agreement(rate=rate, kappa=kappa)


def attribute_flips(baseline: Sequence[str], arm: Sequence[str], differences: np.ndarray) -> FlipResults:
    """Credit each interval's difference to the last flip at or before it.

    A flip keeps working until the arms agree again on what they hold, and a later flip takes over from it; that is
    why the difference of an interval without a flip of its own belongs to the flip before.

    Args:
        baseline: actions of the baseline, D of them, in order of time.
        arm: actions of the arm on the same decisions.
        differences: arm minus baseline from each decision to the next, float64 (D,), any unit that adds up.

    Raises:
        ValueError: lengths differ, or an action is none of `ACTIONS`.
    """
    first, second = _codes(baseline, arm)
    if len(differences) != len(first):
        raise ValueError(f"{len(first)} decisions and {len(differences)} differences: give one for each decision")
    last = np.maximum.accumulate(np.where(first != second, np.arange(len(first)), -1))
    after = last >= 0
    by_flip = np.zeros((3, 3))
    np.add.at(by_flip, (first[last[after]], second[last[after]]), differences[after])
    return FlipResults(by_flip=by_flip, before=float(np.sum(differences[~after])))


def wilson_rate(cases: int, total: int, *, alpha: float = 0.05) -> Rate:
    """Compute a fraction with its score interval (Wilson 1927); right for 0 and for all, too.

    Args:
        cases: number of cases.
        total: number of what they are a fraction of.
        alpha: 1 - confidence of the interval.

    Raises:
        ValueError: `total` is 0, or below `cases`.
    """
    if not 0 <= cases <= total or total < 1:
        raise ValueError(f"cases must be from 0 to total, and total at least 1, got {cases} of {total}")
    z = NormalDist().inv_cdf(1.0 - alpha / 2.0)
    share = cases / total
    centre = share + z**2 / (2 * total)
    reach = z * math.sqrt(share * (1.0 - share) / total + z**2 / (4 * total**2))
    bottom = 1.0 + z**2 / total
    low = 0.0 if cases == 0 else (centre - reach) / bottom
    high = 1.0 if cases == total else (centre + reach) / bottom
    return Rate(share=share, low=low, high=high, count=total)


def per_decision(values: np.ndarray) -> PerDecision:
    """Summarise a cost or a latency per decision; float64 (D,), NaN where unknown (an unpriced call, say)."""
    known = values[np.isfinite(values)]
    if not len(known):
        return PerDecision(total=0.0, mean=None, median=None, p95=None, unknown=len(values))
    return PerDecision(
        total=float(np.sum(known)),
        mean=float(np.mean(known)),
        median=float(np.median(known)),
        p95=float(np.quantile(known, 0.95)),
        unknown=len(values) - len(known),
    )


def _codes(baseline: Sequence[str], arm: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    if len(baseline) != len(arm):
        raise ValueError(f"{len(baseline)} and {len(arm)} decisions: compare arms on the same decisions")
    for action in (*baseline, *arm):
        if action not in ACTIONS:
            raise ValueError(f"{action!r} is none of {', '.join(ACTIONS)}")
    codes = {action: code for code, action in enumerate(ACTIONS)}
    return np.array([codes[a] for a in baseline], np.int64), np.array([codes[a] for a in arm], np.int64)
