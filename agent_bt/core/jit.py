"""The one door to numba: compiled, cached on disk, no fastmath, so that every driver computes the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def njit(function: F) -> F:
    """Compile `function` in nopython mode; strict IEEE arithmetic; the machine code is cached beside the module."""
    return cast(F, numba.njit(cache=True, fastmath=False, error_model="numpy")(function))
