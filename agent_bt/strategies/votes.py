"""Combine the votes of several strategies into one target weight."""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent_bt.core.jit import njit


@njit
def weighted_average(votes, weights):
    """Return the weighted mean of `votes`, float64 (M, R, N), by `weights`, float64 (M,); float64 (R, N)."""
    total = 0.0
    for weight in weights:
        total += weight
    combined = np.zeros(votes.shape[1:])
    for row in range(votes.shape[1]):
        for symbol in range(votes.shape[2]):
            for member in range(votes.shape[0]):
                combined[row, symbol] += weights[member] * votes[member, row, symbol]
            combined[row, symbol] /= total
    return combined


@njit
def majority_vote(votes, weights):
    """Return the weighted mean of the long votes if they have more than half of the weight; likewise short; else 0.

    Args:
        votes: target weights by member, row and symbol, float64 (M, R, N).
        weights: weight of each member, float64 (M,).
    """
    total = 0.0
    for weight in weights:
        total += weight
    combined = np.zeros(votes.shape[1:])
    for row in range(votes.shape[1]):
        for symbol in range(votes.shape[2]):
            for side in (1.0, -1.0):
                agreeing, wanted = 0.0, 0.0
                for member in range(votes.shape[0]):
                    if votes[member, row, symbol] * side > 0.0:
                        agreeing += weights[member]
                        wanted += weights[member] * votes[member, row, symbol]
                if agreeing > 0.5 * total:
                    combined[row, symbol] = wanted / agreeing
    return combined


@njit
def unanimous(votes, weights):
    """Return the weighted mean where all votes are long, or all short; else 0.

    Args:
        votes: target weights by member, row and symbol, float64 (M, R, N).
        weights: weight of each member, float64 (M,).
    """
    combined = weighted_average(votes, weights)
    for row in range(votes.shape[1]):
        for symbol in range(votes.shape[2]):
            longs = shorts = 0
            for member in range(votes.shape[0]):
                longs += votes[member, row, symbol] > 0.0
                shorts += votes[member, row, symbol] < 0.0
            if max(longs, shorts) < votes.shape[0]:
                combined[row, symbol] = 0.0
    return combined


@njit
def best_of_recent(votes, closes, window):
    """Return the votes of the member that earned most in the last `window` bars, the first of equals; float64 (R, N).

    A member earns, bar by bar and symbol by symbol, its vote of the row before times the bar's return (no costs);
    bars without a price on both sides earn nothing.

    Args:
        votes: target weights by member, row and symbol, float64 (M, R, N).
        closes: closing prices (quote units), float64 (R, N).
        window: bars over which earnings are summed, at least 1.
    """
    members, rows, symbols = votes.shape
    earned = np.zeros((members, rows))
    for member in range(members):
        for row in range(1, rows):
            for symbol in range(symbols):
                gain = closes[row, symbol] / closes[row - 1, symbol] - 1.0
                if np.isfinite(gain):
                    earned[member, row] += votes[member, row - 1, symbol] * gain
    combined = np.empty((rows, symbols))
    for row in range(rows):
        best, most = 0, -np.inf
        for member in range(members):
            sum_ = 0.0
            for at in range(max(1, row - window + 1), row + 1):
                sum_ += earned[member, at]
            if sum_ > most:
                best, most = member, sum_
        combined[row] = votes[best, row]
    return combined


COMBINE: dict[str, Callable[..., np.ndarray]] = {
    "weighted_average": weighted_average,
    "majority_vote": majority_vote,
    "unanimous": unanimous,
}
"""Methods that need only the votes (M, R, N) and the weights (M,)."""

METHODS = (*COMBINE, "best_of_recent")
