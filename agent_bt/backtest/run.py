"""Run a backtest, or resume one: what the command line and Python users call."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bt.backtest.execute import Executed, execute
from agent_bt.backtest.folder import find_folder, is_blank, make_folder, note_model, read_replies
from agent_bt.backtest.identity import compare_identities, keep_endpoint
from agent_bt.backtest.model import Model, forget_negotiation, open_model
from agent_bt.backtest.model_reference import ModelReference
from agent_bt.backtest.plan import PreparedRun, RunPlan, plan_run
from agent_bt.backtest.prepare import PreparedMarket, prepare_market
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.errors import AgentBtError, ConfigError, RecordError, UsageError
from agent_bt.core.jit import compiling_announced
from agent_bt.core.progress import Progress, SilentProgress
from agent_bt.core.types import Reply
from agent_bt.llm.chat_response import ParameterRefused
from agent_bt.records.read import Run, load_run
from agent_bt.records.registry import Registry
from agent_bt.records.run_folder import RunFolder
from agent_bt.reports.html import write_report

if TYPE_CHECKING:
    from agent_bt.llm.endpoints import Endpoints


def run(
    config: Config,
    *,
    config_path: Path | None = None,
    limit: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Run a backtest and read its folder; an unfinished run of the same identity is continued.

    >>> from agent_bt import load_config
    >>> config = load_config(overrides=["market.end=2024-07-02", "strategy.every=4h"], env={})
    >>> result = run(config, limit=3)
    >>> result.status, result.decisions["action"].to_list()
    ('done', ['HOLD', 'HOLD', 'HOLD'])

    Args:
        config: as `load_config` returns it.
        config_path: file it was read from; prompts beside it are found.
        limit: number of decisions after which the run stops; None: all.
        fresh: begin a new run even if an unfinished one could be continued.
        progress: shows how far the run is.

    Raises:
        AgentBtError: something stopped the run; `.exit_code` is what the command line ends with.
    """
    folder = run_config(config, config_path=config_path, limit=limit, fresh=fresh, progress=progress)
    return load_run(folder.run_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run that has ended.

    Attributes:
        run_dir: its folder.
        summary: as in `summary.json`.
        error: what ended it early; None if nothing did.
    """

    run_dir: Path
    summary: Mapping[str, Any]
    error: AgentBtError | None = None

    @property
    def status(self) -> str:
        """Why the run ended: `done`, `failed`, `interrupted` or `budget`."""
        status: str = self.summary["status"]
        return status

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        return dict(self.summary)


def run_config(
    config: Config,
    *,
    config_path: Path | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
    offline: bool = False,
    report: bool = True,
) -> Result:
    """Run a backtest; what ended it early is not raised but in the result, once there is something to show.

    Args:
        config: as `load_config` returns it.
        config_path: file it was read from; prompts beside it are found.
        limit: number of decisions after which the run stops; None: all.
        progress: shows how far the run is; None: nothing is shown.
        fresh: begin a new run even if an unfinished one could be continued.
        offline: take replies from the cache alone and open no socket.
        report: write `report.html`.

    Raises:
        AgentBtError: the run could not begin, or nothing could be recorded.
    """
    planned = plan_run(config, config_path=config_path, limit=limit)
    return run_plan(planned, progress=progress, fresh=fresh, offline=offline, report=report)


def run_plan(
    planned: RunPlan,
    *,
    progress: Progress | None = None,
    fresh: bool = False,
    offline: bool = False,
    report: bool = True,
    endpoints: Endpoints | None = None,
) -> Result:
    """Run what was planned, or continue the unfinished run of its identity.

    Args:
        planned: the run.
        progress: shows how far the run is.
        fresh: begin a new run even if an unfinished one could be continued.
        offline: take replies from the cache alone and open no socket.
        report: write `report.html`.
        endpoints: open endpoints that are shared with other runs; None: the run opens its own.

    Raises:
        AgentBtError: the run could not begin, or nothing could be recorded.
    """
    folder = find_folder(planned.root, planned.identity, fresh=fresh)
    return _run(planned, folder, progress, offline, report, endpoints)


def resume(
    folder: RunFolder,
    *,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    offline: bool = False,
) -> Result:
    """Continue an unfinished run from its folder.

    Args:
        folder: of the run.
        overrides: `--set` values; they may change operational settings, which are not part of the run's identity.
        progress: shows how far the run is.
        offline: take replies from the cache alone and open no socket.

    Raises:
        UsageError: the run is finished.
        ConfigError: its config, prompt or data have changed; the message says what differs.
    """
    if not folder.unfinished:
        raise UsageError(f"{folder.run_id} is finished; `agent-bt replay {folder.run_id}` runs it again")
    kept = folder.read_manifest()
    written = kept.get("config_file")
    planned = plan_run(
        keep_endpoint(load_config(folder.config, overrides), kept["identity"]),
        config_path=None if written is None else Path(written),
        limit=kept["identity"].get("limit"),
    )
    changes = compare_identities(kept["identity"], planned.identity)
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        raise ConfigError(
            f"{folder.run_id} cannot be continued, it would be another run:\n{listed}\n"
            "Restore what changed, or begin a new run with `agent-bt run`"
        )
    return _run(planned, folder, progress, offline, report=True)


def _run(
    plan: RunPlan,
    folder: RunFolder | None,
    progress: Progress | None,
    offline: bool,
    report: bool,
    endpoints: Endpoints | None = None,
) -> Result:
    """Open what the plan needs, execute it, register it; remove a new folder in which nothing was recorded."""
    progress = progress or SilentProgress()
    created = folder is None
    folder = folder or make_folder(plan.root, plan.config, plan.identity, plan.prompt, plan.config_path)
    try:
        with ExitStack() as opened:
            opened.enter_context(compiling_announced(progress.note))
            # What is wrong with the config is reported before a request is sent to a model.
            prepared = prepare_market(plan.config, plan.loaded.bars, plan.strategy, plan.limit)
            executed = _execute(plan, prepared, folder, progress, offline, endpoints)
    finally:
        if created and is_blank(folder):
            shutil.rmtree(folder.path)
    if executed.summary is None:
        assert executed.error is not None
        raise executed.error
    Registry(Path(plan.config.output)).add(plan.identity, name=plan.config.name, run_id=folder.run_id)
    error = executed.error
    if report:
        try:
            write_report(folder.path)
        except RecordError as failed:
            error = error or RecordError(
                f"{folder.run_id} is recorded, but its report could not be written: {failed.__cause__ or failed}; "
                f"make room, then write it with `agent-bt report {folder.run_id}`"
            )
    return Result(run_dir=folder.path, summary=executed.summary, error=error)


def _execute(
    plan: RunPlan,
    prepared: PreparedMarket,
    folder: RunFolder,
    progress: Progress,
    offline: bool,
    endpoints: Endpoints | None,
) -> Executed:
    """Open the model and execute the run; once more if the endpoint refuses what it accepted in an earlier run."""
    recorded = read_replies(folder)
    run = PreparedRun(plan=plan, prepared=prepared, folder=folder, continued=bool(recorded), offline=offline)
    if plan.model is None:
        return execute(run, progress)
    for last in (False, True):
        with closing(_open_model(plan, plan.model, folder, recorded, offline, endpoints)) as model:
            if model.probe_defect:
                progress.note(
                    f"the model's answer to a test question is not valid ({model.probe_defect}): if it answers the "
                    "prompts of the run like that, each becomes a HOLD; try llm.response_format or another model"
                )
            executed = execute(replace(run, ledger=model.ledger if model.prices else None), progress)
        refused = executed.summary is None and isinstance(executed.error, ParameterRefused)
        if last or not (refused and model.recalled):
            break
        progress.note(
            f"the endpoint refuses what it accepted before ({executed.error}); it is asked again what it accepts"
        )
        forget_negotiation(plan.config, model, endpoints)
        folder.update_manifest(llm=None)
    return executed


def _open_model(
    plan: RunPlan,
    reference: ModelReference,
    folder: RunFolder,
    recorded: Mapping[str, Reply],
    offline: bool,
    endpoints: Endpoints | None,
) -> Model:
    """Open the model that the agent refers to; replies that are recorded already answer first."""
    negotiated = (folder.read_manifest().get("llm") or {}).get("effective")
    model = open_model(
        plan.config, negotiated=negotiated, ledger_path=folder.ledger, offline=offline, endpoints=endpoints
    )
    try:
        note_model(folder, model)
        model.answer_first_from(recorded)
        reference.open(model.llm, model.form)
    except BaseException:
        model.close()
        raise
    return model
