"""Small experiments for tests: a config of a few days, arms by their changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent_bt.core.progress import SilentProgress
from agent_bt.experiments.ab.run import run_experiment
from agent_bt.experiments.ab.spec import Experiment, load_experiment

BASE = """
name: base
market: {start: 2024-07-01, end: 2024-07-05}
strategy: {kind: agent, every: 4h}
"""


def write_experiment(folder: Path, arms: dict[str, dict[str, Any]], *, base: str = BASE, **more: Any) -> Path:
    """Write base.yaml and ab.yaml into a folder; returns the path of the latter. JSON is YAML."""
    (folder / "base.yaml").write_text(base)
    shared = {"output": str(folder / "runs"), "cache.path": str(folder / "cache.sqlite"), **more.pop("set", {})}
    path = folder / "ab.yaml"
    baseline = more.pop("baseline", next(iter(arms)))
    path.write_text(json.dumps({"base": "base.yaml", "set": shared, "arms": arms, "baseline": baseline, **more}))
    return path


def run(path: Path, *overrides: str) -> dict[str, Any]:
    """Run an experiment to its end."""
    return run_experiment(load_experiment(path, overrides), progress=SilentProgress())


def loaded(path: Path) -> Experiment:
    """The validated experiment."""
    return load_experiment(path)
