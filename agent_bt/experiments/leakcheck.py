"""The leak check of an agent: config -> runs, questions and answers -> what shows of memory.

1. The cutoff splits the results of an ordinary run                                             `_performance`
2. The same run behind a mask is paired with it                                                 `_run_both`
3. A sample of its decisions is asked again about the masked and about counterfactual markets   `ask_all`
4. Prices are asked for by their date alone                                                     `ask_recall`
5. What shows is judged                                                                         `judge_memory`

Everything goes through one cache: after a stop the same command repeats no call that was answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.bars import LoadedBars
from agent_bt.backtest.estimate import Estimate, RequestCounter, add_estimates, estimate_plan
from agent_bt.backtest.model import Model, build_form, build_request_form, open_model
from agent_bt.backtest.plan import RunPlan, plan_run
from agent_bt.backtest.prepare import build_market, prepare_market
from agent_bt.backtest.run import run_plan
from agent_bt.backtest.strategy import build_strategy
from agent_bt.config.model import Config
from agent_bt.core.clock import DAY, duration_us, iso, time_us
from agent_bt.core.errors import UsageError
from agent_bt.core.progress import Progress, SilentProgress
from agent_bt.core.protocols import AgentStrategy
from agent_bt.core.types import Decision, ModelCall, Portfolio, Position
from agent_bt.core.view import MarketView
from agent_bt.evaluation.leakcheck.cutoff import Cutoff, find_cutoff
from agent_bt.evaluation.leakcheck.histories import SYMBOL, Mask, counterfactuals
from agent_bt.evaluation.leakcheck.measures import Answers
from agent_bt.evaluation.leakcheck.recall import SCHEMA, Recall, choose_probes, read_price, score
from agent_bt.evaluation.leakcheck.verdict import MASKED, PLAIN, LeakVerdict, judge_memory
from agent_bt.evaluation.metrics import daily_returns, sharpe_ratio
from agent_bt.evaluation.stats.verdict import judge
from agent_bt.experiments.ab.evidence import arm_evidence, bars_per_decision, common_bars
from agent_bt.experiments.ab.folder import ExperimentFolder
from agent_bt.llm.provider import get_provider
from agent_bt.records.hashes import config_hash
from agent_bt.records.read import Run
from agent_bt.records.run_folder import write_json

if TYPE_CHECKING:
    from agent_bt.llm.endpoints import Endpoints

PROBES = 30
_FEW, _FAILED = 50, 0.05


def leakcheck(
    config: Config,
    config_path: Path | None = None,
    *,
    samples: int = 100,
    replicates: int = 2,
    alpha: float = 0.01,
    progress: Progress,
    offline: bool = False,
) -> dict[str, Any]:
    """Check an agent for memory of its market, and return what `leakcheck.json` holds.

    Args:
        config: config of the agent.
        config_path: file that it was read from; default: none.
        samples: decisions that are asked again about each of the other histories.
        replicates: how often each is asked.
        alpha: chance of flagging a model that remembers nothing.
        progress: shows how far it is.
        offline: replies come from the cache alone.

    Raises:
        UsageError: the strategy is not an agent.
        AgentBtError: something could not run; the same command continues.
    """
    plain = plan_run(config, config_path=config_path)
    config, prompt = plain.config, _check_agent(plain)
    mask = Mask.of(plain.loaded.bars)
    home = Path(config.output) / "leak" / f"{config.name}-{config_hash(plain.identity)[:12]}"
    folder = ExperimentFolder(home)
    cutoff = find_cutoff(config.llm)
    with ExitStack() as opened:
        endpoints = None
        if not get_provider(config.llm).embedded and not offline:
            from agent_bt.llm.endpoints import Endpoints

            home.mkdir(parents=True, exist_ok=True)
            endpoints = Endpoints(config, folder.ledger)
            opened.callback(endpoints.close)
        first, second = _run_both(plain, mask, folder, progress, offline, endpoints)
        model = open_model(config, offline=offline, endpoints=endpoints)
        opened.callback(model.close)
        memory = probe_memory(
            config,
            prompt,
            plain.loaded,
            model,
            samples=samples,
            replicates=replicates,
            alpha=alpha,
            progress=progress,
            mask=mask,
        )
    found = {
        "name": config.name,
        "strategy": first.summary["about"]["strategy"],
        "model": first.summary["about"]["model"],
        "flagged": memory.flagged,
        "cutoff": {"day": cutoff.day, "source": cutoff.source, "text": str(cutoff)},
        "performance": _performance(first, cutoff, sample=plain.loaded.sample),
        "masked": _paired(first, second, alpha=alpha, seed=config.seed),
        "memory": memory.to_dict(),
        "runs": {PLAIN: str(first.path), MASKED: str(second.path)},
        "banners": first.summary["banners"],
        "warnings": _warnings(memory, cutoff),
    }
    plain_data: dict[str, Any] = orjson.loads(orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY))
    write_json(home / "leakcheck.json", plain_data)
    return plain_data


def estimate_leakcheck(
    config: Config, config_path: Path | None = None, *, samples: int = 100, replicates: int = 2
) -> Estimate:
    """Build every request of a leak check and add up what they would cost; nothing is sent.

    Args:
        config: of the agent.
        config_path: file it was read from; prompts beside it are found.
        samples: decisions that are asked again about each of the other histories.
        replicates: how often each is asked.

    Raises:
        UsageError: the strategy is not an agent.
    """
    plain = plan_run(config, config_path=config_path)
    prompt = _check_agent(plain)
    mask = Mask.of(plain.loaded.bars)
    asked: set[str] = set()
    parts = [estimate_plan(plan, asked) for plan in (plain, _masked_plan(plain, mask))]
    with ExitStack() as opened:
        counter = RequestCounter(plain.config, opened, asked)
        negotiated = counter.negotiated()
        form = build_form(plain.config, negotiated)
        model = Model(llm=counter, form=form, requested={}, negotiated=negotiated)
        probe_memory(
            plain.config,
            prompt,
            plain.loaded,
            model,
            samples=samples,
            replicates=replicates,
            alpha=0.5,
            progress=SilentProgress(),
            mask=mask,
        )
        parts.append(counter.to_estimate())
    return add_estimates(parts)


def _check_agent(plain: RunPlan) -> Prompt:
    """Return the prompt of an agent that can be checked.

    Raises:
        UsageError: the strategy is another.
    """
    kind = plain.config.strategy.kind
    if plain.prompt is None:
        raise UsageError(f"strategy.kind is {kind}: only an agent can remember; see `agent-bt audit`")
    if kind != "agent":
        raise UsageError(
            f"strategy.kind is {kind}: the leak check asks for BUY, SELL or HOLD on one symbol, so it takes "
            "strategy.kind agent alone; check the same model with one"
        )
    return plain.prompt


def _masked_plan(plain: RunPlan, mask: Mask) -> RunPlan:
    """Plan the run behind a mask."""
    loaded = LoadedBars(
        bars=mask.apply(plain.loaded.bars), label=f"{plain.loaded.label}, masked", sample=plain.loaded.sample
    )
    config = masked_config(plain.config, mask)
    return plan_run(config, config_path=plain.config_path, limit=plain.limit, load=lambda _: loaded)


def probe_memory(
    config: Config,
    prompt: Prompt,
    loaded: LoadedBars,
    model: Model,
    *,
    samples: int,
    replicates: int,
    alpha: float,
    progress: Progress,
    mask: Mask,
) -> LeakVerdict:
    """Ask a sample of decisions about every history, and the prices by their dates; judge the answers.

    Args:
        config: of the agent.
        prompt: of the agent.
        loaded: bars of the plain history.
        model: that is asked.
        samples: number of decisions that are asked about each history.
        replicates: how often each is asked.
        alpha: chance of flagging a model that remembers nothing.
        progress: shows how far it is.
        mask: makes the history without symbol, dates and price level.

    Raises:
        UsageError: the range holds fewer than three decisions.
    """
    rng = np.random.default_rng(config.seed)
    bars = loaded.bars
    histories = {PLAIN: bars, MASKED: mask.apply(bars)}
    histories |= {name: change(bars) for name, change in counterfactuals(rng).items()}
    schedule = prepare_market(config, bars, _agent(config, prompt, model, 0)).schedule.bars
    if len(schedule) < 3:
        raise UsageError("the range holds fewer than three decisions; widen market.start to end")
    chosen = np.unique(np.linspace(0, len(schedule) - 2, min(samples, len(schedule) - 1)).round().astype(int))
    closes = bars["close"].to_numpy()
    next_returns = closes[schedule[chosen + 1]] / closes[schedule[chosen]] - 1.0
    rows = [int(row) for row in schedule[chosen]]
    answers = {}
    progress.start(len(histories) * replicates * len(rows), "questions about other histories")
    try:
        for at, (name, history) in enumerate(histories.items()):
            seen = masked_config(config, mask) if name == MASKED else config
            given = [
                ask_all(
                    seen, _agent(seen, prompt, model, replicate), history, rows, progress,
                    done=(at * replicates + replicate) * len(rows),
                )
                for replicate in range(replicates)
            ]  # fmt: skip
            answers[name] = Answers.of(given)
    finally:
        progress.stop()
    recall = ask_recall(config, bars, model)
    return judge_memory(answers, next_returns, recall, alpha=alpha, seed=config.seed)


def ask_all(
    config: Config, agent: AgentStrategy, bars: pl.DataFrame, rows: Sequence[int], progress: Progress, *, done: int
) -> list[Decision]:
    """Ask for the decision at each of some rows of a history.

    The account is half invested, so that buying and selling are both possible.

    Args:
        config: of the agent.
        agent: that decides.
        bars: the history.
        rows: of the decisions.
        progress: shows how far it is.
        done: number of decisions that were asked before.
    """
    market = build_market(config, bars, agent)
    every = duration_us(config.strategy.every)
    asked = []
    for row in rows:
        view = market.at(row)
        portfolio = _half_invested(view, config.account.cash, every)
        requests = agent.requests(view, portfolio)
        asked.append((view, portfolio, [(request, agent.llm.submit(request)) for request in requests]))
    decisions = []
    for view, portfolio, calls in asked:
        exchanges = [ModelCall(request=request, reply=reply.result()) for request, reply in calls]
        decisions.append(agent.interpret(view, portfolio, exchanges))
        progress.update(done + len(decisions))
    return decisions


def ask_recall(config: Config, bars: pl.DataFrame, model: Model) -> Recall | None:
    """Ask for closes by date alone; None where the range holds no whole day.

    Args:
        config: of the agent.
        bars: with the prices that are asked for.
        model: that is asked.
    """
    inside = bars.filter(pl.col("open_time").to_physical() >= time_us(config.market.start))
    times = inside["close_time"].to_physical().to_numpy()
    probes = choose_probes(times, inside["close"].to_numpy(), PROBES)
    if not probes:
        return None
    form = build_request_form(config.llm, model.negotiated, SCHEMA)
    replies = [model.llm.submit(form.request(probe.messages(config.market.symbol))) for probe in probes]
    return score(probes, [read_price(reply.result()) for reply in replies])


def masked_config(config: Config, mask: Mask) -> Config:
    """Return the config of the run behind a mask: another symbol and other dates; a lot is worth what it was.

    Args:
        config: of the run.
        mask: as applied to its bars.
    """
    market, execution = config.market, config.execution
    lots = 1.0 / mask.price_factor
    return config.model_copy(
        update={
            "name": f"{config.name[:57]}-masked",
            "market": market.model_copy(
                update={
                    "symbol": SYMBOL,
                    "start": _moved(market.start, mask.shift),
                    "end": _moved(market.end, mask.shift),
                }
            ),
            "execution": execution.model_copy(
                update={"lot_step": execution.lot_step * lots, "min_quantity": execution.min_quantity * lots}
            ),
        }
    )


def _moved(instant: str, shift: int) -> str:
    us = time_us(instant) + shift
    return iso(us)[:10] if us % DAY == 0 else iso(us)


def _agent(config: Config, prompt: Prompt, model: Model, replicate: int) -> AgentStrategy:
    llm = config.llm.model_copy(update={"replicate": config.llm.replicate + replicate})
    agent = build_strategy(config, prompt, build_request_form(llm, model.negotiated), model.llm)
    assert isinstance(agent, AgentStrategy)
    return agent


def _half_invested(view: MarketView, cash: float, every: int) -> Portfolio:
    symbol = view.symbols[0]
    price = view.prices[symbol]
    held = Position(quantity=cash / 2.0 / price, average_price=price, opened=view.now - every)
    return Portfolio(cash=cash / 2.0, positions={symbol: held}, peak_equity=cash)


def _run_both(
    plain: RunPlan,
    mask: Mask,
    folder: ExperimentFolder,
    progress: Progress,
    offline: bool,
    endpoints: Endpoints | None,
) -> tuple[Run, Run]:
    runs = []
    for name, plan in ((PLAIN, plain), (MASKED, _masked_plan(plain, mask))):
        run = folder.finished_run(name)
        if run is None:
            result = run_plan(
                replace(plan, root=folder.cell(name)),
                progress=progress,
                offline=offline,
                report=False,
                endpoints=endpoints,
            )
            if result.error is not None:
                raise result.error
            run = folder.finished_run(name)
            assert run is not None
        runs.append(run)
    return runs[0], runs[1]


def _performance(run: Run, cutoff: Cutoff, *, sample: bool) -> dict[str, Any]:
    """Figures before and after the cutoff; the headline is never from before it."""
    times, equity = run.equity["time"].to_physical().to_numpy(), run.equity["equity"].to_numpy()
    cash = run.summary["about"]["initial_cash"]
    if cutoff.instant is not None and not sample:
        split = int(np.searchsorted(times, cutoff.instant, side="right"))
        before, after = _figures(times[:split], equity[:split], cash), None
        if split < len(times):
            after = _figures(times[split:], equity[split:], float(equity[split - 1]) if split else cash)
        status = "after_cutoff" if after else "nothing_after_cutoff"
        return {"status": status, "headline": after, "before": before, "after": after}
    whole = _figures(times, equity, cash)
    status = "nothing_to_remember" if sample or cutoff.source == "embedded" else "unverified"
    return {"status": status, "headline": whole, "before": None, "after": None}


def _figures(times: np.ndarray, equity: np.ndarray, initial: float) -> dict[str, Any] | None:
    if not len(times):
        return None
    returns = daily_returns(times, equity, initial)
    return {
        "days": len(returns),
        "total_return": float(equity[-1] / initial - 1.0),
        "mean_return_bps_a_day": float(1e4 * np.mean(returns)),
        "sharpe": sharpe_ratio(returns),
    }


def _paired(plain: Run, masked: Run, *, alpha: float, seed: int) -> dict[str, Any]:
    """The plain run judged against the masked one, bar by bar: the bars are the same, only their dates are not."""
    bars, other = common_bars({PLAIN: [[plain]]}), common_bars({MASKED: [[masked]]})
    comparison = judge(
        [arm_evidence(PLAIN, [[plain]], bars), arm_evidence(MASKED, [[masked]], other)],
        baseline=MASKED,
        times=bars.times,
        alpha=alpha,
        bars_per_decision=bars_per_decision([plain]),
        seed=seed,
    )
    return comparison.verdicts[0].to_dict()


def _warnings(memory: LeakVerdict, cutoff: Cutoff) -> list[str]:
    warnings = ["a mask can be undone: passing is evidence, not proof"]
    if cutoff.source == "unverified":
        warnings.append(f"the model's knowledge cutoff is {cutoff}")
    if memory.failed > _FAILED:
        warnings.append(f"up to {memory.failed:.0%} of the answers about one history were not valid, and count as HOLD")
    if memory.decisions < _FEW:
        warnings.append(f"only {memory.decisions} decisions were asked: little memory would not show")
    return warnings
