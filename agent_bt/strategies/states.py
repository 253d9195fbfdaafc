"""What a rule wants of a symbol (up, down, flat) as a target share, for one symbol and for whole tables."""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np

from agent_bt.core.jit import njit


def share_of(up: bool, down: bool, flat: bool, size: float) -> float:
    """The target share of one symbol.

    Up alone: `size`; down alone: `-size`; both at once contradict each other, so 0; neither: 0 if `flat`, else NaN.
    """
    if up and down:
        return 0.0
    if up:
        return size
    if down:
        return -size
    return 0.0 if flat else np.nan


share_of_cell = njit(share_of)


@njit
def _table(up, down, flat, size):
    shares = np.empty(up.shape, np.float64)
    # Through flat arrays: several cells at once, where a processor can.
    cells, ups, downs, flats = shares.ravel(), up.ravel(), down.ravel(), flat.ravel()
    for at in range(len(cells)):
        cells[at] = share_of_cell(ups[at], downs[at], flats[at], size)
    return shares


def share_table(up: Any, down: Any, flat: Any, size: float) -> np.ndarray:
    """`share_of` cell by cell; bool (R, N), or one bool for all cells, to float64 (R, N)."""
    shape = np.broadcast_shapes(*(np.shape(each) for each in (up, down, flat)))
    shares: np.ndarray = _table(*(each if np.ndim(each) else np.full(shape, each) for each in (up, down, flat)), size)
    return shares
