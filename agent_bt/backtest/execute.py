"""Execute a prepared run: simulate it, and write the results, even if an error ends it early.

1. `_make_prefetcher` sends requests ahead where the model is worth the wait.
2. `_simulate` makes the decisions and records each; a continued run starts from the beginning, and its journal answers
   first, so that no state is restored. An interrupt, a spent budget, a lost endpoint or too many failed decisions end
   it early, resumable.
3. `finish` measures, runs the baselines, and writes tables, summary and manifest.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from agent_bt.backtest.finish import Ended, finish
from agent_bt.backtest.plan import PreparedRun
from agent_bt.core.clock import iso, now_iso
from agent_bt.core.errors import (
    AgentBtError,
    BudgetReached,
    EndpointDown,
    Interrupted,
    ModelError,
    QualityGate,
    ReplayError,
    StrategyError,
)
from agent_bt.core.progress import Progress
from agent_bt.core.protocols import AgentStrategy
from agent_bt.core.step import Step
from agent_bt.core.types import Decision, Fill, Order
from agent_bt.engine.depth import DepthControl
from agent_bt.engine.prefetch import Prefetcher, PrefetchStats
from agent_bt.engine.simulate import Simulation, simulate
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.llm.ledger import Ledger
from agent_bt.llm.provider import get_provider
from agent_bt.records.journal import JournalWriter
from agent_bt.records.run_folder import Status

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """The outcome of a run.

    Attributes:
        summary: as in `summary.json`; None if the run ended before its first decision.
        error: what ended it early; None if nothing did.
    """

    summary: dict[str, Any] | None
    error: AgentBtError | None


def execute(run: PreparedRun, progress: Progress) -> Executed:
    """Run the strategy through the market, record every decision, and write the results.

    What ends the run early (an interrupt, the budget, a lost endpoint) is returned with the results until then.

    Args:
        run: what is run.
        progress: shows how far the run is.

    Raises:
        RecordError: something cannot be written, or a continued run came out differently.
    """
    started = now_iso()
    plan, folder = run.plan, run.folder
    market = run.prepared.market
    broker = plan.setup.broker(market)
    prefetcher = _make_prefetcher(run, broker)
    fills: list[Fill] = []
    with JournalWriter(folder.journal, prompt=plan.prompt.reference if plan.prompt else None) as journal:
        _compile(broker, plan.setup.sizer(market))
        name, due = folder.path.name, len(run.prepared.schedule.bars)
        logger.info("run %s: %s, %d decisions", name, "continued" if run.continued else "new", due)
        began = time.perf_counter()
        status, error = _simulate(run, broker, prefetcher, journal, fills, progress)
        seconds = time.perf_counter() - began
        logger.info("run %s: %s after %d decisions, %.2f s", name, status, journal.count, seconds)
        if not journal.count:
            return Executed(summary=None, error=error)
        ended = Ended(
            status=status,
            simulation=Simulation(broker=broker, fills=fills),
            prefetch=prefetcher.stats if prefetcher else PrefetchStats(),
            started=started,
            finished=now_iso(),
            seconds=seconds,
        )
        summary = finish(run, ended, journal)
    return Executed(summary=summary, error=error)


def _compile(broker: SimulatedBroker, sizer: RiskLimitedSizer) -> None:
    """Compile everything on a copy of the account, so that the first run on a machine is timed like any other."""
    copy = broker.fork()
    copy.advance(copy.first)
    symbol = copy.prices.symbols[0]
    for decision in (Decision.to({symbol: 0.0}), Decision.sell(symbol)):
        sizer.size(decision, copy.state())
    copy.submit([Order(symbol=symbol, lots=0, quantity=0.0)])


class _WatchedJournal:
    """A journal that updates the progress display with every step, and ends a run that pays for nothing any more.

    Args:
        journal: keeps the steps.
        progress: shows how far the run is.
        ledger: what the run has spent; None where nothing is paid.
        due: decisions of the whole run.
        max_failed_share: fraction of failed decisions above which the run has failed.
    """

    def __init__(
        self,
        journal: JournalWriter,
        progress: Progress,
        ledger: Ledger | None,
        *,
        due: int,
        max_failed_share: float,
    ) -> None:
        self._journal = journal
        self._progress = progress
        self._ledger = ledger
        self._due = due
        self._max_failed_share = max_failed_share

    def append(self, step: Step) -> None:
        """Record the step and show how far the run is.

        Raises:
            QualityGate: calls are paid for, and so many decisions have failed that the run fails in any case.
        """
        self._journal.append(step)
        tally = self._journal.tally
        # The ledger knows every attempt, failed and prefetched ones too.
        spent = self._ledger.spent if self._ledger else tally.spent
        self._progress.update(
            tally.total,
            invalid=tally.total - tally.provenance["model"],
            calls=spent.calls if self._ledger else 0,
            tokens=spent.tokens,
            cost_usd=None if spent.unpriced else spent.usd or 0.0,
        )
        failed = tally.total - tally.provenance["model"]
        if self._ledger and failed > self._max_failed_share * self._due:
            (reason, count), *_ = tally.reasons.most_common(1)
            raise QualityGate(
                f"{failed:,} of {self._due:,} decisions have failed, {count:,} of them as {reason}: whatever the "
                f"others say, that is more than risk.max_failed_share ({self._max_failed_share:.1%}), so no further "
                "call is paid for. `agent-bt runs show` lists what failed; to continue all the same, raise "
                "risk.max_failed_share and run the same command again"
            )


def _simulate(
    run: PreparedRun,
    broker: SimulatedBroker,
    prefetcher: Prefetcher | None,
    journal: JournalWriter,
    fills: list[Fill],
    progress: Progress,
) -> tuple[Status, AgentBtError | None]:
    """Simulate the run; return its status, and the error that ended it early."""
    market, bars = run.prepared.market, run.prepared.schedule.bars
    progress.start(len(bars), run.plan.config.name)
    try:
        simulate(
            market=market,
            bars=bars,
            strategy=run.plan.strategy,
            setup=run.plan.setup,
            broker=broker,
            journal=_WatchedJournal(
                journal,
                progress,
                run.ledger,
                due=len(bars),
                max_failed_share=run.plan.config.risk.max_failed_share,
            ),
            fills=fills,
            decide=prefetcher.decide if prefetcher else None,
        )
    except KeyboardInterrupt:
        return "interrupted", Interrupted("interrupted; the same command continues the run")
    except BudgetReached as reached:
        return "budget", reached
    except (EndpointDown, QualityGate) as ended:
        # The failures that led here are not decisions: their requests are sent again when the run is continued.
        config = run.plan.config
        journal.drop_failures(reach=1 + max(config.prefetch.depth, 2 * config.llm.max_in_flight))
        return "interrupted", ended
    except (ModelError, ReplayError) as failed:
        return "interrupted", _at_decision(failed, run, journal.count)
    except StrategyError as broken:
        return "interrupted", broken
    finally:
        progress.stop()
        if prefetcher:
            prefetcher.close()
    return "done", None


def _at_decision(error: AgentBtError, run: PreparedRun, index: int) -> AgentBtError:
    """Add to the message which decision the error stopped, and what to do where it has stopped it before."""
    bars, kept = run.prepared.schedule.bars, run.folder.read_manifest().get("stopped")
    if index >= len(bars):
        return error
    advice = ""
    if index and kept == {"decision": index, "error": type(error).__name__}:
        advice = (
            ". It has stopped this decision before, so it is this request that the endpoint does not take: change the "
            "prompt or the llm settings that the message names, or leave the decision out (strategy.every, "
            "market.start)"
        )
    run.folder.update_manifest(stopped={"decision": index, "error": type(error).__name__})
    error.args = (f"decision {index} at {iso(int(run.prepared.market.times[bars[index]]))}: {error}{advice}",)
    return error


def _make_prefetcher(run: PreparedRun, broker: SimulatedBroker) -> Prefetcher | None:
    """Make the prefetcher of an agent; None where it cannot save time: the model answers at once, or one by one."""
    plan, config = run.plan, run.plan.config
    agent = plan.strategy
    if plan.prompt is None or not isinstance(agent, AgentStrategy):
        return None
    provider = get_provider(config.llm)
    if provider.embedded or provider.one_at_a_time:
        return None
    if run.offline or config.prefetch.depth == 0:
        return None
    states = config.prefetch.guess == "states"
    lossless = not any(name.split(".")[0] == "account" for name in plan.prompt.uses())
    depth = max(config.prefetch.depth, 2 * config.llm.max_in_flight) if lossless else config.prefetch.depth
    return Prefetcher(
        agent=agent,
        market=run.prepared.market,
        bars=run.prepared.schedule.bars.tolist(),
        sizer=plan.setup.sizer(run.prepared.market),
        broker=broker,
        guess=plan.guess,
        control=DepthControl(depth=depth, max_waste=config.prefetch.max_waste, free=states, lossless=lossless),
        keep_states=4 if states else 1,
    )
