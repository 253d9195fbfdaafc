"""The worked example of docs/verdict.md: agents whose skill is known, because it is planted. Run in a checkout:

    python docs/planted_effect.py FOLDER

A local server plays three models on the sample market (generated prices). Each is asked every four hours; it names the
direction of the next four hours rightly with probability one half plus its edge, and answers anew each time it is
asked. So the true order of the arms is known before the experiment is run.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from chat_server import ChatServer

from agent_bt.cli.common import show
from agent_bt.cli.progress import PlainProgress
from agent_bt.core.clock import iso, time_us
from agent_bt.data.sample import SampleSource
from agent_bt.experiments.ab.run import run_experiment
from agent_bt.experiments.ab.spec import load_experiment
from agent_bt.experiments.ab.terminal import render

EDGES = {"coin": 0.0, "faint": 0.02, "skilled": 0.15}
START, END, SEED = "2024-07-01", "2024-10-01", 7

PROMPT = """---
name: shows_date
inputs: {time: now}
output: {type: object}
---
user:
It is {{ time.strftime("%Y-%m-%dT%H:%MZ") }}. Will the price rise in the next four hours?
"""


def main(folder: Path) -> None:
    """Write prompt and configs, play the models, run the experiment, show its verdicts."""
    bars = SampleSource("BTCUSDT", SEED).fetch_ohlcv("4h", time_us(START), time_us(END))
    close = bars["close"].to_numpy()
    times = bars["close_time"].to_physical().to_list()
    rises = {iso(time): bool(up) for time, up in zip(times[:-1], np.diff(close) > 0, strict=True)}
    asked: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> str:
        text = f"{body['model']} {body['messages'][-1]['content']}"
        asked[text] += 1
        luck = hashlib.sha256(f"{asked[text]} {text}".encode()).digest()[0] / 256
        found = re.search(r"It is (\S+)\. ", text)
        rise = rises.get(found[1] if found else "", True)
        right = luck < 0.5 + EDGES[body["model"]]
        return json.dumps({"action": "BUY" if rise == right else "SELL", "size_pct": 1.0})

    prompt = folder / "prompts" / "shows_date" / "v1.prompty"
    prompt.parent.mkdir(parents=True, exist_ok=True)
    prompt.write_text(PROMPT)
    with ChatServer(answer) as server:
        shared = {
            "market.start": START, "market.end": END, "market.interval": "1h", "features.window": 2,
            "strategy.prompt": "shows_date/v1", "strategy.every": "4h", "seed": SEED,
            "llm.provider": "openai", "llm.base_url": server.url, "llm.endpoint_id": "planted",
            "llm.response_format": "text", "llm.temperature": 1, "prefetch.depth": 0,
            "output": str(folder / "runs"), "cache.path": str(folder / "cache.sqlite"),
        }  # fmt: skip
        arms = {name: {"llm.model": name} for name in EDGES}
        path = folder / "ab.yaml"
        declared = {"name": "planted", "set": shared, "arms": arms, "baseline": "coin", "replicates": 3}
        path.write_text(json.dumps(declared))
        record = run_experiment(load_experiment(path), progress=PlainProgress(sys.stderr))
    show(render(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
