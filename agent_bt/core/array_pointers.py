"""The arrays of an account and its market as one array of addresses, for compiled code.

Passing fifteen arrays costs more than one accounting step: numba checks each one when Python calls, and counts
references to each one at every call inside. Addresses cost neither. The caller keeps the arrays alive and never resizes
them as long as the pointers are used; every array is C-contiguous and of the dtype named here.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from agent_bt.core.jit import njit
from agent_bt.core.records import ACCOUNT, EVENT, ORDER, POSITION, RULES

_MARKET = (np.float64, np.float64, np.float64, np.float64, np.bool_, np.float64, np.int64, np.int64)
_STATE = (ACCOUNT, POSITION, ORDER, RULES, EVENT, np.float64, np.float64)


def array_pointers(*arrays: np.ndarray) -> np.ndarray:
    """Return the addresses and shapes of these arrays: open, high, low, close, traded, funding, ends, special; account,
    positions, queue, rules, events, equity, exposure (see `core.accounting` for shapes).

    int64, three numbers an array: address, rows, columns.

    Raises:
        ValueError: an array has another dtype, or is not contiguous.
    """
    dtypes: tuple[Any, ...] = _MARKET + _STATE
    for number, (array, dtype) in enumerate(zip(arrays, dtypes, strict=True)):
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"array {number} must be a contiguous {np.dtype(dtype)}, got {array.dtype}")
    shapes = [(*array.shape, 0)[:2] for array in arrays]
    return np.array([(a.ctypes.data, *shape) for a, shape in zip(arrays, shapes, strict=True)], np.int64).ravel()


@intrinsic
def pointer(typing, address):  # noqa: ARG001
    """Convert an address to a pointer, for `numba.carray`.

    Args:
        typing: numba's typing context, which numba passes itself; compiled callers give the address only.
        address: address of the first element, int64.
    """

    def cast(context, builder, signature, arguments):  # noqa: ARG001
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), cast


@njit
def arrays_at(pointers):
    """Return the arrays in compiled code, in the order of `array_pointers`."""
    return (
        carray(pointer(pointers[0]), (pointers[1], pointers[2]), np.float64),
        carray(pointer(pointers[3]), (pointers[4], pointers[5]), np.float64),
        carray(pointer(pointers[6]), (pointers[7], pointers[8]), np.float64),
        carray(pointer(pointers[9]), (pointers[10], pointers[11]), np.float64),
        carray(pointer(pointers[12]), (pointers[13], pointers[14]), np.bool_),
        carray(pointer(pointers[15]), (pointers[16], pointers[17]), np.float64),
        carray(pointer(pointers[18]), (pointers[19],), np.int64),
        carray(pointer(pointers[21]), (pointers[22],), np.int64),
        carray(pointer(pointers[24]), (pointers[25],), ACCOUNT),
        carray(pointer(pointers[27]), (pointers[28],), POSITION),
        carray(pointer(pointers[30]), (pointers[31], pointers[32]), ORDER),
        carray(pointer(pointers[33]), (pointers[34],), RULES),
        carray(pointer(pointers[36]), (pointers[37],), EVENT),
        carray(pointer(pointers[39]), (pointers[40],), np.float64),
        carray(pointer(pointers[42]), (pointers[43],), np.float64),
    )
