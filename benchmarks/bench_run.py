"""What a decision costs outside the model: prompt, request, validation, account, journal, tables.

The stand-in model answers at once. Two runs of different length are made in processes of their own; the difference
of their times over the difference of their decisions is what one decision costs with everything written, and the
ratio of their peak memory says whether it grows. The limit beside it is rendering the prompt alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from typing import Any

SHORT, LONG, ROUNDS = 2_000, 8_000, 3

CHILD = """
import json, resource, sys, time
from pathlib import Path
from agent_bt.backtest.run import run_config
from agent_bt.config.load import load_config
decisions, output = int(sys.argv[1]), sys.argv[2]
overrides = ["market.start=2024-07-01", "market.end=2024-10-01", "strategy.every=15m", f"output={output}"]
config = load_config(None, overrides)
warm = run_config(config, limit=5, report=False)
began = time.perf_counter()
result = run_config(config, limit=decisions, report=False, fresh=True)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"decisions": result.summary["decisions"]["total"], "seconds": seconds, "peak_mb": peak,
                  "walk": result.summary["timing"]["seconds"]}))
"""

RENDER = """
import json, time
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.prepare import set_stage
from agent_bt.backtest.strategy import build_strategy
from agent_bt.backtest.strategy import find_prompt
from agent_bt.agents.context import prompt_context
from agent_bt.core.types import Portfolio
from agent_bt.config.load import load_config
config = load_config(None, ["strategy.every=15m"])
prompt = find_prompt(config, None)
stage = set_stage(config, load_bars(config).bars, build_strategy(config, prompt), 2000)
account = Portfolio(cash=10000.0, positions={})
views = [stage.market.at(int(bar)) for bar in stage.schedule.bars]
began = time.perf_counter()
for view in views:
    prompt.render(prompt_context(view, account, window=60, every=900_000_000))
print(json.dumps({"decisions": len(views), "seconds": time.perf_counter() - began}))
"""


def main() -> dict[str, Any]:
    """Decisions per second of the walk, and with everything written; peak memory of a long run over a short one."""
    rounds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append({size: _child(CHILD, str(size), folder) for size in (SHORT, LONG)} | {0: _child(RENDER)})
    marginal = statistics.median((LONG - SHORT) / (one[LONG]["seconds"] - one[SHORT]["seconds"]) for one in rounds)
    run_decisions = statistics.median(one[LONG]["decisions"] / one[LONG]["walk"] for one in rounds)
    render = statistics.median(one[0]["decisions"] / one[0]["seconds"] for one in rounds)
    short, long = (statistics.median(one[size]["peak_mb"] for one in rounds) for size in (SHORT, LONG))
    limit = "rendering the prompts alone"
    return {
        "name": "run",
        "rows": [
            {
                "work": "one more decision and its 15 bars: walk, tables, baselines, sensitivity",
                "ours": marginal, "unit": "decisions/s", "peer": limit, "theirs": render, "ratio": marginal / render,
                "target": ">= 2,000 decisions/s", "met": marginal >= 2_000,
            },
            {
                "work": f"the walk of {LONG:,} decisions, journal and decisions.parquet included",
                "ours": run_decisions, "unit": "decisions/s",
                "peer": limit, "theirs": render, "ratio": run_decisions / render,
                "target": ">= 2,000 decisions/s", "met": run_decisions >= 2_000,
            },
            {
                "work": f"peak memory of {LONG:,} decisions",
                "ours": long, "unit": "MB", "peer": f"of {SHORT:,} decisions", "theirs": short, "ratio": long / short,
                "target": "<= 1.15", "met": long / short <= 1.15,
            },
        ],
    }  # fmt: skip


def _child(code: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
