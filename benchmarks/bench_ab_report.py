"""The A/B report: its size, how long it takes to write, and to open in headless Chromium."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agent_bt.experiments.ab.report import write_ab_report

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "experiments" / "ab")]

from ab_runs import make_experiment  # noqa: E402
from bench_report import REPEATS, time_to_open  # noqa: E402

ARMS, REPLICATES, DECISIONS = 4, 5, 2_000
TARGET_S = 3.0


def main() -> dict[str, Any]:
    """One experiment of hourly decisions over minute bars; at each, every run has an account of its own to show."""
    work = f"A/B report of {ARMS} arms x {REPLICATES} replicates x {DECISIONS:,} decisions"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        experiment = make_experiment(root, DECISIONS, arms=ARMS, replicates=REPLICATES)
        write_ab_report(experiment)  # imports, and plotly's script
        began = time.perf_counter()
        report = write_ab_report(experiment)
        written = time.perf_counter() - began
        rows: list[dict[str, Any]] = [
            {"work": f"{work}: write", "ours": round(written, 3), "unit": "s"},
            {"work": f"{work}: size", "ours": round(report.stat().st_size / 1e6, 2), "unit": "MB"},
        ]
        for shown, mark in (("matrix, prompts and replies", "__ready"), ("equity bands too", "__drawn")):
            opened = time_to_open(report, root, mark)
            if opened is not None:
                rows.append(
                    {"work": f"{work}: open, {shown}", "ours": round(opened, 3), "unit": "s",
                     "target": f"< {TARGET_S:g} s", "met": opened < TARGET_S}
                )  # fmt: skip
    return {"name": "ab_report", "rows": rows, "repeats": REPEATS}


if __name__ == "__main__":
    print(main())
