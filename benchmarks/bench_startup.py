"""`agent-bt --help` against an empty typer app, pair by pair in the same run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

PAIRS = 15
EMPTY_APP = "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None: ...\napp()"


def main() -> dict[str, Any]:
    """Medians of both, and the median of the paired ratios."""
    commands = {
        "empty_app": [sys.executable, "-c", EMPTY_APP, "--help"],
        "agent_bt": [sys.executable, "-m", "agent_bt", "--help"],
    }
    for command in commands.values():
        _seconds(command)
    # The order alternates, so that a machine that slows down or speeds up favours neither.
    pairs = [
        {name: _seconds(commands[name]) for name in (sorted(commands) if pair % 2 else sorted(commands, reverse=True))}
        for pair in range(PAIRS)
    ]
    return {
        "name": "startup",
        "rows": [
            {
                "work": "agent-bt --help",
                "ours": statistics.median(pair["agent_bt"] for pair in pairs),
                "unit": "s",
                "peer": "an empty typer app --help",
                "theirs": statistics.median(pair["empty_app"] for pair in pairs),
                "ratio": statistics.median(pair["agent_bt"] / pair["empty_app"] for pair in pairs),
                "target": "<= 1.3",
                "met": statistics.median(pair["agent_bt"] / pair["empty_app"] for pair in pairs) <= 1.3,
            }
        ],
    }


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
