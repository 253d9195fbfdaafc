"""Makes the run folders, the reply cache, the experiment and the sweep that are kept beside this file.

What is kept was written by an earlier version (`code` in each manifest is the hash of its source) and is never written
again: later versions must go on reading and replaying it. This script runs the same commands in a new folder:

    PYTHONPATH=tests/support python tests/earlier/make.py FOLDER

To keep a further case, add its config and its command here, and copy what they make.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from chat_server import ChatServer, FaultPlan, stand_in_answer
from small_run import agent_bt, clean_env

CONFIGS = Path(__file__).resolve().parent / "configs"
PORT = 8377
"""The port in `llm.base_url` of the configs."""

FAULTS = {
    "openai": FaultPlan(rates={"bad_reply": 0.15, "refusal": 0.1, "length": 0.1}, seed=1),
    "transport": FaultPlan(rates={"500": 0.15, "drop": 0.1, "bad_reply": 0.1}, seed=2),
}
"""What the endpoint of each config answers wrongly."""

STOP = ("--set", "name=stopped", "--set", "budget.calls=5", "--set", "prefetch.depth=0", "--fresh")
"""Options that make the run of `openai.yaml` stop at its budget."""


def serve(config: str, *, latency_ms: float = 0.0, port: int = 0) -> ChatServer:
    """Return the endpoint of a config; it answers its first call, the one that probes it, correctly."""
    answer = stand_in_answer(eagerness=1.0)
    return ChatServer(answer, script=[None], faults=FAULTS[config], latency_ms=latency_ms, port=port)


def call(folder: Path, *arguments: str, code: int = 0) -> None:
    """Run `agent-bt` in `folder`, so that every recorded path is relative to it."""
    done = agent_bt(*arguments, cwd=folder)
    if done.code != code:
        raise SystemExit(f"agent-bt {' '.join(arguments)}: exit code {done.code}, not {code}\n{done.err}")


def kill_a_run(folder: Path) -> None:
    """Begin the run of `openai.yaml` and kill it once its journal holds a decision, which is then in no other file."""
    options = ("--set", "name=killed", "--set", "cache.path=killed.sqlite", "-q")
    command = [sys.executable, "-m", "agent_bt", "run", "configs/openai.yaml", *options]
    with serve("openai", latency_ms=600, port=PORT):
        process = subprocess.Popen(command, cwd=folder, env=clean_env())
        while process.poll() is None and not any(path.stat().st_size for path in folder.glob("runs/*/journal.jsonl")):
            time.sleep(0.05)
        process.kill()
        process.wait()
    for path in folder.glob("killed.sqlite*"):
        path.unlink()


def make(folder: Path) -> None:
    """Run every config in `folder`; runs that are stopped come before the one that is not, which asks for the rest."""
    shutil.copytree(CONFIGS, folder / "configs")
    options = ("--no-report", "-q")
    for config in ("agent", "ranker", "rule", "long_short", "ensemble"):
        call(folder, "run", f"configs/{config}.yaml", *options)
    kill_a_run(folder)
    with serve("openai", port=PORT):
        call(folder, "run", "configs/openai.yaml", *STOP, *options, code=4)
        call(folder, "run", "configs/openai.yaml", "--fresh", *options)
    with serve("transport", port=PORT):
        call(folder, "run", "configs/transport.yaml", *options)
    call(folder, "cache", "export", "replies.jsonl.xz")
    call(folder, "sweep", "configs/sweep.yaml", *options)
    call(folder, "ab", "run", "configs/ab.yaml", *options)


def main() -> None:
    """Read the command line and make everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True)
    make(folder)


if __name__ == "__main__":
    main()
