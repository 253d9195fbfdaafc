"""Replay from stored replies with everything written, and how much memory it takes for few and for many decisions.

The same three months are decided every two hours and every quarter of an hour, so that what belongs to the market is
the same in both and only the number of decisions differs. Rates are marginal: what the additional decisions take.

    python -m benchmarks.bench_replay
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.bench_prefetch import HERE, server

FEW, MANY = "2h", "15m"
ROUNDS = 4


def main() -> dict[str, Any]:
    """Fill a store of replies once, then measure `run --offline` and `replay`, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        with server() as port:
            for every in (FEW, MANY):
                _child("fill", every, folder, port)
        measured: dict[str, dict[str, dict[str, float]]] = {}
        for work in ("offline", "replay"):
            # Taken in turns, so that a machine that slows down or speeds up favours neither.
            rounds = [{every: _child(work, every, folder, 0) for every in (FEW, MANY)} for _ in range(ROUNDS)]
            measured[work] = {
                every: min((found[every] for found in rounds), key=lambda one: one["seconds"]) for every in (FEW, MANY)
            }
    names = {"offline": "run --offline --no-report, every record and table written", "replay": "replay of a run folder"}
    rows = []
    for work, name in names.items():
        few, many = measured[work][FEW], measured[work][MANY]
        rate = (many["decisions"] - few["decisions"]) / (many["seconds"] - few["seconds"])
        growth = many["peak_mb"] / few["peak_mb"]
        rows += [
            {"work": name, "ours": rate, "unit": "decisions/s", "target": ">= 2,000", "met": rate >= 2_000},
            {
                "work": f"{name}: peak memory of {many['decisions']:,} decisions",
                "ours": many["peak_mb"],
                "unit": "MB",
                "peer": f"the same with {few['decisions']:,}",
                "theirs": few["peak_mb"],
                "ratio": growth,
                "target": "<= 1.1",
                "met": growth <= 1.1,
            },
        ]
    return {"name": "replay", "rows": rows, "measured_rounds": ROUNDS, "best_of": measured}


def _child(work: str, every: str, folder: str, port: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_replay", work, every, folder, str(port)]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(work: str, every: str, folder: Path, port: int) -> dict[str, float]:
    """Do the work once in this process; seconds without imports, and the peak of its memory."""
    from agent_bt import load_config
    from agent_bt.backtest.replay import replay
    from agent_bt.backtest.run import run_config
    from agent_bt.core.progress import SilentProgress

    settings = {
        "strategy.every": every, "llm.provider": "openai", "llm.model": "hold-0.9", "llm.endpoint_id": "bench",
        "llm.base_url": f"http://127.0.0.1:{port}/replay/0/v1", "prefetch.depth": 31, "prefetch.guess": "states",
        "cache.path": folder / "cache.sqlite", "output": folder / every,
    }  # fmt: skip
    config = load_config(
        HERE.parent / "configs" / "backtest.yaml", overrides=[f"{key}={value}" for key, value in settings.items()]
    )
    began = time.perf_counter()
    if work == "replay":
        outcome = replay(max((folder / every).glob("2*")), SilentProgress())
        if not outcome.identical:
            raise SystemExit(str(outcome.divergence))
        decisions = outcome.decisions
    else:
        result = run_config(config, fresh=True, offline=work == "offline", report=False)
        if result.error is not None:
            raise result.error
        decisions = result.summary["decisions"]["total"]
    return {
        "seconds": time.perf_counter() - began,
        "decisions": decisions,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        print(json.dumps(main(), indent=1))
