"""Replay a run from its own folder alone, and compare it, field by field, with what it recorded.

1. Config, prompt, bars and replies are read from the folder; no socket is opened, and no key is needed.
2. The same strategy runs over the same market; every request is built again and answered from the records.
3. The content of each decision is compared with its record (`_ComparingJournal`); the first difference ends the replay.
4. At the end the hashes of decisions, fills and equity are compared (`_first_hash`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent_bt.agents.prompt import SUFFIX, Prompt, load_prompt
from agent_bt.backtest.account import build_execution
from agent_bt.backtest.identity import keep_endpoint
from agent_bt.backtest.model import build_form
from agent_bt.backtest.prepare import PreparedMarket, prepare_market
from agent_bt.backtest.strategy import build_strategy
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.canonical import HashChain
from agent_bt.core.clock import iso
from agent_bt.core.errors import ConfigError, RecordError, ReplayError
from agent_bt.core.futures import completed
from agent_bt.core.progress import Progress, SilentProgress
from agent_bt.core.protocols import Strategy
from agent_bt.core.rules_version import changes_since
from agent_bt.core.step import Step
from agent_bt.core.types import Reply, Request
from agent_bt.engine.market import Market
from agent_bt.engine.simulate import Simulation, simulate
from agent_bt.llm.offline import difference
from agent_bt.records import hashes
from agent_bt.records.decision_record import build_content, extract_replies, iterate_records
from agent_bt.records.read import Run, load_run
from agent_bt.records.tables import compute_benchmark_price, equity_frame, fills_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first difference between a replay and the records.

    Attributes:
        index: of the decision, from 0; None: after the last one.
        time: of the decision, ISO 8601.
        field: what differs.
        recorded: its value in the records; for messages, the address of the recorded request.
        replayed: its value in the replay; for messages, the lines that differ.
    """

    index: int | None
    time: str | None
    field: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        where = "after the last decision" if self.index is None else f"decision {self.index} at {self.time}"
        if self.field == "messages":
            return f"{where}: the prompt differs (- recorded, + replayed):\n{self.replayed}"
        return f"{where}: {self.field}: recorded {_short(self.recorded)}, replayed {_short(self.replayed)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The outcome of a replay.

    Attributes:
        run_id: of the run.
        decisions: number of decisions that were compared.
        seconds: time it took.
        hashes: of data, decisions, fills and equity as computed again; empty after a divergence in a decision.
        divergence: the first difference; None if everything is identical.
        changed_rules: after a divergence, what has changed in the rules of the account since the run was made.
    """

    run_id: str
    decisions: int
    seconds: float
    hashes: Mapping[str, str]
    divergence: Divergence | None
    changed_rules: Sequence[str] = ()

    @property
    def identical(self) -> bool:
        """Whether the replay is equal to the run to the last bit."""
        return self.divergence is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        first = self.divergence
        return {
            "run_id": self.run_id,
            "identical": self.identical,
            "decisions": self.decisions,
            "seconds": round(self.seconds, 3),
            "hashes": dict(self.hashes),
            "divergence": None
            if first is None
            else {
                "index": first.index,
                "time": first.time,
                "field": first.field,
                "recorded": first.recorded,
                "replayed": first.replayed,
            },
            "changed_rules": list(self.changed_rules),
        }


def replay(path: str | Path, progress: Progress | None = None) -> Replayed:
    """Replay a run from its own folder alone, and compare every field of every decision with its record.

    >>> from agent_bt import load_config, run
    >>> config = load_config(overrides=["market.end=2024-07-02", "strategy.every=4h"], env={})
    >>> replayed = replay(run(config, limit=3).path)
    >>> replayed.identical, replayed.decisions
    (True, 3)

    Args:
        path: the run folder, anywhere.
        progress: shows how far the replay is.

    Raises:
        RecordError: it is not a run folder, or the run was written by an incompatible version.
        ReplayError: a rule that has changed since the run was made refuses it.
    """
    progress = progress or SilentProgress()
    run = load_run(path)
    config = keep_endpoint(load_config(run.folder.config, env={}), run.manifest["identity"])
    began = time.perf_counter()
    total = run.decision_count
    records = _Records(run)
    strategy = _strategy(config, run, records)
    prepared = _prepared_market(config, run, strategy)
    check = _ComparingJournal(records, progress)
    progress.start(total, f"replay {run.run_id}")
    divergence = None
    try:
        simulation = simulate(
            market=prepared.market,
            # Trading that a limit ended early left bars without a decision; they are simulated too.
            bars=prepared.schedule.bars[:total],
            strategy=strategy,
            setup=build_execution(config),
            journal=check,
        )
        derived = _hashes(config, run, prepared.market, check.chain, simulation)
        divergence = _first_hash(run, derived, total, check.count)
    except _Diverged as diverged:
        derived, divergence = {}, diverged.divergence
    except ConfigError as error:
        changed = changes_since(run.manifest)
        if not changed:
            raise
        raise ReplayError(f"{run.run_id} cannot be replayed: {error}. {explain_changes(changed)}") from error
    finally:
        progress.stop()
    return Replayed(
        run_id=run.run_id,
        decisions=check.count,
        seconds=time.perf_counter() - began,
        hashes=derived,
        divergence=divergence,
        changed_rules=changes_since(run.manifest) if divergence else (),
    )


def explain_changes(changed: Sequence[str]) -> str:
    """Return a sentence on the rules that have changed since a run was made, for a message after a divergence."""
    return f"Since this run was made, the rules of the account have changed: {'; '.join(changed)}"


class _Diverged(ReplayError):
    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


class _Records:
    """The recorded decisions in order, with their replies by address; a slice of the table at a time is in memory."""

    def __init__(self, run: Run) -> None:
        self._rows = _recorded(run)
        self._ahead: tuple[dict[str, Any], dict[str, Reply]] | None = None

    def current(self) -> tuple[dict[str, Any], dict[str, Reply]]:
        """Return content and replies of the next decision."""
        if self._ahead is None:
            content, telemetry = next(self._rows, (None, None))
            if content is None or telemetry is None:
                raise RecordError("the replay makes more decisions than the run recorded")
            self._ahead = content, dict(extract_replies(content, telemetry))
        return self._ahead

    def take(self) -> dict[str, Any]:
        """Return the content of the next decision, and move on to the one after it."""
        content, _ = self.current()
        self._ahead = None
        return content


def _recorded(run: Run) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for rows in run.decision_slices():
        yield from iterate_records(rows)


class _RecordedLLM:
    """A model that answers from the record of the current decision; any other request is a divergence."""

    def __init__(self, records: _Records) -> None:
        self._records = records

    def submit(self, request: Request) -> Future[Reply]:
        """Return the recorded reply."""
        content, replies = self._records.current()
        reply = replies.get(request.address)
        if reply is None:
            raise _Diverged(_other_request(content, request))
        return completed(reply)

    def complete(self, request: Request) -> Reply:
        """Return the recorded reply."""
        return self.submit(request).result()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _other_request(content: Mapping[str, Any], request: Request) -> Divergence:
    recorded = Request(
        provider=request.provider,
        endpoint_id=request.endpoint_id,
        replicate=request.replicate,
        body={**request.body, "messages": content["messages"]},
    )
    lines = difference(recorded, request)
    place = {"index": content["index"], "time": iso(content["time"])}
    if lines:
        return Divergence(**place, field="messages", recorded=recorded.address, replayed="\n".join(lines))
    return Divergence(**place, field="request", recorded=content["request"], replayed=request.address)


class _ComparingJournal:
    """A journal that compares every step with its record, and keeps none."""

    def __init__(self, records: _Records, progress: Progress) -> None:
        self.chain = HashChain(hashes.DECISION_TAG)
        self.count = 0
        self._records = records
        self._progress = progress

    def append(self, step: Step) -> None:
        """Compare the step with its record.

        Raises:
            _Diverged: a field differs.
        """
        recorded = self._records.take()
        replayed = build_content(step, prompt=recorded["prompt"], window="window" in recorded)
        data = hashes.content_bytes(replayed)
        if data != hashes.content_bytes(recorded):
            raise _Diverged(_first_field(recorded, replayed))
        self.chain.link(data)
        self.count += 1
        self._progress.update(self.count)


def _first_field(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> Divergence:
    for field, value in replayed.items():
        one, other = {field: recorded.get(field)}, {field: value}
        if hashes.content_bytes(one) != hashes.content_bytes(other):
            return Divergence(
                index=recorded["index"],
                time=iso(recorded["time"]),
                field=field,
                recorded=recorded.get(field) if field != "window" else "a window of other values",
                replayed=value if field != "window" else "the window as computed now",
            )
    raise RecordError("the records of this run have other fields than those that this version of agent-bt writes")


def _strategy(config: Config, run: Run, records: _Records) -> Strategy:
    llm = _RecordedLLM(records)
    kept = run.manifest.get("prompt")
    if kept is None:
        return build_strategy(config, None, None, None)
    negotiated = (run.manifest.get("llm") or {}).get("effective")
    return build_strategy(config, load_recorded_prompt(kept), build_form(config, negotiated), llm)


def load_recorded_prompt(kept: Mapping[str, Any]) -> Prompt:
    """Load the prompt of a run from its text in the manifest.

    Args:
        kept: `prompt` of the manifest.
    """
    name, _, version = kept["name"].partition("/")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name / f"{version}{SUFFIX}"
        path.parent.mkdir()
        path.write_text(kept["text"], encoding="utf-8")
        return load_prompt(kept["name"], [Path(folder)])


def _prepared_market(config: Config, run: Run, strategy: Strategy) -> PreparedMarket:
    """Prepare the market as in the run, up to where the run ended.

    Of several symbols all bars are kept, also those after an early end: they show which symbols were delisted.
    """
    if not run.multi_symbol:
        return prepare_market(config, run.market, strategy)
    prepared = prepare_market(config, run.market, strategy, run.manifest["identity"]["limit"])
    return replace(prepared, market=prepared.market.head(prepared.market.first + run.summary["bars"]))


def _hashes(config: Config, run: Run, market: Market, chain: HashChain, simulation: Simulation) -> dict[str, str]:
    broker = simulation.broker
    first, reached = broker.first, broker.bar + 1
    equity = equity_frame(
        time=market.times[first:reached],
        equity=broker.equity[first:reached],
        exposure=broker.exposure[first:reached],
        price=compute_benchmark_price(market),
        initial_cash=config.account.cash,
    )
    return {
        "data": hashes.data_hash(run.market),
        "decisions": chain.head,
        "fills": hashes.fills_hash(fills_frame(simulation.fills)),
        "equity": hashes.equity_hash(equity),
    }


def _first_hash(run: Run, derived: Mapping[str, str], total: int, count: int) -> Divergence | None:
    if count != total:
        return Divergence(index=None, time=None, field="number of decisions", recorded=total, replayed=count)
    for name, value in derived.items():
        recorded = run.summary["hashes"][name]
        if recorded != value:
            return Divergence(index=None, time=None, field=f"hash of {name}", recorded=recorded, replayed=value)
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."
