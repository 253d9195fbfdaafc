"""Compute z-scores, ranks, legs and weights across the symbols of each row, always in the order of the symbols.

Every sum runs over the symbols from the first to the last, so that a row has the same bits wherever it is in a table.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from agent_bt.core.jit import njit


@njit
def zscores(values):
    """Return (x - mean) / population standard deviation of each row of `values`; float64 (R, N).

    Values that are not finite are left out and NaN in the result; a row of equal values gives 0.
    """
    scores = np.full(values.shape, np.nan)
    for row in range(values.shape[0]):
        count, total = 0, 0.0
        for at in range(values.shape[1]):
            if np.isfinite(values[row, at]):
                count += 1
                total += values[row, at]
        if count == 0:
            continue
        mean, squares = total / count, 0.0
        for at in range(values.shape[1]):
            if np.isfinite(values[row, at]):
                squares += (values[row, at] - mean) ** 2
        deviation = np.sqrt(squares / count)
        for at in range(values.shape[1]):
            if np.isfinite(values[row, at]):
                # Equal values may differ from their own mean in the last bit.
                scores[row, at] = (values[row, at] - mean) / deviation if deviation > 1e-12 * abs(mean) else 0.0
    return scores


@njit
def places(values):
    """Return the rank of each of `values` in its row, from -1 (lowest) to 1 (highest); ties get their mean rank.

    float64 (R, N). Values that are not finite are left out and NaN in the result; a single value gives 0.
    """
    scores = np.full(values.shape, np.nan)
    for row in range(values.shape[0]):
        there = np.flatnonzero(np.isfinite(values[row]))
        for at in there:
            below, same = 0, 0
            for other in there:
                below += values[row, other] < values[row, at]
                same += values[row, other] == values[row, at]
            last = len(there) - 1
            scores[row, at] = (2.0 * below + same - 1.0 - last) / last if last > 0 else 0.0
    return scores


@njit
def legs(scores, top, bottom):
    """Return 1 for the `top` highest scores of each row, -1 for the `bottom` lowest of the others, 0 for the rest.

    float64 (R, N). Equal scores are taken in the order of the symbols; scores that are not finite are not chosen; a row
    without any finite score is NaN.

    Args:
        scores: float64 (R, N), the best highest.
        top: symbols in the long leg, at least 0.
        bottom: symbols in the short leg, at least 0.
    """
    chosen = np.zeros(scores.shape)
    for row in range(scores.shape[0]):
        there = np.flatnonzero(np.isfinite(scores[row]))
        if len(there) == 0:
            chosen[row] = np.nan
            continue
        values = scores[row][there]
        if top > 0:
            for at in there[np.argsort(-values, kind="mergesort")][:top]:
                chosen[row, at] = 1.0
        left = bottom
        if left > 0:
            for at in there[np.argsort(values, kind="mergesort")]:
                if left > 0 and chosen[row, at] == 0.0:
                    chosen[row, at] = -1.0
                    left -= 1
    return chosen


@njit
def equal_legs(chosen, long_weight, short_weight):
    """Divide `long_weight` equally among the 1s of each row and `short_weight` among the -1s; float64 (R, N).

    Args:
        chosen: result of `legs`, float64 (R, N).
        long_weight: sum of the weights of the long leg (of equity), at least 0.
        short_weight: sum of the absolute weights of the short leg, at least 0; its weights are negative in the result.
    """
    weights = np.empty(chosen.shape)
    for row in range(chosen.shape[0]):
        longs = shorts = 0
        for at in range(chosen.shape[1]):
            longs += chosen[row, at] == 1.0
            shorts += chosen[row, at] == -1.0
        for at in range(chosen.shape[1]):
            side = chosen[row, at]
            if side == 1.0:
                weights[row, at] = long_weight / longs
            elif side == -1.0:
                weights[row, at] = -short_weight / shorts
            else:
                weights[row, at] = side
    return weights


@njit
def inverse_weights(chosen, values, gross):
    """Divide `gross` among the 1s of each row in proportion to 1 / value; float64 (R, N).

    Args:
        chosen: result of `legs`, float64 (R, N).
        values: float64 (R, N), above 0 where `chosen` is 1.
        gross: sum of the weights (of equity).
    """
    weights = np.empty(chosen.shape)
    for row in range(chosen.shape[0]):
        total = 0.0
        for at in range(chosen.shape[1]):
            if chosen[row, at] == 1.0:
                total += 1.0 / values[row, at]
        for at in range(chosen.shape[1]):
            side = chosen[row, at]
            weights[row, at] = gross / values[row, at] / total if side == 1.0 else side
    return weights
