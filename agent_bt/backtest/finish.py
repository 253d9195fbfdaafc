"""The end of a run: measure it, compare it with the baselines, and write its tables, summary and manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from agent_bt.backtest.plan import PreparedRun, RunPlan
from agent_bt.backtest.prepare import PreparedMarket
from agent_bt.backtest.remarks import make_banners, make_warnings, state_conventions
from agent_bt.core.schema import TIME
from agent_bt.engine.market import Market
from agent_bt.engine.prefetch import PrefetchStats
from agent_bt.engine.simulate import Simulation
from agent_bt.evaluation.baselines import Baselines, Outcome, run_baselines
from agent_bt.evaluation.performance import performance
from agent_bt.evaluation.sensitivity import COLUMNS, execution_sensitivity, read_decisions
from agent_bt.llm.ledger import read_spent
from agent_bt.llm.provider import get_provider
from agent_bt.records.exports import build_exports
from agent_bt.records.hashes import config_hash
from agent_bt.records.holdings import compute_holdings, summarise_holdings
from agent_bt.records.journal import JournalWriter
from agent_bt.records.run_folder import RunFolder, Status
from agent_bt.records.summary import BASELINES, Waste, build_summary
from agent_bt.records.tables import compute_benchmark_price, equity_frame, fills_frame, write_table
from agent_bt.records.tally import Tally

_MOST_NAMED = 30
"""Number of symbols that `summary.about` names at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended.

    Attributes:
        status: why it ended.
        simulation: account and fills up to there.
        prefetch: counts and costs of the prefetched requests.
        started: beginning, ISO 8601, UTC.
        finished: end, ISO 8601, UTC.
        seconds: duration of the simulation.
    """

    status: Status
    simulation: Simulation
    prefetch: PrefetchStats
    started: str
    finished: str
    seconds: float


def finish(run: PreparedRun, ended: Ended, journal: JournalWriter) -> dict[str, Any]:
    """Measure a run, compare it with the baselines, and write its tables, summary and manifest.

    Args:
        run: the run; it may have ended early.
        ended: how it ended.
        journal: the journal that recorded its decisions.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        RecordError: a file cannot be written.
    """
    plan, prepared, folder, tally = run.plan, run.prepared, run.folder, journal.tally
    config, setup = plan.config, plan.setup
    too_many_failed = ended.status == "done" and tally.failed_share > config.risk.max_failed_share
    status: Status = "failed" if too_many_failed else ended.status
    broker = ended.simulation.broker
    reached = broker.bar + 1
    market = prepared.market.head(reached)
    outcome = Outcome(
        equity=broker.equity[:reached],
        exposure=broker.exposure[:reached],
        fills=ended.simulation.fills,
        funding=ended.simulation.funding,
    )
    curve = slice(market.first, reached)
    equity = equity_frame(
        time=market.times[curve],
        equity=outcome.equity[curve],
        exposure=outcome.exposure[curve],
        price=compute_benchmark_price(market),
        initial_cash=setup.cash,
    )
    hashes = folder.write_tables(
        journal=journal,
        fills=outcome.fills,
        equity=equity,
        # Whether a symbol was delisted shows in the bars after the last decision too.
        market=plan.loaded.bars if config.multi_symbol else market.bars,
    )
    decisions = pl.read_parquet(folder.decisions, columns=list(COLUMNS))
    fills = fills_frame(outcome.fills)
    recorded = decisions["bar"].to_numpy()
    portfolio = None
    if config.multi_symbol:
        holdings = compute_holdings(
            market=market, fills=fills, equity=outcome.equity[curve], decisions=recorded, execution=config.execution
        )
        folder.write_holdings(holdings.tables)
        portfolio = summarise_holdings(market, holdings, fills)
    due, made = (bars[bars < reached] for bars in (prepared.schedule.due, prepared.schedule.bars))
    baselines = run_baselines(
        market=market,
        rules=setup.rules,
        limits=setup.limits,
        cash=setup.cash,
        bars=due,
        recorded=recorded,
        strategy=outcome,
        seed=config.seed,
    )
    write_table(folder.path / "baselines.parquet", _baseline_curves(market, baselines))
    variants = execution_sensitivity(market, read_decisions(decisions), setup)
    measured = _measure(market, outcome, setup.cash)
    summary = build_summary(
        run_id=folder.run_id,
        status=status,
        about=_about(plan, prepared),
        bars=reached - market.first,
        tally=tally,
        skipped=prepared.schedule.skipped,
        unchanged=len(due) - len(made),
        performance=measured,
        baselines={
            name: _measure(market, getattr(baselines, name), setup.cash) for name in ("buy_and_hold", "random", "sma")
        },
        hashes={
            **hashes,
            "config": config_hash(plan.identity),
            "prompt": plan.prompt.hash if plan.prompt else None,
        },
        timing={
            "started": ended.started,
            "finished": ended.finished,
            "seconds": round(ended.seconds, 3),
            "decisions_per_s": round(tally.total / ended.seconds, 1) if ended.seconds else None,
            "saved_by_prefetch_s": round(ended.prefetch.saved_ms / 1e3, 3),
        },
        waste=_waste(folder, tally, ended.prefetch),
        random_beaten=baselines.random_beaten,
        portfolio=portfolio,
        conventions=state_conventions(config, len(market.symbols)),
        banners=make_banners(config, plan.loaded, plan.prompt),
        warnings=[
            *(["This run was continued after a stop."] if run.continued else []),
            *plan.loaded.notes,
            *make_warnings(
                config,
                status=ended.status,
                broker=broker,
                tally=tally,
                trades=measured["trades"],
                delisted=portfolio["delisted"] if portfolio else (),
            ),
        ],
    )
    summary["sensitivity"] = [variant.to_dict() for variant in variants]
    folder.write_exports(build_exports(summary, equity, fills))
    folder.finish(summary=summary, telemetry=journal.telemetry_head, finished=ended.finished)
    return summary


def _about(plan: RunPlan, prepared: PreparedMarket) -> dict[str, Any]:
    """Describe strategy, model and market; with `symbols` (number, first names) and `pool` for several symbols."""
    config, symbols = plan.config, prepared.market.symbols
    ranked = config.mode == "cross_sectional"
    named = {"count": len(symbols), "names": list(symbols[:_MOST_NAMED])} if config.multi_symbol else None
    return {
        "name": config.name,
        "strategy": plan.strategy.name,
        "model": f"{config.llm.provider}/{get_provider(config.llm).parameters()['model']}" if plan.prompt else None,
        "source": plan.loaded.label,
        "kind": config.market.kind,
        "mode": config.mode,
        "symbol": f"{len(symbols)} symbols" if len(symbols) > 1 else symbols[0],
        "symbols": named,
        "interval": config.market.interval,
        "start": config.market.start,
        "end": config.market.end,
        "every": None if ranked else config.strategy.every,
        "rebalance": config.rebalance if ranked else None,
        "pool": config.pool.model_dump(include={"top_n", "reselect", "lookback"}) if config.pool.enabled else None,
        "initial_cash": config.account.cash,
    }


def _waste(folder: RunFolder, tally: Tally, prefetch: PrefetchStats) -> Waste:
    """Sum up the paid calls that no decision used: from the ledger, where the run has its own.

    The ledger counts the earlier sessions of a continued run too, prefetch only this one.
    """
    if not folder.ledger.exists():
        return Waste(
            calls=prefetch.wasted,
            prompt_tokens=prefetch.wasted_prompt_tokens,
            completion_tokens=prefetch.wasted_completion_tokens,
            cost_usd=prefetch.wasted_usd,
            unpriced=prefetch.wasted_unpriced,
        )
    spent, llm = read_spent(folder.ledger), folder.read_manifest().get("llm") or {}
    probes = llm.get("probes", 0)
    return Waste(
        calls=max(0, spent.calls - tally.calls - probes),
        probes=probes,
        prompt_tokens=max(0, spent.prompt_tokens - tally.prompt_tokens),
        completion_tokens=max(0, spent.completion_tokens - tally.completion_tokens),
        cost_usd=max(0.0, (spent.usd or 0.0) - tally.cost_usd),
        unpriced=max(0, spent.unpriced - tally.unpriced),
    )


def _measure(market: Market, outcome: Outcome, cash: float) -> dict[str, Any]:
    curve = slice(market.first, len(market))
    return asdict(
        performance(
            times=market.times[curve],
            equity=outcome.equity[curve],
            exposure=outcome.exposure[curve],
            fills=outcome.fills,
            initial_cash=cash,
            start=int(market.times[market.first]) - market.interval,
            funding=outcome.funding,
        )
    )


def _baseline_curves(market: Market, baselines: Baselines) -> pl.DataFrame:
    curve = slice(market.first, len(market))
    return pl.DataFrame(
        {
            "time": pl.Series(market.times[curve]).cast(TIME),
            **{name: getattr(baselines, name).equity[curve] for name in BASELINES},
        }
    )
