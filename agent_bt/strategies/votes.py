"""Votes of several strategies: which one stands, and how they become one target."""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent_bt.core.jit import njit


@njit
def weighted_average(votes, weights):
    """The weighted mean of votes (M, R, N) by weights (M,); float64 (R, N)."""
    total = 0.0
    for weight in weights:
        total += weight
    shares = np.zeros(votes.shape[1:])
    for row in range(votes.shape[1]):
        for symbol in range(votes.shape[2]):
            for member in range(votes.shape[0]):
                shares[row, symbol] += weights[member] * votes[member, row, symbol]
            shares[row, symbol] /= total
    return shares


@njit
def majority_vote(votes, weights):
    """The weighted mean of those who are long if they have more than half of the weight; likewise short; else 0."""
    total = 0.0
    for weight in weights:
        total += weight
    shares = np.zeros(votes.shape[1:])
    for row in range(votes.shape[1]):
        for symbol in range(votes.shape[2]):
            for side in (1.0, -1.0):
                agreeing, wanted = 0.0, 0.0
                for member in range(votes.shape[0]):
                    if votes[member, row, symbol] * side > 0.0:
                        agreeing += weights[member]
                        wanted += weights[member] * votes[member, row, symbol]
                if agreeing > 0.5 * total:
                    shares[row, symbol] = wanted / agreeing
    return shares


@njit
def unanimous(votes, weights):
    """The weighted mean where all are long, or all short; else 0."""
    shares = weighted_average(votes, weights)
    for row in range(votes.shape[1]):
        for symbol in range(votes.shape[2]):
            longs = shorts = 0
            for member in range(votes.shape[0]):
                longs += votes[member, row, symbol] > 0.0
                shorts += votes[member, row, symbol] < 0.0
            if max(longs, shorts) < votes.shape[0]:
                shares[row, symbol] = 0.0
    return shares


@njit
def best_of_recent(votes, closes, window):
    """The votes of the member that earned most in the last `window` bars; the first of equals; float64 (R, N).

    A member earns, bar by bar and symbol by symbol, its vote of the row before times the bar's return (no costs);
    bars without a price on both sides earn nothing. `closes`: float64 (R, N).
    """
    members, rows, symbols = votes.shape
    earned = np.zeros((members, rows))
    for member in range(members):
        for row in range(1, rows):
            for symbol in range(symbols):
                gain = closes[row, symbol] / closes[row - 1, symbol] - 1.0
                if np.isfinite(gain):
                    earned[member, row] += votes[member, row - 1, symbol] * gain
    shares = np.empty((rows, symbols))
    for row in range(rows):
        best, most = 0, -np.inf
        for member in range(members):
            sum_ = 0.0
            for at in range(max(1, row - window + 1), row + 1):
                sum_ += earned[member, at]
            if sum_ > most:
                best, most = member, sum_
        shares[row] = votes[best, row]
    return shares


COMBINE: dict[str, Callable[..., np.ndarray]] = {
    "weighted_average": weighted_average,
    "majority_vote": majority_vote,
    "unanimous": unanimous,
}
"""Methods that need the votes (M, R, N) and weights (M,) alone."""

METHODS = (*COMBINE, "best_of_recent")
