"""Runs A/B experiments, and compares two finished runs.

1. Every cell is planned first, so that a missing prompt or bar is reported before a run      `_plan_all`
2. The unfinished experiment of the same identity is continued, or a new one created         `find_unfinished`
3. All cells run on a few threads behind one cache, budget and ledger                        `_run_cells`
4. The verdicts go to `experiment.json`                                                      `judge_runs`
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bt.backtest.bars import LoadedBars, load_bars
from agent_bt.backtest.estimate import Estimate, add_estimates, estimate_plan
from agent_bt.backtest.plan import RunPlan, plan_run
from agent_bt.backtest.run import run_plan
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.canonical import content_hash
from agent_bt.core.clock import now_iso
from agent_bt.core.errors import AgentBtError, BudgetReached, UsageError
from agent_bt.core.progress import Progress
from agent_bt.evaluation.leakcheck.cutoff import find_cutoff, latest_instant
from agent_bt.experiments.ab.cells import Cell, cells_of, windows_of
from agent_bt.experiments.ab.folder import FINISHED, ExperimentFolder, create, find_unfinished
from agent_bt.experiments.ab.spec import Experiment
from agent_bt.experiments.ab.verdict import judge_runs
from agent_bt.experiments.tasks import Task, run_tasks
from agent_bt.llm.ledger import read_spent
from agent_bt.llm.provider import get_provider
from agent_bt.records.hashes import config_hash
from agent_bt.records.read import Run
from agent_bt.records.registry import Registry, identify_trial
from agent_bt.records.run_folder import RESUMABLE
from agent_bt.strategies.registry import asks_model

if TYPE_CHECKING:
    from agent_bt.llm.endpoints import Endpoints

logger = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    cell: Cell
    plan: RunPlan


def run_experiment(experiment: Experiment, *, progress: Progress, offline: bool = False) -> dict[str, Any]:
    """Run an experiment, or continue the unfinished one of the same identity; return the content of `experiment.json`.

    Args:
        experiment: as loaded by `load_experiment`.
        progress: shows the decisions of all cells together.
        offline: take replies from the cache alone.

    Raises:
        AgentBtError: a cell could not run; the same command continues the experiment.
        Interrupted: the user stopped it; the same command continues the experiment.
    """
    planned = _plan_all(experiment)
    identity = _identity(experiment, planned)
    root = Path(experiment.shared.output)
    folder = find_unfinished(root, identity)
    if folder is None:
        folder = create(root, experiment.declared.name)
        folder.write(_record(experiment, folder, planned, identity=identity, status="running", started=now_iso()))
    record = folder.read()
    try:
        _run_cells(experiment, folder, planned, progress, offline)
    except AgentBtError as error:
        status = "budget" if isinstance(error, BudgetReached) else "interrupted"
        folder.write({**record, "status": status, "cells": _cells(folder, planned), "spent": _spent(folder)})
        raise
    grids = {arm: _grid(folder, planned, arm) for arm in experiment.arms}
    first, last = planned[0].plan.identity, planned[-1].plan.identity
    whole = identify_trial({**first, "market": {**first["market"], "end": last["market"]["end"]}})
    judged = judge_runs(
        grids,
        baseline=experiment.declared.baseline,
        metric=experiment.declared.metric,
        alpha=experiment.declared.alpha,
        trials=Registry(root).count(whole.series, whole.start, whole.end),
        knowledge_cutoff=_cutoff(experiment.arms.values()),
    )
    ended = {"status": FINISHED, "finished": now_iso(), "cells": _cells(folder, planned), "spent": _spent(folder)}
    record = {**record, **ended, **judged}
    folder.write(record)
    return record


def estimate_experiment(experiment: Experiment) -> Estimate:
    """Build every request of an experiment and add up what they would cost; nothing is sent.

    A request that several cells have in common is asked, and counted, once.

    Args:
        experiment: as loaded by `load_experiment`.

    Raises:
        UsageError: no arm asks a model.
        AgentBtError: the prompt, the strategy or the bars of an arm are missing or not valid.
    """
    asked: set[str] = set()
    parts = [estimate_plan(each.plan, asked) for each in _plan_all(experiment) if each.plan.prompt is not None]
    if not parts:
        raise UsageError("no arm asks a model, so that the experiment costs nothing")
    return add_estimates(parts)


def compare(baseline: Run, other: Run, *, metric: str = "mean_return", alpha: float = 0.05) -> dict[str, Any]:
    """Judge one finished run against another over the bars that both cover.

    Args:
        baseline: the run that `other` is compared with.
        other: the run that is judged.
        metric: see `evaluation.stats.metric.find_metric`.
        alpha: chance of a false verdict.

    Raises:
        UsageError: they are the same run, of different markets, or have no bars in common.
    """
    identities = [run.manifest["identity"] for run in (baseline, other)]
    one, two = (identify_trial(identity) for identity in identities)
    if baseline.run_id == other.run_id:
        raise UsageError(f"both names refer to the run {baseline.run_id}; give two different runs")
    if (one.series, identities[0]["market"]["interval"]) != (two.series, identities[1]["market"]["interval"]):
        raise UsageError(
            f"the runs are over different markets ({one.series}, bars of {identities[0]['market']['interval']}, and "
            f"{two.series}, bars of {identities[1]['market']['interval']}); compare runs on the same one"
        )
    configs = [load_config(run.folder.config, env={}) for run in (baseline, other)]
    judged = judge_runs(
        {baseline.run_id: [[baseline]], other.run_id: [[other]]},
        baseline=baseline.run_id,
        metric=metric,
        alpha=alpha,
        trials=_registry_above(other.path).count(one.series, min(one.start, two.start), max(one.end, two.end)),
        knowledge_cutoff=_cutoff(configs),
    )
    unfinished = [run.run_id for run in (baseline, other) if run.status in RESUMABLE]
    return {**judged, "warnings": [f"{run_id} is not finished" for run_id in unfinished]}


def _registry_above(path: Path) -> Registry:
    """Return the registry of the nearest folder above a run that has one."""
    roots = path.resolve().parents
    return next((found for found in map(Registry, roots) if found.path.exists()), Registry(roots[0]))


def _cutoff(configs: Iterable[Config]) -> int | None:
    """Return the latest cutoff of the models; None on a generated market, which no model can have seen."""
    asked = [c for c in configs if asks_model(c.strategy.kind, c.strategy.params) and c.market.source != "sample"]
    return latest_instant(find_cutoff(config.llm) for config in asked)


def _plan_all(experiment: Experiment) -> list[_Planned]:
    load = _loading_once()
    planned = []
    for cell in cells_of(experiment):
        try:
            plan = plan_run(cell.config, config_path=experiment.base or experiment.path, load=load)
        except AgentBtError as error:
            error.args = (f"arm {cell.arm}: {error}",)
            raise
        planned.append(_Planned(cell=cell, plan=plan))
    return planned


def _loading_once() -> Callable[[Config], LoadedBars]:
    """Return a loader that reads the bars of each window once for all arms and replicates."""
    loaded: dict[str, LoadedBars] = {}

    def load(config: Config) -> LoadedBars:
        key = content_hash(
            "agent-bt/bars/v1",
            [config.market.model_dump(), config.data.model_dump(), config.seed, *_shape(config)],
        )
        if key not in loaded:
            loaded[key] = load_bars(config)
        return loaded[key]

    return load


def _shape(config: Config) -> tuple[bool, bool]:
    """Return what else the bars depend on: whether there are several symbols, and whether they carry funding."""
    return config.multi_symbol, config.execution.funding


def _identity(experiment: Experiment, planned: Sequence[_Planned]) -> str:
    """Return the hash of an experiment: its runs, baseline, metric and alpha."""
    declared = experiment.declared
    cells = [[each.cell.relative_path, config_hash(each.plan.identity)] for each in planned]
    return content_hash("agent-bt/experiment/v1", [cells, declared.baseline, declared.metric, declared.alpha])


def _record(
    experiment: Experiment,
    folder: ExperimentFolder,
    planned: Sequence[_Planned],
    *,
    identity: str,
    status: str,
    started: str,
) -> dict[str, Any]:
    declared = experiment.declared
    return {
        "version": VERSION,
        "experiment_id": folder.experiment_id,
        "name": declared.name,
        "status": status,
        "identity": identity,
        "started": started,
        "finished": None,
        "declared": declared.model_dump(mode="json"),
        "windows": [{"start": start, "end": end} for start, end in windows_of(experiment)],
        "market": planned[0].plan.loaded.label,
        "baseline": declared.baseline,
        "metric": declared.metric,
        "alpha": declared.alpha,
        "cells": _cells(folder, planned),
    }


def _cells(folder: ExperimentFolder, planned: Sequence[_Planned]) -> list[dict[str, Any]]:
    rows = []
    for each in planned:
        cell, run = each.cell, folder.finished_run(each.cell.relative_path)
        rows.append(
            {
                "arm": cell.arm,
                "replicate": cell.replicate,
                "window": cell.window,
                "status": "unfinished" if run is None else run.status,
                "run": None if run is None else str(run.path.relative_to(folder.path)),
                "total_return": None if run is None else run.summary["performance"]["total_return"],
            }
        )
    return rows


def _spent(folder: ExperimentFolder) -> dict[str, Any] | None:
    """Return what all cells and sessions have spent, failed attempts included; None where nothing is paid."""
    if not folder.ledger.exists():
        return None
    spent = read_spent(folder.ledger)
    return {
        "calls": spent.calls,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "cost_usd": None if spent.unpriced else spent.usd or 0.0,
        "unpriced": spent.unpriced,
    }


def _grid(folder: ExperimentFolder, planned: Sequence[_Planned], arm: str) -> list[list[Run]]:
    rows: dict[int, list[Run]] = {}
    for each in planned:
        if each.cell.arm == arm:
            run = folder.finished_run(each.cell.relative_path)
            assert run is not None  # all cells have run
            rows.setdefault(each.cell.replicate, []).append(run)
    return list(rows.values())


def _run_cells(
    experiment: Experiment,
    folder: ExperimentFolder,
    planned: Sequence[_Planned],
    progress: Progress,
    offline: bool,
) -> None:
    left = [each for each in planned if folder.finished_run(each.cell.relative_path) is None]
    done = sum(each.cell.expected_decisions for each in planned) - sum(e.cell.expected_decisions for e in left)
    asking = [each for each in left if each.plan.prompt and not get_provider(each.plan.config.llm).embedded]
    with ExitStack() as opened:
        endpoints = None
        if asking and not offline:
            from agent_bt.llm.endpoints import Endpoints

            endpoints = Endpoints(experiment.shared, folder.ledger)
            opened.callback(endpoints.close)
        tasks = [
            Task(
                key=each.cell.relative_path,
                expected=each.cell.expected_decisions,
                run=partial(_run_cell, each, folder, offline, endpoints),
            )
            for each in left
        ]
        most = experiment.shared.llm.max_in_flight if asking else os.cpu_count() or 1
        run_tasks(
            tasks,
            threads=max(1, min(len(tasks), most)),
            progress=progress,
            label=experiment.declared.name,
            done=done,
            stop=endpoints.stop if endpoints else lambda: None,
            ledger=endpoints.ledger if endpoints else None,
        )


def _run_cell(
    planned: _Planned, folder: ExperimentFolder, offline: bool, endpoints: Endpoints | None, progress: Progress
) -> AgentBtError | None:
    """Run a cell; return the error that ended it early, if any, naming the cell."""
    cell = planned.cell
    plan = replace(planned.plan, root=folder.cell(cell.relative_path))
    error: AgentBtError | None
    logger.info("cell %s", cell.relative_path)
    try:
        error = run_plan(plan, progress=progress, offline=offline, report=False, endpoints=endpoints).error
    except AgentBtError as raised:
        error = raised
    if error is not None:
        error.args = (f"arm {cell.arm}, replicate {cell.replicate}, window {cell.window}: {error}",)
    return error
