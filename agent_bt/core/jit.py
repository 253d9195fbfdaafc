"""The one door to numba: compiled, cached on disk, no fastmath, so that every driver computes the same bits.

Machine code is kept under a name made of the source of every kernel: numba itself looks at the file of the function
alone, and would go on with an old copy of a kernel that this one calls.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numba
from numba.core import event


def _keep_machine_code() -> None:
    """Name the folder of the machine code after the sources; what other sources left goes away after a day."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        text = source.read_bytes()
        if b"njit" in text:
            digest.update(source.name.encode() + text)
    folder = package / "__pycache__" / f"numba-{digest.hexdigest()[:16]}"
    for other in folder.parent.glob("numba-*"):
        # Another process may still run what was there before an update, or clean up as well.
        with suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > 86_400:
                shutil.rmtree(other, ignore_errors=True)
    numba.config.CACHE_DIR = str(folder)


if not os.environ.get("NUMBA_CACHE_DIR"):
    _keep_machine_code()


@contextmanager
def compiling_announced(say: Callable[[str], None]) -> Iterator[None]:
    """Tell the reader, once, if something has to be compiled inside the block: the first run on a machine waits."""
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
        """Nothing to say."""


def njit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` in nopython mode; strict IEEE arithmetic; the machine code is cached beside the module.

    Compiled callers take it in whole: handing a dozen arrays over costs more than most of what is done with them.
    """
    compile = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy", forceinline=True)
    return cast("Callable[..., Any]", compile(function))
