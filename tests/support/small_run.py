"""A small run against a local server: a market of a few hours, a config, and the command in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

START = datetime(2024, 7, 1, tzinfo=UTC)
TIMEOUT_S = 300


def write_market(path: Path, *, hours: int = 12, seed: int = 5) -> Path:
    """Minute bars of a random walk that swings, so that a policy that follows it buys and sells."""
    count = hours * 60
    draw = np.random.default_rng(seed)
    swing = np.sin(np.arange(count) / 40) * 0.0006
    close = np.round(60_000 * np.exp(np.cumsum(draw.normal(0, 0.0008, count) + swing)), 2)
    opens = np.concatenate([[60_000.0], close[:-1]])
    volume = np.round(draw.lognormal(2, 0.5, count), 5)
    times = pl.datetime_range(START, START + timedelta(minutes=count - 1), "1m", time_unit="us", eager=True)
    pl.DataFrame(
        {
            "open_time": times,
            "open": opens,
            "high": np.maximum(opens, close) + 5.0,
            "low": np.minimum(opens, close) - 5.0,
            "close": close,
            "volume": volume,
            "quote_asset_volume": np.round(volume * close, 2),
            "trades": draw.integers(50, 500, count),
            "taker_base": volume / 2,
            "taker_quote": np.round(volume * close / 2, 2),
        }
    ).write_parquet(path)
    return path


def small_config(folder: Path, base_url: str | None, **dotted: Any) -> Path:
    """A config in `folder` over its `market.parquet`; `dotted` values are set on top, `__` standing for a dot.

    With `base_url` the model is asked there, without it is the embedded stand-in. Everything is written to `folder`.
    """
    market = folder / "market.parquet"
    if not market.exists():
        write_market(market)
    span = pl.read_parquet(market)["open_time"]
    end = span[-1] + timedelta(minutes=1)
    config: dict[str, Any] = {
        "name": "small",
        "market": {"source": str(market), "start": f"{START:%Y-%m-%d}", "end": f"{end:%Y-%m-%dT%H:%M:%SZ}"},
        "strategy": {"prompt": "btcusdt_trader/v1", "every": "15m"},
        "llm": {"provider": "stand_in", "model": "baseline"},
        "prefetch": {"depth": 4},
        "cache": {"path": str(folder / "cache.sqlite")},
        "output": str(folder / "runs"),
        "risk": {"max_failed_share": 1.0},
    }
    if base_url is not None:
        # The name of the endpoint is part of every address: the same for each server that a test starts.
        config["llm"] |= {"provider": "openai", "base_url": base_url, "endpoint_id": "local", "max_in_flight": 4}
    for name, value in dotted.items():
        *sections, key = name.split("__")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed with --json."""
        data: dict[str, Any] = json.loads(self.out)
        return data


def agent_bt(*arguments: object, cwd: Path, python: str = sys.executable, **env: str) -> Done:
    """`agent-bt` in a process of its own."""
    done = subprocess.run(
        [python, "-m", "agent_bt", *map(str, arguments)],
        cwd=cwd,
        env=clean_env(**env),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def cli(*arguments: object) -> Done:
    """`agent-bt` in this process, which saves its start."""
    from agent_bt.cli import main as command

    argv, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["agent-bt", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv = argv
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


def clean_env(**env: str) -> dict[str, str]:
    """The environment without settings of agent-bt, with this checkout first on the path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AGENT_BT_")}
    root = str(Path(__file__).parents[2])
    return {**kept, "PYTHONPATH": root, "OPENAI_API_KEY": "local-test-key", **env}
