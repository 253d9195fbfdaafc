"""Whole runs in the process of the test: markets with a chosen future, configs over them, and what was recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt import load_config
from agent_bt.backtest.run import Result, run_config
from agent_bt.config.model import Config
from agent_bt.core.canonical import canonical
from agent_bt.core.clock import MINUTE
from agent_bt.records.decision_record import iterate_records

START = datetime(2024, 7, 1, tzinfo=UTC)
DAY_MINUTES = 1440


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One decision as it was recorded: its instant (UTC us), and the canonical bytes of its content."""

    time: int
    content: bytes


def minutes(count: int, *, seed: int = 5, start: datetime = START, holes: bool = True) -> pl.DataFrame:
    """A random walk of minute bars; with `holes`, some are missing and some without volume, some on full hours."""
    draw = np.random.default_rng(seed)
    swing = np.sin(np.arange(count) / 40) * 0.0006
    close = np.round(60_000 * np.exp(np.cumsum(draw.normal(0, 0.001, count) + swing)), 2)
    opens = np.concatenate([[60_000.0], close[:-1]])
    volume = np.round(draw.lognormal(2, 0.5, count), 5)
    taker = np.round(volume * draw.uniform(0.2, 0.8, count), 5)
    times = pl.datetime_range(start, start + timedelta(minutes=count - 1), "1m", time_unit="us", eager=True)
    bars = pl.DataFrame(
        {
            "open_time": times,
            "open": opens,
            "high": np.maximum(opens, close) + np.round(draw.uniform(0, 30, count), 2),
            "low": np.minimum(opens, close) - np.round(draw.uniform(0, 30, count), 2),
            "close": close,
            "volume": volume,
            "quote_asset_volume": np.round(volume * close, 2),
            "trades": draw.integers(50, 500, count),
            "taker_base": taker,
            "taker_quote": np.round(taker * close, 2),
        }
    )
    if not holes:
        return bars
    outages = draw.integers(0, count, max(1, count // 700))
    missing = np.zeros(count, bool)
    for begin in outages.tolist():
        missing[begin : begin + int(draw.integers(1, 90))] = True
    quiet = np.zeros(count, bool)
    quiet[draw.integers(0, count, count // 200)] = True
    quiet[59::300] = True
    missing[[0, -1]] = False
    amounts = ["volume", "quote_asset_volume", "trades", "taker_base", "taker_quote"]
    bars = bars.with_columns(
        [
            pl.when(pl.Series(quiet)).then(0).otherwise(pl.col(name)).cast(bars.schema[name]).alias(name)
            for name in amounts
        ]
    )
    return bars.filter(~pl.Series(missing))


def with_future(bars: pl.DataFrame, other: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """The bars that open before `since`, and from then on another history."""
    return pl.concat([bars.filter(pl.col("open_time") < since), other.filter(pl.col("open_time") >= since)])


def config_over(bars: Path, *settings: str, folder: Path, end: datetime) -> Config:
    """A config over a Parquet file that writes into `folder` and nowhere else; `settings` as for `--set`."""
    base = [
        f"market.source={bars}",
        f"market.end={end:%Y-%m-%dT%H:%M:%SZ}",
        f"output={folder / 'runs'}",
        f"cache.path={folder / 'cache.sqlite'}",
        "risk.max_failed_share=1.0",
    ]
    return load_config(None, [*base, *settings], env={})


def run_over(config: Config, **options: Any) -> Result:
    """Run it in this process."""
    return run_config(config, **options)


def recorded(run_dir: Path) -> list[Past]:
    """Every decision of a finished run."""
    frame = pl.read_parquet(run_dir / "decisions.parquet")
    return [Past(time=content["time"], content=canonical(content)) for content, _ in iterate_records(frame)]


def until(records: Iterable[Past], instant: datetime) -> list[bytes]:
    """The contents of the decisions up to and including `instant`."""
    limit = int(instant.timestamp()) * MINUTE // 60
    return [record.content for record in records if record.time <= limit]


def provenance_adds_up(decisions: dict[str, Any]) -> bool:
    """Whether the counts of a summary cover every decision exactly once."""
    kinds: Sequence[str] = ("model", "invalid", "transport", "budget")
    actions = ("buy", "sell", "hold")
    total = decisions["total"]
    return sum(decisions[kind] for kind in kinds) == total == sum(decisions[action] for action in actions)
