"""Calls a peer: one script of this folder in its own environment, arrays in, times and results out."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import environment

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a peer gave: its JSON (`variants`: name -> seconds, rounds, final; `versions`), and its arrays."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def call(script: str, *, peers: str = "common", **inputs: np.ndarray | float | int | str) -> Answer:
    """Run `script` (a file name here) with the inputs as one .npz; `peers` names its environment.

    Raises:
        PeersMissing: the environment could not be made.
        RuntimeError: the script failed; the message holds the end of what it said.
    """
    python = environment.ensure(peers)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, **inputs)  # type: ignore[arg-type]
        command = [python, HERE / script, source, target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
        with np.load(target) as found:
            arrays = {name: found[name] for name in found.files}
    return Answer(facts=json.loads(done.stdout.splitlines()[-1]), arrays=arrays)
