"""Synthetic experiments for the tests and benchmarks of the A/B report: cell runs, and `experiment.json` over them.

At a decision time all runs see the same bars; an arm's prompt has a line of its own, and the account's line is the
run's. Actions are mostly those of a common plan; arms and replicates depart from it at places of their own.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.clock import DAY, MINUTE, iso, time_us
from agent_bt.core.types import Fill
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.evaluation.performance import performance
from agent_bt.experiments.ab.folder import ExperimentFolder
from agent_bt.experiments.ab.verdict import judge_runs
from agent_bt.records.files import write_whole
from agent_bt.records.read import load_run
from agent_bt.records.run_folder import RunFolder, write_json
from agent_bt.records.schema import decision_schema, json_schema
from agent_bt.records.tables import equity_frame, fills_frame

START = time_us("2024-07-01")
CASH = 10_000.0
EVERY_MIN = 60
SIDES = np.array(["HOLD", "BUY", "SELL"])
NASTY = (
    "</script><script>window.__pwned = 1</script><img src=x onerror='window.__pwned = 2'> 市場 & &amp; \u2028 `${1}`"
)
NASTY_ROW = 5
FAILED_EVERY = 97


def make_experiment(
    root: Path, decisions: int, *, arms: int = 3, replicates: int = 2, windows: int = 1, rows: int = 60, seed: int = 1
) -> Path:
    """A finished experiment of hourly decisions over minute bars, `decisions` in each window; returns its folder.

    `rows` is the number of bars in a prompt. Row `NASTY_ROW` of every run holds `NASTY` as its reply; the last arm is
    without its third decision.
    """
    folder = ExperimentFolder(root / "ab" / "20240701T000000Z-prompts-abc123")
    names = [f"v{number + 1}" for number in range(arms)]
    cells, grids = [], {}
    markets = [_Market(np.random.default_rng([seed, window]), window, decisions, rows) for window in range(windows)]
    for number, arm in enumerate(names):
        grid = []
        for replicate in range(replicates):
            runs = []
            for market in markets:
                run_id = f"20240701T000000Z-{arm}-{number:02x}{replicate:02x}{market.window:02x}"
                place = f"runs/{arm}/w{market.window}-r{replicate}/{run_id}"
                _make_run(folder.path / place, market, arm, number, replicate, last=number == arms - 1)
                runs.append(load_run(folder.path / place))
                cells.append(
                    {"arm": arm, "replicate": replicate, "window": market.window, "status": "done", "run": place,
                     "total_return": runs[-1].summary["performance"]["total_return"]}
                )  # fmt: skip
            grid.append(runs)
        grids[arm] = grid
    judged = judge_runs(grids, baseline="v1", metric="mean_return", alpha=0.05, trials=arms, knowledge_cutoff=None)
    folder.write(
        {
            "version": 1, "experiment_id": folder.experiment_id, "name": "prompts", "status": "done",
            "identity": "a" * 64, "started": "2024-10-01T00:00:00Z", "finished": "2024-10-01T00:10:00Z",
            "declared": {"name": "prompts", "arms": {arm: {"strategy.prompt": f"trader/{arm}"} for arm in names},
                         "baseline": "v1", "replicates": replicates, "metric": "mean_return", "alpha": 0.05},
            "windows": [{"start": iso(market.start)[:10], "end": iso(market.end)} for market in markets],
            "market": "SAMPLE MARKET (seed 7)", "cells": cells, **judged,
        }
    )  # fmt: skip
    return folder.path


class _Market:
    """Minute bars of one window, the plan of actions that all runs start from, and the bars as prompts show them."""

    def __init__(self, rng: np.random.Generator, window: int, decisions: int, rows: int) -> None:
        self.window, self.count = window, decisions
        bars = decisions * EVERY_MIN
        self.start = START + window * (bars * MINUTE // DAY + 1) * DAY
        self.times = self.start + np.arange(1, bars + 1, dtype=np.int64) * MINUTE
        self.end = int(self.times[-1])
        self.close = np.round(60_000 * np.exp(np.cumsum(rng.normal(0, 0.0006, bars))), 2)
        self.at = np.arange(decisions) * EVERY_MIN + EVERY_MIN - 1
        self.plan = rng.choice(3, decisions, p=[0.88, 0.06, 0.06])
        numbers = rng.normal(0, 40, (decisions, rows, 6)).round(1)
        self.tables = ["\n".join(",".join(map(str, row)) for row in table) for table in numbers.tolist()]


def _make_run(path: Path, market: _Market, arm: str, number: int, replicate: int, *, last: bool) -> None:
    folder = RunFolder(path)
    path.mkdir(parents=True)
    rng = np.random.default_rng([market.window, number, replicate, 7])
    side = market.plan.copy()
    for draws, share in ((np.random.default_rng([market.window, number]), 0.06 * (number > 0)), (rng, 0.03)):
        apart = draws.random(market.count) < share
        side[apart] = draws.choice(3, int(apart.sum()))
    failed = np.arange(market.count) % FAILED_EVERY == 11 + number
    side[failed] = 0
    equity, exposure, fills = _trade(market, side)
    keep = np.ones(market.count, bool)
    keep[2] = not last
    frame = _decisions(market, arm, number, rng, side, failed, equity, exposure).filter(pl.Series(keep))
    frame.write_parquet(folder.decisions, row_group_size=512)
    fills_frame(fills).write_parquet(folder.fills)
    equity_frame(
        time=market.times, equity=equity, exposure=exposure, price=market.close, initial_cash=CASH
    ).write_parquet(folder.equity)
    held = pl.Series(market.times).cast(pl.Datetime("us", "UTC"))
    pl.DataFrame({"time": held, "buy_and_hold": CASH * market.close / market.close[0]}).write_parquet(
        path / "baselines.parquet"
    )
    measures = asdict(
        performance(
            times=market.times, equity=equity, exposure=exposure, fills=fills, initial_cash=CASH, start=market.start
        )
    )
    made = {name: int((side[keep] == code).sum()) for code, name in enumerate(("hold", "buy", "sell"))}
    write_json(
        folder.summary,
        {
            "run_id": folder.run_id, "status": "done", "performance": measures,
            "about": {"strategy": f"agent:trader/{arm}", "model": "stand_in/baseline", "initial_cash": CASH},
            "decisions": {"total": int(keep.sum()), "model": int((keep & ~failed).sum()),
                          "invalid": int((keep & failed).sum()), "transport": 0, "budget": 0, **made},
            "banners": ["SAMPLE MARKET: generated prices"],
        },
    )  # fmt: skip
    text = f"---\nname: trader\n---\nsystem:\nYou trade.\n{'Mind the momentum.' if number else ''}\n{NASTY}\n"
    write_json(
        folder.manifest,
        {
            "run_id": folder.run_id, "name": arm, "prompt": {"name": f"trader/{arm}", "text": text},
            "identity": {"strategy": {"every": "1h"}, "market": {"interval": "1m"}}, "llm": {"effective": None},
        },
    )  # fmt: skip
    write_whole(folder.config, b"name: synthetic\n")


def _trade(market: _Market, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Fill]]:
    """Equity and exposure at every bar, fully in or out; a BUY when in and a SELL when out do nothing."""
    held = np.zeros(len(market.close))
    fills, inside = [], False
    for row in np.flatnonzero(side).tolist():
        buys = side[row] == 1
        if buys == inside:
            continue
        inside = buys
        bar, price = int(market.at[row]), float(market.close[market.at[row]])
        held[bar + 1 :] = float(inside)
        quantity = 0.1 if inside else -0.1
        fills.append(
            Fill(
                time=int(market.times[bar]), bar=bar, symbol="BTCUSDT", quantity=quantity, price=price,
                reference_price=price, fee=1.0, slippage=0.0, realised_pnl=0.0, reason="order",
            )
        )  # fmt: skip
    returns = np.diff(market.close, prepend=market.close[0]) / np.concatenate([market.close[:1], market.close[:-1]])
    return CASH * np.cumprod(1.0 + held * returns), held, fills


def _decisions(
    market: _Market,
    arm: str,
    number: int,
    rng: np.random.Generator,
    side: np.ndarray,
    failed: np.ndarray,
    equity: np.ndarray,
    exposure: np.ndarray,
) -> pl.DataFrame:
    """As `decisions.parquet` is, with a window of one bar."""
    schema = decision_schema(BAR_COLUMNS)
    plain = json_schema(schema)
    times, prices = market.times[market.at], market.close[market.at]
    actions = SIDES[side].tolist()
    system = "You trade BTCUSDT. " * 60 + ("\nMind the momentum." * number)
    replies = [
        "I would wait." if bad else json.dumps({"action": action, "size_pct": 0.5, "note": f"momentum {draw:.2f}"})
        for action, bad, draw in zip(actions, failed.tolist(), rng.normal(0, 9, market.count).tolist(), strict=True)
    ]
    replies[NASTY_ROW] = f"{NASTY} {arm}"
    messages = [
        [{"role": "system", "content": system}, {"role": "user", "content": _user(time, share, number, table)}]
        for time, share, table in zip(times.tolist(), exposure[market.at].tolist(), market.tables, strict=True)
    ]
    orders = [
        [] if not code else [{"symbol": "BTCUSDT", "lots": 1 if code == 1 else -1, "quantity": 0.1}]
        for code in side.tolist()
    ]
    latencies = rng.lognormal(6, 0.4, market.count).tolist()
    varying: dict[str, Any] = {
        "index": np.arange(market.count), "time": times, "bar": market.at, "messages": messages, "reply": replies,
        "action": actions, "size": [None if not code else 0.5 for code in side.tolist()], "orders": orders,
        "note": ["" if bad else f"note of {arm}" for bad in failed.tolist()],
        "provenance": np.where(failed, "invalid", "model").tolist(),
        "reason": np.where(failed, "not_json", "").tolist(),
        "prices": [[{"symbol": "BTCUSDT", "price": price}] for price in prices.tolist()],
        "account": [{"cash": 0.0, "equity": value, "realised_pnl": 0.0, "unrealised_pnl": 0.0, "fees": 0.0,
                     "funding": 0.0, "peak_equity": value} for value in equity[market.at].tolist()],
        "telemetry": [{"latency_ms": latency, "cached": False, "cost_usd": 0.00021 * (1 + number), "attempts": 1,
                       "prompt_tokens": 1900, "completion_tokens": 40, "detail": "", "error": None}
                      for latency in latencies],
        "window": [{name: [] for name in ("close_time", *BAR_COLUMNS)}] * market.count,
    }  # fmt: skip
    constant = {"symbol": "BTCUSDT", "prompt": f"trader/{arm}", "request": "b" * 64, "finish_reason": "stop",
                "sizing": "available", "repaired": "", "risk": "none"}  # fmt: skip
    columns = {}
    for name, kind in plain.items():
        if name in varying:
            columns[name] = pl.Series(name, varying[name], dtype=kind)
        elif isinstance(kind, pl.List):
            columns[name] = pl.Series(name, [[]] * market.count, dtype=kind)
        else:
            columns[name] = pl.Series(name, [constant.get(name)] * market.count, dtype=kind)
    columns["fills"] = pl.Series("fills", [[]] * market.count, dtype=plain["fills"])
    return pl.DataFrame(columns).select(list(schema)).cast(schema)  # type: ignore[arg-type]


def _user(time: int, share: float, number: int, table: str) -> str:
    momentum = "momentum: up" if number else ""
    return f"Time: {iso(time)[11:16]} UTC\n\nposition: {100 * share:.0f}%\n{momentum}\nBars\n{table}"
