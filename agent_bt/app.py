"""Config -> objects -> run: what the command line and Python users call."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bt import assembly, runner
from agent_bt.agents.prompt import Prompt
from agent_bt.assembly import LoadedBars
from agent_bt.config import Config
from agent_bt.core.clock import iso, time_us
from agent_bt.core.errors import AgentBtError, ConfigError, RecordError, UsageError
from agent_bt.core.finding import Finding
from agent_bt.core.jit import compiling_announced
from agent_bt.core.progress import Progress, SilentProgress
from agent_bt.core.protocols import AgentStrategy
from agent_bt.core.types import Portfolio
from agent_bt.experiments.registry import Registry
from agent_bt.models import open_model
from agent_bt.records.hashes import data_hash
from agent_bt.records.read import Run, load_run
from agent_bt.records.run_folder import RunFolder
from agent_bt.reports.html import write_report
from agent_bt.settings import load_config
from agent_bt.strategies.registry import asks_model

if TYPE_CHECKING:
    from agent_bt.endpoints import Endpoints


def run(
    config: Config,
    *,
    config_path: Path | None = None,
    limit: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Run a backtest and read its folder; an unfinished run of the same identity is continued.

    Args:
        config: see `load_config`.
        config_path: the file it came from; prompts beside it are found.
        limit: stop after so many decisions.
        fresh: begin anew.
        progress: told how far the run is.

    Raises:
        AgentBtError: something stopped the run; `.exit_code` is what the command line ends with.
    """
    folder = run_config(config, config_path=config_path, limit=limit, fresh=fresh, progress=progress)
    return load_run(folder.run_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run that has ended, one way or another: its folder, its summary, and the error that ended it early."""

    run_dir: Path
    summary: Mapping[str, Any]
    error: AgentBtError | None = None

    @property
    def status(self) -> str:
        """done, failed, interrupted, budget."""
        status: str = self.summary["status"]
        return status

    def to_dict(self) -> dict[str, Any]:
        """The summary."""
        return dict(self.summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run that could begin: its prompt (None: no agent) and bars are there, and its identity is known.

    Its folder is made under `root`; prompts beside `config_path` are found again when it is resumed.
    """

    config: Config
    prompt: Prompt | None
    loaded: LoadedBars
    identity: Mapping[str, Any]
    root: Path
    config_path: Path | None = None
    limit: int | None = None


def plan(
    config: Config,
    *,
    config_path: Path | None = None,
    limit: int | None = None,
    root: Path | None = None,
    load: Callable[[Config], LoadedBars] = assembly.load_bars,
) -> Plan:
    """Find what a run needs, without beginning it; `root` stands in for the config's `output`, `load` fetches bars.

    Raises:
        AgentBtError: the prompt or the bars are not there.
    """
    prompt = assembly.find_prompt(config, config_path)
    config = assembly.with_prompt_defaults(config, prompt)
    if prompt is not None:
        assembly.check_agent(config)
        runner.guess_of(config)
    # What is wrong with the strategy is told before a market is loaded for it.
    assembly.build_strategy(config, prompt)
    loaded = load(config)
    identity = runner.identity_of(config, prompt=prompt, data=data_hash(loaded.bars), limit=limit)
    return Plan(
        config=config,
        prompt=prompt,
        loaded=loaded,
        identity=identity,
        root=root or Path(config.output),
        config_path=config_path,
        limit=limit,
    )


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
    """Run a backtest; what ended it early is in the result, not raised, once there is something to show.

    Args:
        config, config_path, limit, progress, fresh: as for `run`.
        offline: replies come from the cache alone; no socket is opened.
        report: write `report.html`.

    Raises:
        AgentBtError: the run could not begin, or nothing could be recorded.
    """
    planned = plan(config, config_path=config_path, limit=limit)
    return run_plan(planned, progress=progress, fresh=fresh, offline=offline, report=report)


def run_plan(
    planned: Plan,
    *,
    progress: Progress | None = None,
    fresh: bool = False,
    offline: bool = False,
    report: bool = True,
    endpoints: Endpoints | None = None,
) -> Result:
    """Run what was planned, or continue the unfinished run of its identity; `endpoints` may be shared with others.

    Raises:
        AgentBtError: the run could not begin, or nothing could be recorded.
    """
    folder = runner.find_folder(planned.root, planned.identity, fresh=fresh)
    return _run(planned, folder, progress, offline, report, endpoints)


def resume(
    folder: RunFolder,
    *,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    offline: bool = False,
) -> Result:
    """Continue an unfinished run from its folder; `overrides` may change what does not make the run what it is.

    Raises:
        UsageError: the run is finished.
        ConfigError: its config, prompt or data are no longer what they were; the message says what differs.
    """
    if not folder.unfinished:
        raise UsageError(f"{folder.run_id} is finished; `agent-bt replay {folder.run_id}` walks through it again")
    kept = folder.read_manifest()
    written = kept.get("config_file")
    planned = plan(
        load_config(folder.config, overrides),
        config_path=None if written is None else Path(written),
        limit=kept["identity"].get("limit"),
    )
    changes = runner.identity_changes(kept["identity"], planned.identity)
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        raise ConfigError(
            f"{folder.run_id} cannot be continued, it would be another run:\n{listed}\n"
            "Restore what changed, or begin a new run with `agent-bt run`"
        )
    return _run(planned, folder, progress, offline, report=True)


def _run(
    planned: Plan,
    folder: RunFolder | None,
    progress: Progress | None,
    offline: bool,
    report: bool,
    endpoints: Endpoints | None = None,
) -> Result:
    """Open the model, set the stage, walk; a new folder in which nothing was recorded disappears again."""
    config, prompt, loaded = planned.config, planned.prompt, planned.loaded
    progress = progress or SilentProgress()
    made = folder is None
    folder = folder or runner.make_folder(planned.root, config, planned.identity, prompt, planned.config_path)
    try:
        with ExitStack() as opened:
            opened.enter_context(compiling_announced(progress.note))
            # What is wrong with the config is told before a model is asked anything.
            strategy = assembly.build_strategy(config, prompt)
            stage = assembly.set_stage(config, loaded.bars, strategy, planned.limit)
            books = assembly.open_books(config)
            model = None
            recorded = runner.recorded_replies(folder)
            if prompt is not None:
                effective = (folder.read_manifest().get("llm") or {}).get("effective")
                model = open_model(
                    config, effective=effective, ledger_path=folder.ledger, offline=offline, endpoints=endpoints
                )
                opened.callback(model.close)
                runner.note_model(folder, model)
                model.answer_first_from(recorded)
                strategy = assembly.build_strategy(config, prompt, model.form, model.llm)
            prepared = runner.Prepared(
                config=config,
                loaded=loaded,
                stage=stage,
                books=books,
                strategy=strategy,
                prompt=prompt,
                folder=folder,
                identity=planned.identity,
                continued=bool(recorded),
                offline=offline,
            )
            executed = runner.execute(prepared, progress)
    finally:
        if made and runner.is_blank(folder):
            shutil.rmtree(folder.path)
    if executed.summary is None:
        assert executed.error is not None
        raise executed.error
    Registry(Path(config.output)).add(planned.identity, name=config.name, run_id=folder.run_id)
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


def load_market(config: Config) -> LoadedBars:
    """The bars a run of this config walks over (`.bars`, columns of `BAR_SCHEMA`)."""
    return assembly.load_bars(config)


def render_prompt(config: Config, at: str | None = None, *, config_path: Path | None = None) -> list[dict[str, str]]:
    """The messages an agent with a flat account would be sent at the first decision at or after `at`.

    Raises:
        UsageError: the config's strategy is no agent, or there is no decision at or after that instant.
    """
    prompt = assembly.find_prompt(config, config_path)
    if prompt is None:
        raise UsageError(f"strategy.kind is {config.strategy.kind}, which has no prompt; set strategy.kind=agent")
    assembly.check_agent(config)
    strategy = assembly.build_strategy(config, prompt)
    stage = assembly.set_stage(config, assembly.load_bars(config).bars, strategy)
    times, since = stage.market.times, time_us(at) if at else 0
    bar = next((int(row) for row in stage.schedule.bars if times[row] >= since), None)
    if bar is None:
        raise UsageError(
            f"there is no decision at or after {at}; the last one is at {iso(int(times[stage.schedule.bars[-1]]))}"
        )
    empty = Portfolio(cash=config.account.cash, positions={}, peak_equity=config.account.cash)
    assert isinstance(strategy, AgentStrategy)
    asked = strategy.requests(stage.market.at(bar), empty)
    if not asked:
        raise UsageError(f"nothing may be bought at {iso(int(times[bar]))}, so that no model is asked; choose another")
    return asked[0].messages


def validate(config: Config, config_path: Path | None = None) -> Sequence[Finding]:
    """Check a config, its prompt and its data without running anything and without asking a model."""
    findings = []
    try:
        prompt = assembly.find_prompt(config, config_path)
        assembly.check_agent(config)
        loaded = assembly.load_bars(config)
        findings.append(Finding(level="ok", what=f"market: {loaded.label}, {len(loaded.bars):,} bars"))
        findings += [Finding(level="warning", what=note) for note in loaded.notes]
        strategy = assembly.build_strategy(config, prompt)
        stage = assembly.set_stage(config, loaded.bars, strategy)
        skipped = f", {stage.schedule.skipped} skipped where nothing traded" if stage.schedule.skipped else ""
        silent = f", {stage.schedule.silent:,} of them with nothing new to say" if stage.schedule.silent else ""
        findings.append(Finding(level="ok", what=f"decisions: {len(stage.schedule.due):,}{skipped}{silent}"))
        assembly.open_books(config)
        if prompt:
            text = render_prompt(config, config_path=config_path)
            size = sum(len(message["content"]) for message in text)
            findings.append(
                Finding(level="ok", what=f"prompt: {prompt.reference}, {size:,} characters at the first decision")
            )
            findings += _about_speculation(config, prompt)
    except AgentBtError as error:
        findings.append(Finding(level="error", what=str(error)))
    if config.market.source == "sample":
        findings.append(
            Finding(
                level="warning",
                what="market.source is sample: the market is generated, results say nothing about the real one",
                advice="backfill real data with `agent-bt data backfill`, then set market.source: store",
            )
        )
    if config.llm.provider == "stand_in" and asks_model(config.strategy.kind, config.strategy.params):
        findings.append(
            Finding(
                level="warning",
                what="llm.provider is stand_in: an embedded small policy answers, not a language model",
                advice="set llm.provider: openai and llm.model; see configs/providers",
            )
        )
    return findings


ENDLESS = {
    "account.cash": "cash", "account.equity": "equity", "account.realised_pnl": "realised PnL", "account.fees": "fees",
    "account.quantity": "the quantity held", "account.average_price": "the entry price", "account": "the whole account",
}  # fmt: skip
"""What a prompt can show that hardly ever comes to the same value twice, so that replies asked ahead don't fit."""

EVER_NEW = {"account.unrealised": "the result", "account.held": "decisions held", "account.bars_held": "bars held"}
"""What differs from one entry to the next, so that `prefetch.guess: states` never meets a state again."""


def _about_speculation(config: Config, prompt: Prompt) -> list[Finding]:
    """Warn of what makes requests that are sent ahead useless."""
    uses = prompt.uses()
    shown = [words for name, words in ENDLESS.items() if name in uses]
    if not config.prefetch.depth:
        return []
    if not shown and config.prefetch.guess == "states":
        new = [words for name, words in EVER_NEW.items() if name in uses]
        return [
            Finding(
                level="warning",
                what=f"the prompt shows {', '.join(new)}, and prefetch.guess is states: every entry is a new state",
                advice="use a prompt of few states, such as btcusdt_trader/v1-states, or set prefetch.guess: hold",
            )
        ] * bool(new)
    if not shown:
        return []
    return [
        Finding(
            level="warning",
            what=f"the prompt shows {', '.join(shown)}: after a trade, replies asked for ahead never fit again",
            advice="show account.position, account.unrealised and account.held instead, or set prefetch.depth: 0",
        )
    ]
