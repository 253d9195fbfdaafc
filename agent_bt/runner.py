"""One run from its folder to its end: walk, and write what came out, whatever happens on the way.

1. `open_folder` finds the unfinished run of the same identity, or makes a new folder.
2. A continued run walks from the start again: its journal answers first, state is never restored.
3. `_walk` runs the engine; an interrupt, a spent budget or a lost endpoint ends it early, and resumable.
4. `finish` measures, runs the baselines, and writes tables, summary and manifest.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent_bt.agents.prompt import Prompt
from agent_bt.assembly import Books, LoadedBars, Stage
from agent_bt.config import Config
from agent_bt.core.canonical import tagged_hash
from agent_bt.core.clock import iso
from agent_bt.core.errors import (
    AgentBtError,
    BudgetReached,
    ConfigError,
    EndpointDown,
    Interrupted,
    ModelError,
    ReplayError,
    StrategyError,
)
from agent_bt.core.progress import Progress
from agent_bt.core.protocols import AgentStrategy, Strategy
from agent_bt.core.step import Step
from agent_bt.core.types import Decision, Fill, Order, Portfolio, Reply
from agent_bt.core.view import MarketView
from agent_bt.engine.depth import DepthControl
from agent_bt.engine.loop import walk
from agent_bt.engine.market import Market
from agent_bt.engine.prefetch import Guess, Prefetcher, PrefetchStats
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.desk import Desk
from agent_bt.features.specs import feature_specs
from agent_bt.finish import Ended, finish
from agent_bt.llm.ledger import Ledger
from agent_bt.models import Model, endpoint_id
from agent_bt.records import run_folder
from agent_bt.records.hashes import config_hash
from agent_bt.records.journal import JournalReader, JournalWriter
from agent_bt.records.run_folder import RunFolder, Status
from agent_bt.records.schema import replies_of
from agent_bt.settings import config_to_yaml
from agent_bt.strategies.registry import agent_kinds, make_strategy

_SHAPING_LLM = {
    "provider",
    "model",
    "temperature",
    "seed",
    "max_tokens",
    "response_format",
    "strip",
    "replicate",
    "params",
}
_OPERATIONAL_RISK = {"max_failed_share", "max_failures_in_a_row"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a run is made of, put together by `app`; `prompt` is None for a strategy that asks no model.

    `offline`: replies come from the store, so that there is no wait to be saved by asking ahead.
    """

    config: Config
    loaded: LoadedBars
    stage: Stage
    books: Books
    strategy: Strategy
    prompt: Prompt | None
    folder: RunFolder
    identity: Mapping[str, Any]
    continued: bool
    offline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A run that has ended: its summary (None if it ended before the first decision) and what ended it early."""

    summary: dict[str, Any] | None
    error: AgentBtError | None


def identity_of(config: Config, *, prompt: Prompt | None, data: str, limit: int | None) -> dict[str, Any]:
    """What makes a run this run, as plain data; everything else may change when it is continued."""
    dump = config.model_dump(mode="json")
    identity: dict[str, Any] = {
        key: dump[key] for key in ("mode", "market", "features", "strategy", "account", "execution", "seed")
    }
    if config.over_many:
        identity["rebalance"], identity["pool"] = dump["rebalance"], dump["pool"]
    identity["risk"] = {key: value for key, value in dump["risk"].items() if key not in _OPERATIONAL_RISK}
    if config.market.source not in ("sample", "store"):
        # The bars count, not where their file lies: moved or on another machine it is the same run.
        identity["market"] = {**dump["market"], "source": "file"}
    identity["data"] = data
    identity["limit"] = limit
    if prompt is not None:
        shaping = {key: value for key, value in dump["llm"].items() if key in _SHAPING_LLM}
        identity["llm"] = {**shaping, "endpoint_id": endpoint_id(config.llm)}
        identity["prompt"] = prompt.hash
    elif ":" in config.strategy.kind:
        identity["source"] = _source_hash(make_strategy(config.strategy.kind, config.strategy.params))
    return identity


def find_folder(root: Path, identity: Mapping[str, Any], *, fresh: bool) -> RunFolder | None:
    """The unfinished run of this identity under `root`, unless a fresh one is wanted."""
    return None if fresh else run_folder.find_unfinished(root, config_hash(identity))


def identity_changes(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """What differs between two identities, one line a value: `market.start: 2024-07-01 -> 2024-08-01`."""
    changes = []
    for key in sorted(before.keys() | now.keys()):
        one, other, name = before.get(key), now.get(key), f"{path}{key}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            changes += identity_changes(one, other, f"{name}.")
        elif one != other:
            changes.append(_CHANGED.get(name) or f"{name}: {one} -> {other}")
    return changes


_CHANGED = {
    "data": "the bars in that range are not the same any more",
    "prompt": "the text of the prompt file has changed",
    "source": "the source of the strategy has changed",
}


def make_folder(
    root: Path, config: Config, identity: Mapping[str, Any], prompt: Prompt | None, config_path: Path | None
) -> RunFolder:
    """A new folder for the run under `root`; `config_path` is the file that the config came from."""
    return run_folder.create(
        root,
        config.name,
        config_text=config_to_yaml(config),
        identity=identity,
        config_file=None if config_path is None else str(config_path),
        prompt=None if prompt is None else {"name": prompt.reference, "hash": prompt.hash, "text": prompt.text},
    )


def note_model(folder: RunFolder, model: Model) -> None:
    """Write into the manifest how the model is asked, so that nothing has to be found out again."""
    before = folder.read_manifest().get("llm") or {}
    folder.update_manifest(
        llm={
            "requested": dict(model.requested),
            "effective": model.effective,
            "prices": model.prices,
            "probes": before.get("probes", 0) + model.probes,
        }
    )


def is_blank(folder: RunFolder) -> bool:
    """Whether no decision was recorded and nothing was paid: there is nothing in the folder to keep."""
    recorded = folder.journal.exists() and folder.journal.stat().st_size > 0
    if recorded or folder.summary.exists():
        return False
    if not folder.ledger.exists():
        return True
    with Ledger(folder.ledger) as ledger:
        return ledger.spent.calls == 0


def recorded_replies(folder: RunFolder) -> dict[str, Reply]:
    """The replies in the folder's journal by the address of their request; a torn last line is passed over."""
    if not folder.journal.exists():
        return {}
    return {
        address: reply
        for content, telemetry in JournalReader(folder.journal)
        for address, reply in replies_of(content, telemetry)
    }


def execute(run: Prepared, progress: Progress) -> Executed:
    """Walk through the market, keep every step in the journal, and write what came out.

    What ends the walk early (an interrupt, the budget, a lost endpoint) is returned with what there is until then.

    Raises:
        RecordError: something cannot be written, or a continued run came out differently.
    """
    started = now_iso()
    broker = run.books.broker(run.stage.market)
    prefetcher = _prefetcher(run, broker)
    fills: list[Fill] = []
    with JournalWriter(run.folder.journal, prompt=run.prompt.reference if run.prompt else None) as journal:
        _warm_up(broker, run.books.desk(run.stage.market))
        began = time.perf_counter()
        status, error = _walk(run, broker, prefetcher, journal, fills, progress)
        seconds = time.perf_counter() - began
        if not journal.count:
            return Executed(summary=None, error=error)
        ended = Ended(
            status=status,
            broker=broker,
            fills=fills,
            speculation=prefetcher.stats if prefetcher else PrefetchStats(),
            seconds=seconds,
            warnings=("This run was continued after a stop.",) if run.continued else (),
        )
        summary = finish(
            config=run.config,
            loaded=run.loaded,
            stage=run.stage,
            books=run.books,
            prompt=run.prompt,
            strategy=run.strategy.name,
            folder=run.folder,
            identity_hash=config_hash(run.identity),
            ended=ended,
            journal=journal,
            started=started,
            finished=now_iso(),
        )
    return Executed(summary=summary, error=error)


def _warm_up(broker: SimulatedBroker, desk: Desk) -> None:
    """Let everything compile on a copy of the account, so that the first run on a machine is timed like any other."""
    trial = broker.fork()
    trial.advance(trial.first)
    symbol = trial.tape.symbols[0]
    for decision in (Decision.to({symbol: 0.0}), Decision.sell(symbol)):
        desk.size(decision, trial)
    trial.submit([Order(symbol=symbol, lots=0, quantity=0.0)])


class _Watched:
    """The journal, watched by the progress line."""

    def __init__(self, journal: JournalWriter, progress: Progress) -> None:
        self._journal = journal
        self._progress = progress

    def append(self, step: Step) -> None:
        """Keep the step and show how far the run is."""
        self._journal.append(step)
        tally = self._journal.tally
        self._progress.update(
            tally.total,
            invalid=tally.total - tally.provenance["model"],
            tokens=tally.prompt_tokens + tally.completion_tokens,
            cost_usd=None if tally.unpriced else tally.cost_usd,
        )


def _walk(
    run: Prepared,
    broker: SimulatedBroker,
    prefetcher: Prefetcher | None,
    journal: JournalWriter,
    fills: list[Fill],
    progress: Progress,
) -> tuple[Status, AgentBtError | None]:
    """Run the engine; returns the status, and the error that ended it early."""
    market, bars = run.stage.market, run.stage.schedule.bars.tolist()
    progress.start(len(bars), run.config.name)
    try:
        walk(
            market=market,
            bars=bars,
            strategy=run.strategy,
            desk=run.books.desk(market),
            broker=broker,
            journal=_Watched(journal, progress),
            fills=fills,
            decide=prefetcher.decide if prefetcher else None,
        )
    except KeyboardInterrupt:
        return "interrupted", Interrupted("interrupted; the same command continues the run")
    except BudgetReached as reached:
        return "budget", reached
    except EndpointDown as down:
        # The failures that led here are no decisions: they are asked again when the run is continued.
        journal.drop_failures(reach=1 + max(run.config.prefetch.depth, 2 * run.config.llm.max_in_flight))
        return "interrupted", down
    except (ModelError, ReplayError) as failed:
        return "interrupted", _at_decision(failed, market, bars, journal.count)
    except StrategyError as broken:
        return "interrupted", broken
    finally:
        progress.stop()
        if prefetcher:
            prefetcher.close()
    return "done", None


def _at_decision(error: AgentBtError, market: Market, bars: Sequence[int], index: int) -> AgentBtError:
    """The error, saying which decision it stopped."""
    if index < len(bars):
        error.args = (f"decision {index} at {iso(int(market.times[bars[index]]))}: {error}",)
    return error


def _prefetcher(run: Prepared, broker: SimulatedBroker) -> Prefetcher | None:
    """What sends requests ahead, where that can save time: not for models that answer at once."""
    config = run.config
    agent = run.strategy
    if run.prompt is None or not isinstance(agent, AgentStrategy) or config.llm.provider != "openai":
        return None
    if run.offline or config.prefetch.depth == 0:
        return None
    states = config.prefetch.guess == "states"
    lossless = not any(name.split(".")[0] == "account" for name in run.prompt.uses())
    depth = max(config.prefetch.depth, 2 * config.llm.max_in_flight) if lossless else config.prefetch.depth
    return Prefetcher(
        agent=agent,
        market=run.stage.market,
        bars=run.stage.schedule.bars.tolist(),
        desk=run.books.desk(run.stage.market),
        broker=broker,
        guess=guess_of(config),
        control=DepthControl(depth=depth, max_waste=config.prefetch.max_waste, free=states, lossless=lossless),
        keep_states=4 if states else 1,
    )


def guess_of(config: Config) -> Guess | None:
    """What prefetch assumes of the next decisions; None for HOLD.

    Raises:
        ConfigError: there is no such guess, or the rule needs more than the agent sees.
    """
    name = config.prefetch.guess
    if name in ("hold", "states"):
        return None
    if name == "last":
        return _same_again
    if "agent_ranker" in agent_kinds(config.strategy.kind, config.strategy.params):
        raise ConfigError(f"prefetch.guess {name}: for a ranker it is hold or last")
    try:
        rule = make_strategy(name, {})
    except ConfigError as error:
        raise ConfigError(f"prefetch.guess must be hold, last, states or the name of a rule: {error}") from None
    lacking = {spec.column for spec in rule.features} - {spec.column for spec in feature_specs(config.features)}
    if rule.lookback > config.features.window or lacking:
        raise ConfigError(f"prefetch.guess {name} needs more bars or features than the agent sees")

    def by_rule(view: MarketView, portfolio: Portfolio, last: Decision | None) -> Decision:  # noqa: ARG001
        return rule.decide(view, portfolio)

    return by_rule


def _same_again(view: MarketView, portfolio: Portfolio, last: Decision | None) -> Decision | None:  # noqa: ARG001
    return last


def _source_hash(strategy: Strategy) -> str:
    return tagged_hash("agent-bt/strategy-source/v1", Path(inspect.getfile(type(strategy))).read_bytes())


def now_iso() -> str:
    """The wall clock as ISO 8601 UTC, to the second."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
