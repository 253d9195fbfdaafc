"""One run from its folder to its end: walk, and write what came out, whatever happens on the way.

1. `open_folder` finds the unfinished run of the same identity, or makes a new folder.
2. A continued run walks from the start again: its journal answers first, state is never restored.
3. `_walk` runs the engine; an interrupt, a spent budget or a lost endpoint ends it early, and resumable.
4. `finish` measures, runs the baselines, and writes tables, summary and manifest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.bars import LoadedBars
from agent_bt.backtest.finish import Ended, finish
from agent_bt.backtest.guess import guess_of
from agent_bt.backtest.prepare import PreparedMarket
from agent_bt.config.model import Config
from agent_bt.core.clock import iso, now_iso
from agent_bt.core.errors import (
    AgentBtError,
    BudgetReached,
    EndpointDown,
    Interrupted,
    ModelError,
    ReplayError,
    StrategyError,
)
from agent_bt.core.progress import Progress
from agent_bt.core.protocols import AgentStrategy, Strategy
from agent_bt.core.step import Step
from agent_bt.core.types import Decision, Fill, Order
from agent_bt.engine.depth import DepthControl
from agent_bt.engine.market import Market
from agent_bt.engine.prefetch import Prefetcher, PrefetchStats
from agent_bt.engine.simulate import simulate
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.setup import ExecutionSetup
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.llm.provider import provider_of
from agent_bt.records.hashes import config_hash
from agent_bt.records.journal import JournalWriter
from agent_bt.records.run_folder import RunFolder, Status

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """What a run is made of, put together by `app`; `prompt` is None for a strategy that asks no model.

    `offline`: replies come from the store, so that there is no wait to be saved by asking ahead.
    """

    config: Config
    loaded: LoadedBars
    prepared: PreparedMarket
    setup: ExecutionSetup
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


def execute(run: PreparedRun, progress: Progress) -> Executed:
    """Walk through the market, keep every step in the journal, and write what came out.

    What ends the walk early (an interrupt, the budget, a lost endpoint) is returned with what there is until then.

    Raises:
        RecordError: something cannot be written, or a continued run came out differently.
    """
    started = now_iso()
    broker = run.setup.broker(run.prepared.market)
    prefetcher = _prefetcher(run, broker)
    fills: list[Fill] = []
    with JournalWriter(run.folder.journal, prompt=run.prompt.reference if run.prompt else None) as journal:
        _warm_up(broker, run.setup.sizer(run.prepared.market))
        name, due = run.folder.path.name, len(run.prepared.schedule.bars)
        logger.info("run %s: %s, %d decisions", name, "continued" if run.continued else "new", due)
        began = time.perf_counter()
        status, error = _walk(run, broker, prefetcher, journal, fills, progress)
        seconds = time.perf_counter() - began
        logger.info("run %s: %s after %d decisions, %.2f s", name, status, journal.count, seconds)
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
            prepared=run.prepared,
            setup=run.setup,
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


def _warm_up(broker: SimulatedBroker, sizer: RiskLimitedSizer) -> None:
    """Let everything compile on a copy of the account, so that the first run on a machine is timed like any other."""
    trial = broker.fork()
    trial.advance(trial.first)
    symbol = trial.prices.symbols[0]
    for decision in (Decision.to({symbol: 0.0}), Decision.sell(symbol)):
        sizer.size(decision, trial.state())
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
    run: PreparedRun,
    broker: SimulatedBroker,
    prefetcher: Prefetcher | None,
    journal: JournalWriter,
    fills: list[Fill],
    progress: Progress,
) -> tuple[Status, AgentBtError | None]:
    """Run the engine; returns the status, and the error that ended it early."""
    market, bars = run.prepared.market, run.prepared.schedule.bars
    progress.start(len(bars), run.config.name)
    try:
        simulate(
            market=market,
            bars=bars,
            strategy=run.strategy,
            setup=run.setup,
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


def _at_decision(error: AgentBtError, market: Market, bars: np.ndarray, index: int) -> AgentBtError:
    """The error, saying which decision it stopped."""
    if index < len(bars):
        error.args = (f"decision {index} at {iso(int(market.times[bars[index]]))}: {error}",)
    return error


def _prefetcher(run: PreparedRun, broker: SimulatedBroker) -> Prefetcher | None:
    """What sends requests ahead, where that can save time: not for models that answer at once."""
    config = run.config
    agent = run.strategy
    if run.prompt is None or not isinstance(agent, AgentStrategy) or provider_of(config.llm).embedded:
        return None
    if run.offline or config.prefetch.depth == 0:
        return None
    states = config.prefetch.guess == "states"
    lossless = not any(name.split(".")[0] == "account" for name in run.prompt.uses())
    depth = max(config.prefetch.depth, 2 * config.llm.max_in_flight) if lossless else config.prefetch.depth
    return Prefetcher(
        agent=agent,
        market=run.prepared.market,
        bars=run.prepared.schedule.bars.tolist(),
        sizer=run.setup.sizer(run.prepared.market),
        broker=broker,
        guess=guess_of(config),
        control=DepthControl(depth=depth, max_waste=config.prefetch.max_waste, free=states, lossless=lossless),
        keep_states=4 if states else 1,
    )
