"""Runs parameter sweeps, and judges the best combination.

1. Every combination becomes a config and a strategy; invalid ones are skipped                         `plan_sweep`
2. Vectorised strategies run in compiled loops, others step by step in processes                       `_evaluate`
3. The registry counts every combination as a trial; the best Sharpe ratio is deflated by them         `_verdict`
4. Walk-forward: chosen in each training period alone, the test periods joined to one curve            `_walk_forward`
5. Tables, `sweep.json`                                                                                `run_sweep`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent_bt.backtest.bars import LoadedBars
from agent_bt.backtest.prepare import build_market, make_schedule
from agent_bt.config.model import Config
from agent_bt.core.canonical import content_hash
from agent_bt.core.clock import iso, now_iso, time_us
from agent_bt.core.errors import Interrupted
from agent_bt.core.jit import compiling_announced
from agent_bt.core.progress import Progress
from agent_bt.core.protocols import Strategy, VectorisedStrategy
from agent_bt.engine.market import Market
from agent_bt.evaluation.performance import Performance, performance
from agent_bt.experiments.sweep.evaluate import Candidate, evaluate
from agent_bt.experiments.sweep.folder import SweepFolder, folder_of
from agent_bt.experiments.sweep.measures import choose, column, measure, plain, returns_of
from agent_bt.experiments.sweep.plan import Planned, SweepPlan, plan_sweep
from agent_bt.experiments.sweep.single import Period, SimulatedAccount, simulate_account, simulate_all
from agent_bt.experiments.sweep.spec import Sweep
from agent_bt.experiments.sweep.tables import curves_frame, results_frame, with_out_of_sample
from agent_bt.experiments.sweep.verdict import judge_best, sentence
from agent_bt.experiments.sweep.walk_forward import Window, windows_of
from agent_bt.records.hashes import config_hash
from agent_bt.records.registry import Registry, identify_trial
from agent_bt.strategies.registry import make_strategy
from agent_bt.strategies.simple import BuyAndHold

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    """The results of every combination in every period.

    Attributes:
        performances: by period, then by combination.
        marks: equity at the end of each day, likewise.
        fills: number of fills over the whole range, by combination.
    """

    performances: list[list[Performance]]
    marks: list[list[np.ndarray]]
    fills: list[int] = field(default_factory=list)


def run_sweep(sweep: Sweep, *, progress: Progress) -> tuple[SweepFolder, dict[str, Any]]:
    """Try every combination, write the folder of the sweep, and return it with the content of `sweep.json`.

    Args:
        sweep: as loaded by `load_sweep`.
        progress: shows how many combinations are done.

    Raises:
        ConfigError: no combination is valid, or one would call a model.
        DataError: the bars are missing.
        Interrupted: the user stopped it; the same command starts it again.
    """
    began = time.perf_counter()
    plan = plan_sweep(sweep)
    config, combinations, cash = sweep.config, plan.combinations, sweep.config.account.cash
    identity = _identity(sweep, plan)
    folder = folder_of(Path(config.output), f"{sweep.declared.name}-{identity[:10]}")
    windows = _windows(sweep)
    start, end = time_us(config.market.start), time_us(config.market.end)
    periods = [
        Period(start=start, end=end),
        *(Period(start=window.start, end=window.cut) for window in windows),
        *(Period(start=window.cut, end=window.end) for window in windows),
    ]
    with compiling_announced(progress.note):
        progress.start(0, f"{sweep.declared.name}: {len(combinations):,} combinations")
        try:
            results = _evaluate(plan, periods, cash, progress.update)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the same command starts the sweep again") from None
        finally:
            progress.stop()
        registry = Registry(Path(config.output))
        registry.add_many((each.identity for each in combinations), name=config.name, run_id=folder.path.name)
        holding = _simulate(plan, combinations[0], BuyAndHold(), [periods[0], *periods[1 + len(windows) :]])
        best = choose(column(results.performances[0], sweep.declared.metric))
        forward, stitched = _walk_forward(sweep, plan, results, windows)
    table = results_frame([each.values for each in combinations], results.performances[0], results.fills)
    curves = {"buy_and_hold": (holding[0].days, holding[0].marks)}
    if best is not None:
        account = _simulate(plan, combinations[best], combinations[best].strategy, periods[:1])[0]
        curves["best"] = (account.days, account.marks)
    if forward is not None:
        forward["buy_and_hold"] = plain(asdict(_performance_of(_chained(holding[1:]), cash)))
        table = with_out_of_sample(
            table, _test_returns(results, len(windows), cash), [row["chosen"] for row in forward["windows"]]
        )
        days, marks = ([getattr(each, part) for each in stitched] for part in ("days", "marks"))
        curves["walk_forward"] = (np.concatenate(days), np.concatenate(marks))
    record = {
        "version": VERSION,
        "sweep_id": folder.path.name,
        "name": sweep.declared.name,
        "status": "done",
        "identity": identity,
        "declared": sweep.declared.model_dump(mode="json"),
        "about": _about(plan),
        "params": {path: list(values) for path, values in sweep.params.items()},
        "metric": sweep.declared.metric,
        "combinations": {
            "all": sweep.size,
            "tried": len(combinations),
            "skipped": sum(plan.skipped.values()),
            "reasons": [{"reason": reason, "count": count} for reason, count in plan.skipped.most_common(10)],
        },
        "best": None if best is None else _best_record(combinations[best], best, results.performances[0][best]),
        "evidence": None if best is None else _verdict(registry, combinations, results, best, cash),
        "buy_and_hold": plain(asdict(_performance_of(holding[:1], cash))),
        "walk_forward": forward,
        "banners": _banners(config),
        "warnings": _warnings(sweep, plan, results, best, forward),
        "telemetry": {"seconds": round(time.perf_counter() - began, 3), "finished": now_iso()},
    }
    folder.write(record, table, curves_frame(curves))
    return folder, record


def _windows(sweep: Sweep) -> list[Window]:
    declared, market = sweep.declared.walk_forward, sweep.config.market
    return [] if declared is None else windows_of(declared, time_us(market.start), time_us(market.end))


def _evaluate(plan: SweepPlan, periods: Sequence[Period], cash: float, on_progress: Callable[[int], None]) -> _Results:
    """Run every combination over every period; `on_progress` is called with the number done."""
    count = len(plan.combinations)
    performances: list[list[Any]] = [[None] * count for _ in periods]
    marks: list[list[Any]] = [[None] * count for _ in periods]
    fills = [0] * count
    groups: dict[bytes, list[int]] = {}
    stepwise = []
    for at, each in enumerate(plan.combinations):
        if isinstance(each.strategy, VectorisedStrategy):
            groups.setdefault(each.shared.group_key, []).append(at)
        else:
            stepwise.append(at)
    for members in groups.values():
        shared = plan.combinations[members[0]].shared
        market = _market(shared.config, plan.loaded[shared.config.market.interval])
        candidates = [_candidate(plan.combinations[at]) for at in members]
        spans = [each.span(market, cash) for each in periods]
        due = make_schedule(shared.config, market, time_us(shared.config.market.end)).due
        for number, found in enumerate(evaluate(market, due, candidates, spans)):
            span = spans[number]
            elapsed = int(market.times[span.last] - market.times[span.first]) + market.interval
            for place, at in enumerate(members):
                marks[number][at] = found.marks[place]
                performances[number][at] = measure(
                    found.outcomes[place], found.marks[place], cash=cash, elapsed_us=elapsed
                )
                if number == 0:
                    fills[at] = int(found.outcomes[place]["fills"])
    configs = [plan.combinations[at].config for at in stepwise]
    bars = {interval: loaded.bars for interval, loaded in plan.loaded.items()}
    for done, (at, accounts) in enumerate(zip(stepwise, simulate_all(configs, bars, periods), strict=True), 1):
        for number, account in enumerate(accounts):
            performances[number][at] = _performance_of([account], cash)
            marks[number][at] = account.marks
        fills[at] = len(accounts[0].fills)
        on_progress(done)
    return _Results(performances=performances, marks=marks, fills=fills)


def _simulate(
    plan: SweepPlan, planned: Planned, strategy: Strategy, periods: Sequence[Period], cash: float | None = None
) -> list[SimulatedAccount]:
    return simulate_account(
        planned.config, plan.loaded[planned.config.market.interval].bars, strategy, periods, cash=cash
    )


def _test_returns(results: _Results, windows: int, cash: float) -> list[np.ndarray]:
    """Return the daily returns of each combination in all test periods, one after another."""
    tests = results.marks[1 + windows :]
    return [
        np.concatenate([returns_of(test[at], cash) for test in tests]) for at in range(len(results.performances[0]))
    ]


def _candidate(planned: Planned) -> Candidate:
    assert isinstance(planned.strategy, VectorisedStrategy)
    return Candidate(strategy=planned.strategy, rules=planned.shared.setup.rules, limits=planned.shared.setup.limits)


def _market(config: Config, loaded: LoadedBars) -> Market:
    """Return the market without features, which are shared."""
    return build_market(config, loaded.bars, BuyAndHold())


def _performance_of(parts: Sequence[SimulatedAccount], cash: float) -> Performance:
    """Return the performance of an account whose parts follow each other."""
    return performance(
        times=np.concatenate([part.times for part in parts]),
        equity=np.concatenate([part.equity for part in parts]),
        exposure=np.concatenate([part.exposure for part in parts]),
        fills=[fill for part in parts for fill in part.fills],
        initial_cash=cash,
        start=parts[0].start,
        funding=sum(part.funding for part in parts),
    )


def _verdict(
    registry: Registry, combinations: Sequence[Planned], results: _Results, best: int, cash: float
) -> dict[str, Any]:
    trial = identify_trial(combinations[best].identity)
    returns = [returns_of(marks, cash) for marks in results.marks[0]]
    evidence = judge_best(returns[best], returns, trials=registry.count(trial.series, trial.start, trial.end))
    return {**evidence, "sentence": sentence(evidence)}


def _walk_forward(
    sweep: Sweep, plan: SweepPlan, results: _Results, windows: Sequence[Window]
) -> tuple[dict[str, Any] | None, list[SimulatedAccount]]:
    """Choose in each training period, run the choice in the test period after it; the capital carries over."""
    if not windows:
        return None, []
    metric, capital = sweep.declared.metric, sweep.config.account.cash
    rows, stitched = [], []
    for number, window in enumerate(windows):
        scores = column(results.performances[1 + number], metric)
        chosen = choose(scores)
        period = Period(start=window.cut, end=window.end)
        # Where no combination has the measure (nothing traded, for example), stay out.
        each = plan.combinations[0 if chosen is None else chosen]
        strategy = make_strategy("stay_out", {}) if chosen is None else each.strategy
        (account,) = _simulate(plan, each, strategy, [period], cash=capital)
        measured_test = _performance_of([account], capital)
        rows.append(
            {
                "train": {"start": iso(window.start), "end": iso(window.cut)},
                "test": {"start": iso(window.cut), "end": iso(window.end)},
                "chosen": chosen,
                "params": None if chosen is None else dict(each.values),
                "in_sample": None if chosen is None else float(scores[chosen]),
                "out_of_sample": getattr(measured_test, metric),
                "total_return": measured_test.total_return,
                "capital": capital,
            }
        )
        capital = measured_test.final_equity
        stitched.append(account)
    measured = _performance_of(stitched, sweep.config.account.cash)
    returns = returns_of(np.concatenate([each.marks for each in stitched]), sweep.config.account.cash)
    return {
        **sweep.declared.walk_forward.model_dump(),  # type: ignore[union-attr]
        "windows": rows,
        "performance": plain(asdict(measured)),
        "evidence": {key: value for key, value in judge_best(returns, [returns], trials=1).items() if key != "dsr"},
    }, stitched


def _chained(parts: Sequence[SimulatedAccount]) -> list[SimulatedAccount]:
    """Return the accounts, each scaled to start with the final equity of the one before."""
    chained, factor = [], 1.0
    for part in parts:
        chained.append(part.scaled(factor))
        factor *= float(part.equity[-1]) / part.cash
    return chained


def _best_record(planned: Planned, index: int, performed: Performance) -> dict[str, Any]:
    return {"index": index, "params": dict(planned.values), "performance": plain(asdict(performed))}


def _identity(sweep: Sweep, plan: SweepPlan) -> str:
    """Return the hash of a sweep: its runs, and how the best of them is chosen."""
    declared = sweep.declared
    forward = None if declared.walk_forward is None else declared.walk_forward.model_dump()
    hashes = [config_hash(each.identity) for each in plan.combinations]
    return content_hash("agent-bt/sweep/v1", [hashes, declared.metric, forward])


def _about(plan: SweepPlan) -> dict[str, Any]:
    config = plan.combinations[0].config
    kinds = sorted({each.config.strategy.kind for each in plan.combinations})
    return {
        "strategy": ", ".join(kinds),
        "source": plan.loaded[config.market.interval].label,
        "symbols": list(config.market.symbols or [config.market.symbol]),
        "interval": config.market.interval,
        "start": config.market.start,
        "end": config.market.end,
        "rhythm": config.rebalance if config.mode == "cross_sectional" else config.strategy.every,
        "initial_cash": config.account.cash,
        "fee_rate": config.execution.fee_rate,
        "slippage_bps": config.execution.slippage_bps,
    }


def _banners(config: Config) -> list[str]:
    if config.market.source != "sample":
        return []
    return ["SAMPLE MARKET: generated prices; nothing here says anything about the real market"]


def _warnings(
    sweep: Sweep, plan: SweepPlan, results: _Results, best: int | None, forward: Mapping[str, Any] | None
) -> list[str]:
    warnings = []
    count, metric = len(plan.combinations), sweep.declared.metric
    if skipped := sum(plan.skipped.values()):
        reason = plan.skipped.most_common(1)[0][0]
        warnings.append(f"{skipped:,} combinations are not valid and were not tried, for example: {reason}")
    if best is None:
        warnings.append(f"No combination has a {metric}: none traded, or there are too few days")
        return warnings
    if count > 1:
        warnings.append(
            f"The best of {count:,} was selected because it looks best on this data: its figures are biased upwards"
        )
    trades = results.performances[0][best].trades
    if trades < 30:
        warnings.append(f"The best has {trades} closed trades: too few to distinguish skill from luck")
    if forward is None:
        warnings.append("The choice was not tested out of sample; set walk_forward: {train: 60d, test: 30d}")
    return warnings
