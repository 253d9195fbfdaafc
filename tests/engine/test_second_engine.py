"""The engine and vectorbt give the same equity curves for the same orders on real prices, under equal conventions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = 77


def test_equity_curves_are_those_of_vectorbt(market_data: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peers.second_engine", "--no-install"]
    environment = {**os.environ, "AGENT_BT_MARKET_DATA": str(market_data)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.strip())
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 7, done.stderr[-2000:]
    assert {one["case"]: one["apart"] for one in found if not one["apart"] < 1e-6} == {}
    # Nothing is compared where nothing was traded.
    assert all(one["orders"] > 400 for one in found)
    assert found[-1]["vanished"] == 3
