"""The probability of backtest overfitting: how often the best arm of one half of time fails in the other half."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

Score = Literal["sharpe", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfitting:
    """What combinatorially symmetric cross-validation found.

    `probability`: share of splits whose winner is no better than the median out of sample. `logits`: of the winner's
    relative rank out of sample, float64 (splits,). `blocks`: number of blocks that time was cut into.
    """

    probability: float
    logits: np.ndarray
    blocks: int


def backtest_overfitting(returns: np.ndarray, *, blocks: int | None = None, score: Score = "sharpe") -> Overfitting:
    """Estimate the probability of backtest overfitting by CSCV (Bailey, Borwein, Lopez de Prado & Zhu 2015).

    Time is cut into equal blocks; every choice of half of them is once the sample in which the best arm is picked,
    the other half is where its rank among all arms is looked up. Equal scores share their mean rank.

    Args:
        returns: float64 (n, k): k >= 2 arms over the same n periods; the first n mod blocks periods are left out.
        blocks: even; None takes 16, or as many as leave 4 periods to a block.
        score: what ranks the arms; an arm without variance has a Sharpe ratio of 0.

    Raises:
        ValueError: fewer than 2 arms, an odd number of blocks, or too few periods.
    """
    n, arms = returns.shape
    count = min(16, n // 4 // 2 * 2) if blocks is None else blocks
    if arms < 2 or count < 2 or count % 2 or n < 2 * count:
        raise ValueError(
            f"{arms} arms, {n} periods, {count} blocks: needs 2 arms, an even number of blocks, 2 periods in each"
        )
    size = n // count
    cut = returns[n - size * count :].reshape(count, size, arms)
    sums, squares = cut.sum(axis=1), np.square(cut).sum(axis=1)

    chosen = np.array(list(combinations(range(count), count // 2)))
    inside = np.zeros((len(chosen), count))
    np.put_along_axis(inside, chosen, 1.0, axis=1)
    periods = size * count // 2
    first = _scores(inside @ sums, inside @ squares, periods, score)
    second = _scores((1.0 - inside) @ sums, (1.0 - inside) @ squares, periods, score)

    winners = second[np.arange(len(second)), np.argmax(first, axis=1)][:, None]
    # Sums of the same numbers in another order differ in the last bits: equal arms must tie.
    tie = 1e-9 * np.max(np.abs(second), axis=1, keepdims=True)
    below = np.sum(second < winners - tie, axis=1)
    ties = np.sum(np.abs(second - winners) <= tie, axis=1)
    relative = (below + (ties + 1) / 2) / (arms + 1)
    logits = np.log(relative / (1.0 - relative))
    return Overfitting(probability=float(np.mean(logits <= 0.0)), logits=logits, blocks=count)


def _scores(sums: np.ndarray, squares: np.ndarray, periods: int, score: Score) -> np.ndarray:
    means: np.ndarray = sums / periods
    if score == "mean":
        return means
    variances = np.maximum(squares / periods - means**2, 0.0)
    flat = variances <= 1e-12 * np.maximum(squares / periods, 1e-300)
    ratios: np.ndarray = np.where(flat, 0.0, means / np.sqrt(np.where(flat, 1.0, variances)))
    return ratios
