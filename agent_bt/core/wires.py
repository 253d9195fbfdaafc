"""The arrays of an account and its market as one array of addresses, for compiled code.

Handing fifteen arrays over costs more than a step of the account does: numba checks each one when Python calls, and
counts references to each one at every call inside. Addresses cost neither. Whoever wires arrays keeps them alive and
never resizes them as long as the wires are used; every wired array is C-contiguous and of the dtype named here.
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


def wire(*arrays: np.ndarray) -> np.ndarray:
    """The wires of: open, high, low, close, traded, funding, ends, special; account, positions, queue, rules, events,
    equity, exposure (see `core.accounting` for shapes). int64: address, rows and columns of each.

    Raises:
        ValueError: an array is not what compiled code will take it for.
    """
    dtypes: tuple[Any, ...] = _MARKET + _STATE
    for number, (array, dtype) in enumerate(zip(arrays, dtypes, strict=True)):
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"array {number} to be wired is {array.dtype}, not a contiguous {np.dtype(dtype)}")
    shapes = [(*array.shape, 0)[:2] for array in arrays]
    return np.array([(a.ctypes.data, *shape) for a, shape in zip(arrays, shapes, strict=True)], np.int64).ravel()


@intrinsic
def pointer(typing, address):  # noqa: ARG001
    """An address as a pointer, for `numba.carray`."""

    def cast(context, builder, signature, arguments):  # noqa: ARG001
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), cast


@njit
def unwire(wires):
    """The arrays again, in compiled code; in the order of `wire`."""
    return (
        carray(pointer(wires[0]), (wires[1], wires[2]), np.float64),
        carray(pointer(wires[3]), (wires[4], wires[5]), np.float64),
        carray(pointer(wires[6]), (wires[7], wires[8]), np.float64),
        carray(pointer(wires[9]), (wires[10], wires[11]), np.float64),
        carray(pointer(wires[12]), (wires[13], wires[14]), np.bool_),
        carray(pointer(wires[15]), (wires[16], wires[17]), np.float64),
        carray(pointer(wires[18]), (wires[19],), np.int64),
        carray(pointer(wires[21]), (wires[22],), np.int64),
        carray(pointer(wires[24]), (wires[25],), ACCOUNT),
        carray(pointer(wires[27]), (wires[28],), POSITION),
        carray(pointer(wires[30]), (wires[31], wires[32]), ORDER),
        carray(pointer(wires[33]), (wires[34],), RULES),
        carray(pointer(wires[36]), (wires[37],), EVENT),
        carray(pointer(wires[39]), (wires[40],), np.float64),
        carray(pointer(wires[42]), (wires[43],), np.float64),
    )
