"""The peers' side of every measurement: read the arrays, take the best of several rounds, print what was found.

Runs in the peers' environments, so it needs NumPy and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 5
PATIENCE_S = 60.0


def inputs() -> dict[str, Any]:
    """The arrays of the .npz that the command line names first; those without a dimension as plain values."""
    with np.load(sys.argv[1]) as found:
        return {name: found[name] if found[name].ndim else found[name].item() for name in found.files}


def best_of(work: Callable[[], np.ndarray], *, warm: bool = True) -> tuple[dict[str, Any], np.ndarray]:
    """The least of 5 rounds, and the result of the last; slow work ends after two rounds and a minute.

    `warm`: one round beforehand that does not count, in which a peer compiles.
    """
    if warm:
        work()
    taken: list[float] = []
    while len(taken) < ROUNDS and (len(taken) < 2 or sum(taken) < PATIENCE_S):
        began = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - began)
    return {"seconds": min(taken), "rounds": len(taken), "all": taken, "final": float(np.sum(result[-1:]))}, result


def report(variants: dict[str, dict[str, Any]], packages: tuple[str, ...], **arrays: np.ndarray) -> None:
    """Write the arrays to the file that the command line names second, and the rest as one line of JSON."""
    np.savez(sys.argv[2], **arrays)
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"variants": variants, "versions": versions, "peak_mb": peak_mb()}))


def peak_mb() -> float:
    """Most memory this process ever held; the kernel's counter, as `ru_maxrss` includes whoever started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
