"""Convert the signals of a rule (long, short, flat) to target weights, for one symbol and for whole tables."""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np

from agent_bt.core.jit import njit


def weight_of(up: bool, down: bool, flat: bool, size: float) -> float:
    """Return the target weight of one symbol; NaN: keep the position.

    `size` if only `up` is true, `-size` if only `down` is, 0 if both are (they contradict each other). If neither is: 0
    if `flat`, else NaN.

    Args:
        up: whether the rule is long.
        down: whether the rule is short.
        flat: whether the rule closes a position.
        size: weight of a position (of equity), above 0.
    """
    if up and down:
        return 0.0
    if up:
        return size
    if down:
        return -size
    return 0.0 if flat else np.nan


weight_of_cell = njit(weight_of)


@njit
def _table(up, down, flat, size):
    weights = np.empty(up.shape, np.float64)
    # One-dimensional arrays let the compiler process several cells at once.
    cells, ups, downs, flats = weights.ravel(), up.ravel(), down.ravel(), flat.ravel()
    for at in range(len(cells)):
        cells[at] = weight_of_cell(ups[at], downs[at], flats[at], size)
    return weights


def weight_table(up: Any, down: Any, flat: Any, size: float) -> np.ndarray:
    """Return `weight_of` for every cell; float64 (R, N).

    Args:
        up: where the rule is long, bool (R, N), or one bool for all cells.
        down: where the rule is short, likewise.
        flat: where the rule closes a position, likewise.
        size: weight of a position (of equity), above 0.
    """
    shape = np.broadcast_shapes(*(np.shape(each) for each in (up, down, flat)))
    weights: np.ndarray = _table(*(each if np.ndim(each) else np.full(shape, each) for each in (up, down, flat)), size)
    return weights
