"""Judges the best of many combinations: deflated Sharpe ratio and probability of backtest overfitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent_bt.evaluation.metrics import DAYS_PER_YEAR
from agent_bt.evaluation.stats.pbo import backtest_overfitting
from agent_bt.evaluation.stats.sharpe import expected_maximum, sharpe_evidence
from agent_bt.experiments.sweep.measures import sharpe_per_day

_MOST_ARMS = 10_000
_BLOCKS = 10
_YEAR = math.sqrt(DAYS_PER_YEAR)


def judge_best(returns: np.ndarray, all_returns: Sequence[np.ndarray], *, trials: int) -> dict[str, Any]:
    """Return the evidence for the best of many (Bailey & Lopez de Prado 2014; Bailey et al. 2015 for `pbo`).

    Args:
        returns: daily returns of the best, float64 (D,).
        all_returns: of every combination tried, including the best.
        trials: number of variants tried on this data, as the registry counts; at least those of this sweep.

    Returns:
        `trials`; `sharpe` of the best, annualised; `expected_best`, the expected maximum Sharpe ratio of that number
        of variants without skill, annualised; `psr`, `dsr`; `pbo`, the fraction of splits of the days in which the
        best of one half is below the median in the other. None where there is too little data.
    """
    ratios = [ratio for each in all_returns if (ratio := sharpe_per_day(each)) is not None]
    trials = max(trials, len(all_returns))
    variance = float(np.var(ratios, ddof=1)) if len(ratios) > 1 else None
    sharpe = sharpe_per_day(returns)
    evidence = sharpe_evidence(returns[None, :], trials=trials, trial_variance=variance)
    return {
        "trials": trials,
        "days": len(returns),
        "sharpe": None if sharpe is None else sharpe * _YEAR,
        "trial_sharpe_deviation": None if variance is None else math.sqrt(variance) * _YEAR,
        "expected_best": None if variance is None else math.sqrt(variance) * expected_maximum(trials) * _YEAR,
        "psr": None if evidence is None else evidence.psr,
        "dsr": None if evidence is None else evidence.dsr,
        "pbo": _overfitting(all_returns),
    }


def sentence(evidence: dict[str, Any]) -> str:
    """Return the evidence as a sentence."""
    dsr, trials = evidence["dsr"], evidence["trials"]
    tried = "one variant was" if trials == 1 else f"{trials:,} variants were"
    if dsr is None or evidence["sharpe"] is None:
        return "The best never traded, or there are too few days: its Sharpe ratio is undefined."
    if evidence["expected_best"] is None:
        return f"{tried} tried on this data; the probability that the true Sharpe ratio is above 0 is {dsr:.0%}."
    luck = (
        f"{tried} tried on this data. The best of that many variants without skill is expected to show a Sharpe ratio "
        f"of {evidence['expected_best']:.2f}; the best here shows {evidence['sharpe']:.2f}. "
    )
    if evidence["sharpe"] <= 0.0:
        return luck + "Even the best lost money."
    sure = luck + f"The deflated Sharpe ratio, the probability of skill after that many trials, is {dsr:.1%}"
    return sure + (
        "." if dsr >= 0.95 else ": below the usual 95%." if dsr >= 0.5 else ": chance alone explains the result."
    )


def _overfitting(all_returns: Sequence[np.ndarray]) -> float | None:
    """Return the probability of backtest overfitting; None for one variant, too many, too few or unequal days."""
    days = {len(each) for each in all_returns}
    if len(days) != 1 or not 2 <= len(all_returns) <= _MOST_ARMS:
        return None
    blocks = min(_BLOCKS, days.pop() // 4 // 2 * 2)
    matrix = np.column_stack(all_returns)
    if blocks < 4 or not np.isfinite(matrix).all():
        return None
    return backtest_overfitting(matrix, blocks=blocks).probability
