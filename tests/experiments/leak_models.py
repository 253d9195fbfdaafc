"""Models for testing the leak check: some remember a market, some only read what they are shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from agent_bt.agents.prompt import Prompt, load_prompt
from agent_bt.backtest.bars import LoadedBars, load_bars
from agent_bt.backtest.model import Model, build_request_form
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.clock import iso
from agent_bt.core.progress import SilentProgress
from agent_bt.core.types import Reply, Request
from agent_bt.evaluation.leakcheck.histories import Mask
from agent_bt.evaluation.leakcheck.verdict import LeakVerdict
from agent_bt.experiments.leakcheck import probe_memory
from agent_bt.llm.scripted import ScriptedLLM

PROMPT = """---
name: shows_all
inputs: {symbol: the symbol, time: now, price: the last close, window: the last bars, account: the account}
output: {type: object}
---
user:
{{ symbol }} at {{ time.strftime("%Y-%m-%dT%H:%MZ") }}, price {{ "%.2f" | format(price) }}
closes: {% for close in window.column("close")[-10:] %}{{ "%.2f" | format(close) }} {% endfor %}

position: {{ account.position }}%
"""

_SHOWN = re.compile(r"(\S+) at (\S+), price ([\d.]+)\ncloses: ([\d. ]+)")
Future = dict[str, float]


def make(folder: Path, seed: int) -> tuple[Config, Prompt, LoadedBars]:
    """A fortnight of the sample market of a seed, a decision every four hours, a prompt that shows dates and prices."""
    path = folder / "shows_all" / "v1.prompty"
    path.parent.mkdir(exist_ok=True)
    path.write_text(PROMPT)
    changes = [f"seed={seed}", "market.start=2024-07-01", "market.end=2024-07-15", "strategy.every=4h",
               "features.window=10"]  # fmt: skip
    config = load_config(None, changes, env={})
    return config, load_prompt("shows_all/v1", [folder]), load_bars(config)


def verdict_on(answer: Callable[[Request], str | Reply], folder: Path, seed: int) -> LeakVerdict:
    """The verdict of the leak check on a model."""
    config, prompt, loaded = make(folder, seed)
    model = Model(llm=ScriptedLLM(answer), form=build_request_form(config.llm, None), requested={})
    return probe_memory(
        config,
        prompt,
        loaded,
        model,
        samples=80,
        replicates=2,
        alpha=0.01,
        progress=SilentProgress(),
        mask=Mask.of(loaded.bars),
    )


def reader(request: Request) -> str:
    """Follows the trend of the closes it is shown, and often something else: temperature."""
    text = request.messages[-1]["content"]
    shown = _SHOWN.match(text)
    if shown is None:
        return '{"close": 0}'
    closes = [float(close) for close in shown[4].split()]
    noise = hashlib.sha256(request.address.encode()).digest()[0] / 255
    if noise < 0.3:
        return _act(noise - 0.15)
    return _act(closes[-1] / closes[0] - 1.0)


def memoriser(future: Future, closes: Future, *, by: str, share: float, seed: int) -> Callable[[Request], str]:
    """Knows `share` of the series: by `date`, or by the `price`; for the rest it reads."""

    def knows(key: str) -> bool:
        return hashlib.sha256(f"{seed}/{key}".encode()).digest()[0] / 256 < share

    def answer(request: Request) -> str:
        text = request.messages[-1]["content"]
        shown = _SHOWN.match(text)
        if shown is None:
            asked = re.search(r"price of (\w+) on ([\d-]+)", text)
            assert asked is not None
            close = closes.get(f"{asked[1]} {asked[2]}", 0.0) if by == "date" and knows(asked[2]) else 0.0
            return json.dumps({"close": close})
        key = f"{shown[1]} {shown[2]}" if by == "date" else shown[3]
        return _act(future[key]) if key in future and knows(key) else reader(request)

    return answer


def remembered(bars: pl.DataFrame, config: Config, *, by: str) -> tuple[Future, Future]:
    """What a memoriser has in its head: (key -> next return), (symbol and day -> close)."""
    symbol = config.market.symbol
    rows = bars.filter(pl.col("close_time").dt.hour() % 4 == 0, pl.col("close_time").dt.minute() == 0)
    times, prices = rows["close_time"].to_physical().to_list(), rows["close"].to_list()
    returns = np.diff(prices) / np.array(prices[:-1])
    keys = [
        f"{symbol} {iso(time)}" if by == "date" else f"{price:.2f}" for time, price in zip(times, prices, strict=True)
    ]
    days = bars.filter(pl.col("close_time").dt.hour() == 0, pl.col("close_time").dt.minute() == 0)
    closes = {
        f"{symbol} {iso(time)[:10]}": close
        for time, close in zip(days["open_time"].to_physical().to_list(), days["close"].to_list(), strict=True)
    }
    return dict(zip(keys[:-1], returns.tolist(), strict=True)), closes


def _act(signal: float) -> str:
    return json.dumps({"action": "BUY" if signal > 0 else "SELL", "size_pct": 0.5})
