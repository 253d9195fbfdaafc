"""Turns the runs of an experiment into the inputs of its statistics: returns over common bars, paired decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.clock import duration_us
from agent_bt.core.errors import UsageError
from agent_bt.core.frequency import longest_period
from agent_bt.core.types import Fill
from agent_bt.evaluation.metrics import trade_results
from agent_bt.evaluation.stats import decisions as compared
from agent_bt.evaluation.stats.caveats import Arm
from agent_bt.experiments.ab.pairs import (
    Grid,
    common_times,
    compare_targets,
    count_unrecorded_pairs,
    decision_count,
    multi_symbol,
    pairs_of,
    unchanged_count,
)
from agent_bt.records.direction import direction_column
from agent_bt.records.read import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """The bars that all runs of a comparison cover.

    Attributes:
        windows: close times of each window, int64, ascending, UTC us.
        market_returns: simple returns of the market, float64 (T,), all windows one after another.
        dropped: bars of the longest runs that not all runs have.
    """

    windows: tuple[np.ndarray, ...]
    market_returns: np.ndarray
    dropped: int

    @property
    def times(self) -> np.ndarray:
        """Close times of all windows; int64 (T,), ascending, UTC us."""
        return np.concatenate(self.windows)


def common_bars(arms: Mapping[str, Grid]) -> Bars:
    """Return the bars that all runs of all arms cover.

    Args:
        arms: name -> runs.

    Raises:
        UsageError: the runs have fewer than two bars in common.
    """
    grids = list(arms.values())
    windows, returns, longest = [], [], 0
    for window in range(len(grids[0][0])):
        times = [_times(replicate[window]) for grid in grids for replicate in grid]
        common = reduce(np.intersect1d, times)
        longest += max(map(len, times))
        windows.append(common)
        returns.append(_market_returns(grids[0][0][window], common))
    total = sum(map(len, windows))
    if total < 2:
        raise UsageError("the runs have no bars in common; compare runs over the same market and time")
    return Bars(windows=tuple(windows), market_returns=np.concatenate(returns), dropped=longest - total)


def arm_evidence(name: str, grid: Grid, bars: Bars) -> Arm:
    """Return the returns, trades and counts of an arm, as `evaluation.stats` takes them.

    Args:
        name: of the arm.
        grid: its runs.
        bars: those of all arms.
    """
    returns = [
        np.concatenate([_returns(run, times) for run, times in zip(replicate, bars.windows, strict=True)])
        for replicate in grid
    ]
    runs = [run for replicate in grid for run in replicate]
    counts = [run.summary["decisions"] for run in runs]
    return Arm(
        name=name,
        returns=np.stack(returns),
        trade_results=[[result for run in replicate for result in _trades(run)] for replicate in grid],
        decisions=sum(map(decision_count, runs)),
        failed=sum(count["total"] - count["model"] for count in counts),
        response_format=_response_format(runs[0]),
    )


def bars_per_decision(runs: Sequence[Run]) -> int:
    """Return the largest number of bars between two decisions of any of the runs."""
    identities = [run.manifest["identity"] for run in runs]
    return max(_longest_us(each) // duration_us(each["market"]["interval"]) for each in identities)


def _longest_us(identity: Mapping[str, Any]) -> int:
    if identity.get("mode") != "cross_sectional":
        return duration_us(identity["strategy"]["every"])
    return longest_period(identity["rebalance"])


def describe_arm(grid: Grid, *, alpha: float) -> dict[str, Any]:
    """Return the results of one arm: measures of each replicate, failure rate, cost and latency per decision.

    Args:
        grid: its runs.
        alpha: 1 - confidence of the limits of the failure rate.
    """
    runs = [run for replicate in grid for run in replicate]
    counts = [run.summary["decisions"] for run in runs]
    total, model = (sum(count[key] for count in counts) for key in ("total", "model"))
    calls = pl.concat([_calls(run) for run in runs])
    return {
        "runs": len(runs),
        "strategy": runs[0].summary["about"]["strategy"],
        "model": runs[0].summary["about"]["model"],
        "decisions": {key: sum(count.get(key, 0) for count in counts) for key in _COUNTS},
        "failure_rate": asdict(compared.wilson_rate(total - model, total, alpha=alpha)) if total else None,
        "cost_usd_per_decision": _per_decision(calls["cost_usd"]),
        "latency_ms_per_decision": _per_decision(calls["latency_ms"]),
        "total_return": [_compounded(replicate) for replicate in grid],
        "sharpe": [_mean_of(replicate, "sharpe") for replicate in grid],
        "max_drawdown": [min(run.summary["performance"]["max_drawdown"] for run in replicate) for replicate in grid],
        "trades": [sum(run.summary["performance"]["trades"] for run in replicate) for replicate in grid],
    }


_COUNTS = ("total", "model", "invalid", "transport", "budget", "buy", "sell", "hold", "silent")


def compare_decisions(baseline: Grid, arm: Grid, *, alpha: float) -> dict[str, Any]:
    """Return where two arms decided differently, and the PnL of it in quote units, averaged over replicates.

    A decision over several symbols has no single action: `pairs.compare_targets` compares target weights instead.

    Args:
        baseline: runs of the baseline, by replicate and window.
        arm: runs of the other arm, as many.
        alpha: 1 - confidence of the limits, in (0, 1).
    """
    if multi_symbol(baseline[0][0]) or multi_symbol(arm[0][0]):
        return compare_targets(baseline, arm, alpha=alpha)
    matrix = np.zeros((3, 3), np.int64)
    by_flip, before, unpaired = np.zeros((3, 3)), 0.0, 0
    for one, other in pairs_of(baseline, arm):
        first, second = _actions(one), _actions(other)
        times = common_times(one, other, _physical(first), _physical(second))
        unchanged = count_unrecorded_pairs(one, other, len(times))
        unpaired += decision_count(one) + decision_count(other) - 2 * (len(times) + unchanged)
        matrix[_HOLD, _HOLD] += unchanged
        if not len(times):
            continue
        first, second = _at(one, first, times), _at(other, second, times)
        actions = first["action"].to_list(), second["action"].to_list()
        matrix += compared.flip_matrix(*actions)
        gains = _gains(second["equity"], other) - _gains(first["equity"], one)
        credited = compared.attribute_flips(*actions, gains)
        by_flip += credited.by_flip
        before += credited.before
    replicates = len(baseline)
    paired = int(matrix.sum())
    return {
        "kind": "actions",
        "paired": paired,
        "unpaired": unpaired,
        "actions": list(compared.ACTIONS),
        "flip_matrix": matrix.tolist(),
        "agreement": asdict(compared.agreement(matrix, alpha=alpha)) if paired else None,
        "flip_pnl": (by_flip / replicates).tolist(),
        "pnl_before_first_flip": before / replicates,
    }


_HOLD = compared.ACTIONS.index("HOLD")


def _times(run: Run) -> np.ndarray:
    times: np.ndarray = run.equity["time"].to_physical().to_numpy()
    return times


def _physical(frame: pl.DataFrame) -> np.ndarray:
    times: np.ndarray = frame["time"].to_physical().to_numpy()
    return times


def _at(run: Run, actions: pl.DataFrame, times: np.ndarray) -> pl.DataFrame:
    """Return action and equity before the decision at each of `times`; HOLD where the decision is not recorded."""
    wanted = pl.DataFrame({"time": pl.Series(times).cast(actions.schema["time"])})
    found = wanted.join(actions, on="time", how="left", maintain_order="left")
    if not unchanged_count(run):
        return found
    held = run.equity.select(pl.col("time").cast(actions.schema["time"]), held="equity")
    return found.join(held, on="time", how="left", maintain_order="left").select(
        "time", pl.col("action").fill_null("HOLD"), pl.col("equity").fill_null(pl.col("held"))
    )


def _market_returns(run: Run, times: np.ndarray) -> np.ndarray:
    """Return the simple returns of the market between successive `times`; of several symbols, their mean."""
    if not multi_symbol(run):
        prices = run.equity["price"].to_numpy()[np.searchsorted(_times(run), times)]
        return _changes(prices[:, np.newaxis])
    bars = pl.read_parquet(run.folder.market, columns=["close_time", "symbol", "close"])
    wide = bars.pivot(on="symbol", index="close_time", values="close").sort("close_time")
    own = wide["close_time"].to_physical().to_numpy()
    closes = wide.drop("close_time").select(pl.all().forward_fill()).cast(pl.Float64).to_numpy()
    return _changes(closes[np.searchsorted(own, times)])


def _changes(prices: np.ndarray) -> np.ndarray:
    """Return the mean over columns of price / previous price - 1, 0 in the first row; (T,) from (T, N)."""
    changes = np.zeros(prices.shape)
    changes[1:] = prices[1:] / prices[:-1] - 1.0
    known = np.isfinite(changes)
    means: np.ndarray = np.where(known, changes, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return means


def _cash(run: Run) -> float:
    cash: float = run.summary["about"]["initial_cash"]
    return cash


def _returns(run: Run, times: np.ndarray) -> np.ndarray:
    """Return the simple returns between successive common bars; the first is from the run's bar before it."""
    rows = np.searchsorted(_times(run), times)
    equity = np.concatenate([[_cash(run)], run.equity["equity"].to_numpy()])
    after, before = equity[rows + 1], equity[np.concatenate([rows[:1], rows[:-1] + 1])]
    with np.errstate(divide="ignore", invalid="ignore"):
        returns: np.ndarray = np.where(before > 0.0, after / before - 1.0, 0.0)
    return returns


def _trades(run: Run) -> list[float]:
    fills = [Fill(**row) for row in run.fills.with_columns(pl.col("time").to_physical()).to_dicts()]
    cash = _cash(run)
    return [result / cash for result in trade_results(fills)]


def _response_format(run: Run) -> str:
    negotiated = (run.manifest.get("llm") or {}).get("effective") or {}
    return str(negotiated.get("response_format", ""))


def _actions(run: Run) -> pl.DataFrame:
    """Return time, action (BUY, SELL, HOLD; of target weights the direction of their orders) and equity before it."""
    # Only the needed columns: the prompts and windows of many runs do not fit into memory together.
    wanted = pl.scan_parquet(run.folder.decisions).select(
        "time",
        action=direction_column(),
        equity=pl.col("account").struct.field("equity"),
    )
    return wanted.collect()


def _gains(equity: pl.Series, run: Run) -> np.ndarray:
    """Return the change of equity from each decision to the next, and from the last one to the end of the run."""
    final = run.summary["performance"]["final_equity"]
    gains: np.ndarray = np.diff(equity.to_numpy(), append=final)
    return gains


def _calls(run: Run) -> pl.DataFrame:
    """Return cost and latency of every decision with a model call; null where unknown."""
    call = pl.col("telemetry").struct
    asked = pl.scan_parquet(run.folder.decisions).filter(pl.col("request").is_not_null())
    return asked.select(cost_usd=call.field("cost_usd"), latency_ms=call.field("latency_ms")).collect()


def _per_decision(values: pl.Series) -> dict[str, Any] | None:
    known = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return asdict(compared.per_decision(known)) if len(known) else None


def _compounded(replicate: Sequence[Run]) -> float:
    return float(np.prod([1.0 + run.summary["performance"]["total_return"] for run in replicate]) - 1.0)


def _mean_of(replicate: Sequence[Run], key: str) -> float | None:
    values = [run.summary["performance"][key] for run in replicate]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
