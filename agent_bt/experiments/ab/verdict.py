"""Judges the runs of all arms: the part of `experiment.json` that `ab run` and `compare` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from agent_bt.evaluation.stats.verdict import Comparison, judge
from agent_bt.experiments.ab.evidence import (
    arm_evidence,
    bars_per_decision,
    common_bars,
    compare_decisions,
    describe_arm,
)
from agent_bt.experiments.ab.pairs import Grid
from agent_bt.records.read import Run

SEED = 20140101
"""Seed of the resampling: the same runs always get the same verdict."""


def judge_runs(
    grids: Mapping[str, Grid],
    *,
    baseline: str,
    metric: str,
    alpha: float,
    trials: int,
    knowledge_cutoff: int | None,
) -> dict[str, Any]:
    """Return the verdict on every arm, and the numbers behind it, as plain data.

    Args:
        grids: the runs of each arm.
        baseline: the arm that the others are compared with.
        metric: see `stats.metric.find_metric`.
        alpha: chance of any false verdict.
        trials: variants tried on this data, as the registry counts them.
        knowledge_cutoff: the latest knowledge cutoff of the models, UTC us; None if unknown.

    Raises:
        UsageError: the runs have no bars in common.
    """
    bars = common_bars(grids)
    runs = {name: [run for replicate in grid for run in replicate] for name, grid in grids.items()}
    comparison = judge(
        [arm_evidence(name, grid, bars) for name, grid in grids.items()],
        baseline=baseline,
        times=bars.times,
        metric=metric,
        alpha=alpha,
        market_returns=bars.market_returns,
        bars_per_decision=bars_per_decision([run for each in runs.values() for run in each]),
        trials=trials,
        knowledge_cutoff=knowledge_cutoff,
        seed=SEED,
    )
    judged = {
        "baseline": comparison.baseline,
        "metric": comparison.metric,
        "unit": comparison.unit,
        "alpha": comparison.alpha,
        "bars": len(bars.times),
        "bars_dropped": bars.dropped,
        "arms": _arms(comparison, grids, runs),
        "results": {name: describe_arm(grid, alpha=alpha) for name, grid in grids.items()},
        "spa": asdict(comparison.spa) if comparison.spa else None,
        "pbo": comparison.pbo,
        "pbo_blocks": comparison.pbo_blocks,
        "banners": sorted({banner for each in runs.values() for run in each for banner in run.summary["banners"]}),
    }
    # As it will be read from its file: lists for tuples, null for NaN.
    plain: dict[str, Any] = orjson.loads(orjson.dumps(judged))
    return plain


def _arms(comparison: Comparison, grids: Mapping[str, Grid], runs: Mapping[str, list[Run]]) -> dict[str, Any]:
    arms = {}
    for verdict in comparison.verdicts:
        entry = verdict.to_dict()
        failed = [name for name in (verdict.arm, comparison.baseline) if any(r.status == "failed" for r in runs[name])]
        if failed:
            reason = f"too many decisions of {' and '.join(failed)} failed (risk.max_failed_share)"
            entry["verdict"] = "cannot_tell"
            entry["warnings"] = [reason, *entry["warnings"]]
            entry["sentence"] = f"Cannot tell {verdict.arm} from {comparison.baseline}: {reason}."
        entry["decisions"] = compare_decisions(grids[comparison.baseline], grids[verdict.arm], alpha=comparison.alpha)
        arms[verdict.arm] = entry
    return arms
