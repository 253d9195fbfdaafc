"""Sweeps for tests: a market file of minutes, a sweep's YAML over it, and the slow way to run a combination."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from whole_runs import START, minutes

from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.prepare import prepare_market
from agent_bt.backtest.strategy import build_strategy
from agent_bt.config.model import Config
from agent_bt.core.progress import SilentProgress
from agent_bt.core.step import Step
from agent_bt.core.types import Fill
from agent_bt.engine.loop import run_decisions
from agent_bt.evaluation.performance import Performance, performance
from agent_bt.experiments.sweep.folder import SweepFolder
from agent_bt.experiments.sweep.run import run_sweep
from agent_bt.experiments.sweep.spec import load_sweep

DAYS = 12


def write_market(path: Path, *, days: int = DAYS, seed: int = 5, holes: bool = True) -> Path:
    minutes(days * 1440, seed=seed, holes=holes).write_parquet(path)
    return path


def write_sweep(folder: Path, *, days: int = DAYS, **keys: Any) -> Path:
    """`sweep.yaml` in `folder` over its `market.parquet`; `keys` replace the sweep's, `set` is added to."""
    market = folder / "market.parquet"
    if not market.exists():
        write_market(market, days=days)
    sweep: dict[str, Any] = {
        "params": {"strategy.params.fast": [3, 6, 12], "strategy.params.slow": [12, 24]},
        **keys,
        "set": {
            "market.source": str(market),
            "market.start": f"{START:%Y-%m-%d}",
            "market.end": f"{START + timedelta(days=days):%Y-%m-%d}",
            "market.interval": "5m",
            "strategy.kind": "ma_cross",
            "strategy.every": "15m",
            "output": str(folder / "runs"),
            **keys.get("set", {}),
        },
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False), encoding="utf-8")
    return path


def swept(path: Path, *overrides: str) -> tuple[SweepFolder, dict[str, Any]]:
    return run_sweep(load_sweep(path, overrides), progress=SilentProgress())


def slow_way(config: Config, params: dict[str, Any]) -> tuple[Performance, Sequence[Fill]]:
    """One combination as `agent-bt run` does it: step by step through `decide`."""
    chosen = config.strategy.model_copy(update={"params": params})
    config = config.model_copy(update={"strategy": chosen})
    strategy = build_strategy(config, None)
    prepared = prepare_market(config, load_bars(config).bars, strategy)
    setup, market, fills = build_execution(config), prepared.market, list[Fill]()
    broker = setup.broker(market)
    run_decisions(
        market=market, bars=prepared.schedule.due.tolist(), strategy=strategy, sizer=setup.sizer(market), broker=broker,
        journal=Forgetful(), fills=fills,
    )  # fmt: skip
    first = market.first
    measured = performance(
        times=market.times[first:], equity=broker.equity[first:], exposure=broker.exposure[first:], fills=fills,
        initial_cash=config.account.cash, start=int(market.times[first]) - market.interval,
        funding=float(broker.account[0]["funding"]),
    )  # fmt: skip
    return measured, fills


class Forgetful:
    def append(self, step: Step) -> None:
        """Nothing."""


def rows_of(folder: SweepFolder) -> list[dict[str, Any]]:
    return pl.read_parquet(folder.results).to_dicts()
