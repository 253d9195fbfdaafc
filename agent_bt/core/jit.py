"""Compile functions with numba: cached on disk, no fastmath, so that every driver computes the same bits.

`core.jit_cache` keeps the machine code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numba
from numba.core import event
from numba.core.dispatcher import Dispatcher

from agent_bt.core.jit_cache import keep


@contextmanager
def compiling_announced(say: Callable[[str], None]) -> Iterator[None]:
    """Print a note, once, if something has to be compiled inside the block: the first run on a machine waits."""
    with event.install_listener("numba:compile", _Once(say)):
        yield


class _Once(event.Listener):  # type: ignore[misc]
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say: Callable[[str], None] | None = say

    def on_start(self, event: Any) -> None:  # noqa: ARG002
        if self._say is not None:
            self._say("first run here: compiling the engine, a few seconds; it is kept for the next time")
            self._say = None

    def on_end(self, event: Any) -> None:
        """Do nothing."""


def njit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` in nopython mode; strict IEEE arithmetic; the machine code is kept on disk.

    It is inlined into compiled callers: passing a dozen arrays costs more than most of what is done with them.
    """
    kernel = numba.njit(nogil=True, fastmath=False, error_model="numpy", forceinline=True)(function)
    # With NUMBA_DISABLE_JIT=1 it is the function itself.
    if isinstance(kernel, Dispatcher):
        keep(kernel)
    return cast("Callable[..., Any]", kernel)
