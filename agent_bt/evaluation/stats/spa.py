"""Hansen's test for superior predictive ability: is the best of many arms better than the baseline at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent_bt.evaluation.stats.block_length import optimal_block_length
from agent_bt.evaluation.stats.bootstrap import mean_error, resample_means


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperiorAbility:
    """P-values of "no arm is better than the baseline".

    `consistent` is the one to read; `lower` and `upper` bound it: they count all bad arms out, or all in. `best` is
    the column of the arm with the largest statistic.
    """

    lower: float
    consistent: float
    upper: float
    best: int


def superior_ability(
    differences: np.ndarray,
    *,
    resamples: int = 10_000,
    seed: int,
    block_length: float | None = None,
    studentise: bool = True,
) -> SuperiorAbility:
    """Test whether any arm beats the baseline (Hansen 2005).

    The statistic is the largest mean difference over its error (`mean_error`). The resamples are centred at 0 for each
    arm, but arms whose mean is below -error sqrt(2 log log n) are too bad to matter for the consistent p-value.

    Args:
        differences: float64 (n, k): arm minus baseline, k arms, larger is better.
        resamples: how many.
        seed: any integer; equal seeds give equal p-values.
        block_length: mean block length in observations; None takes the longest that an arm asks for.
        studentise: False compares the means as they are, as `arch` does.

    Raises:
        ValueError: fewer than 3 observations (log log n has no root), or no arm.
    """
    n, arms = differences.shape
    if n < 3 or arms < 1:
        raise ValueError(f"differences of shape {differences.shape}: the test needs 3 observations and an arm")
    length = block_length or max(optimal_block_length(column) for column in differences.T)
    means = np.mean(differences, axis=0)
    errors = np.atleast_1d(mean_error(np.ascontiguousarray(differences.T), length))
    # An arm equal to the baseline has neither mean nor error: it can't be the best, and decides nothing.
    scale = np.where(errors > 0.0, errors, 1.0) if studentise else np.ones(arms)
    deviations = resample_means(differences, block_length=length, resamples=resamples, seed=seed) / scale
    statistics = means / scale
    largest = max(0.0, float(np.max(statistics))) if studentise else float(np.max(statistics))
    threshold = -errors * math.sqrt(max(0.0, 2.0 * math.log(math.log(n)))) / scale

    # A resample deviates from the data's mean; what is not centred away of that mean is added back.
    kept = {
        "lower": np.minimum(statistics, 0.0),
        "consistent": np.where(statistics >= threshold, 0.0, statistics),
        "upper": np.zeros(arms),
    }
    p_values = {}
    for name, offset in kept.items():
        drawn = np.max(deviations + offset, axis=1)
        if studentise:
            drawn = np.maximum(drawn, 0.0)
        p_values[name] = float(1 + np.sum(drawn >= largest)) / (1 + resamples)
    return SuperiorAbility(best=int(np.argmax(statistics)), **p_values)
