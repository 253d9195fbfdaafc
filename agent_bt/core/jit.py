"""The one door to numba: compiled, cached on disk, no fastmath, so that every driver computes the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba


def njit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` in nopython mode; strict IEEE arithmetic; the machine code is cached beside the module."""
    return cast("Callable[..., Any]", numba.njit(cache=True, fastmath=False, error_model="numpy")(function))
