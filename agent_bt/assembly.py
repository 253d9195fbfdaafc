"""Config -> objects: the source of bars, the market, the model, the strategy, the account. Nothing is run here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from agent_bt.agents.agent import PromptAgent, RequestForm
from agent_bt.agents.prompt import Prompt, load_prompt, prompt_roots
from agent_bt.agents.ranker import RankerAgent
from agent_bt.config import Config
from agent_bt.core.clock import HOUR, duration_us, interval_us, iso, time_us
from agent_bt.core.errors import AgentBtError, ConfigError, DataError, PromptError, StrategyError
from agent_bt.core.params import keys
from agent_bt.core.protocols import LLM, AgentStrategy, Strategy, VectorisedStrategy
from agent_bt.core.rhythm import instants
from agent_bt.core.types import Portfolio, Reply, Request
from agent_bt.engine.market import Market
from agent_bt.engine.pool import members
from agent_bt.engine.schedule import Schedule, decision_schedule
from agent_bt.engine.vectorised import news
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.desk import Desk
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.features.specs import feature_specs, lookback
from agent_bt.strategies.registry import agent_kinds, agent_params, make_strategy

if TYPE_CHECKING:
    from agent_bt.data.panel import Panel
    from agent_bt.data.sample import SampleSource
    from agent_bt.data.sources import ParquetSource, StoreSource


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBars:
    """Bars in `BAR_SCHEMA`, warm-up included, and where they come from; `sample` for generated ones.

    Those of several symbols stand one after another, with `symbol`; perpetuals have `funding_rate`. `notes` say what
    of it is not exact.
    """

    bars: pl.DataFrame
    label: str
    sample: bool
    notes: tuple[str, ...] = ()


def load_bars(config: Config) -> LoadedBars:
    """Fetch the bars of a run from its source.

    Raises:
        DataError: the source lacks them; the message says how to get them.
    """
    market = config.market
    start, end = time_us(market.start) - duration_us(market.warmup), time_us(market.end)
    notes: tuple[str, ...] = ()
    if config.over_many:
        from agent_bt.data.funding import load_panel_funding

        panel = open_panel(config)
        label, notes, bars = panel.label, panel.notes, panel.fetch_panel(market.interval, start, end)
        if _funded(config) and not bars.is_empty():
            bars = load_panel_funding(panel, bars)
        notes = (*notes, *_shortfalls(config, bars, start, end))
    else:
        from agent_bt.data.funding import load_funding

        source = open_source(config)
        label, bars = source.label, source.fetch_ohlcv(market.interval, start, end)
        if _funded(config):
            bars = load_funding(source, bars)
    if not _funded(config) and "funding_rate" in bars.columns:
        bars = bars.drop("funding_rate")
    if bars.is_empty():
        raise DataError(f"{label} has no bars from {iso(start)} to {market.end}; choose another range")
    return LoadedBars(bars=bars, label=label, sample=market.source == "sample", notes=notes)


def _shortfalls(config: Config, bars: pl.DataFrame, start: int, end: int) -> Sequence[str]:
    """Where bars of several symbols, asked for from `start` to `end` (UTC us), do not reach."""
    if bars.is_empty():
        return ()
    market, pool, bar = config.market, config.pool, interval_us(config.market.interval)
    first, last = (int(bars[name].cast(pl.Int64).sort()[at]) for name, at in (("open_time", 0), ("close_time", -1)))
    notes = []
    if first - start >= bar:
        notes.append(
            f"There is no bar before {iso(first)}, asked for from {iso(start)} (market.start less market.warmup)"
        )
    if end - last >= bar:
        notes.append(f"There is no bar after {iso(last)}: the run ends there, not at market.end ({iso(end)})")
    begin = max(time_us(market.start), first)
    if pool.enabled and begin - first < duration_us(pool.lookback):
        hours = (begin - first) / HOUR
        notes.append(
            f"The first choice of the pool sees {hours:g} hours of bars before the run, less than its look-back of "
            f"{pool.lookback}; market.warmup reads more"
        )
    return notes


def _funded(config: Config) -> bool:
    return config.market.kind == "um" and config.execution.funding


def open_source(config: Config) -> StoreSource | ParquetSource | SampleSource:
    """The data source of one symbol that `market.source` names."""
    from agent_bt.data.sample import SampleSource
    from agent_bt.data.sources import ParquetSource, StoreSource

    market = config.market
    if market.source == "sample":
        return SampleSource(market.symbol, config.seed, gaps=market.gaps)
    if market.source == "store":
        return StoreSource(Path(config.data.root), market.symbol, kind=market.kind, gaps=market.gaps)
    return ParquetSource(Path(market.source), market.symbol, gaps=market.gaps)


SAMPLE_SYMBOLS = tuple(f"SAMPLE{number:02}USDT" for number in range(1, 11))
"""What a run over several symbols of the sample market holds, unless it names others."""


def open_panel(config: Config) -> Panel:
    """The source of several symbols that `market.source` names.

    Raises:
        DataError: it holds nothing, or not what is asked for.
    """
    from agent_bt.data.panel import PanelSource, StorePanel
    from agent_bt.data.sample_panel import SamplePanel
    from agent_bt.data.store import series_in

    market = config.market
    if market.source == "sample":
        return SamplePanel(market.symbols or SAMPLE_SYMBOLS, config.seed, gaps=market.gaps)
    if market.source == "store":
        root = Path(config.data.root)
        symbols = market.symbols or sorted({store.symbol for store in series_in(root) if store.kind == market.kind})
        if not symbols:
            raise DataError(
                f"{root}: no symbol of kind {market.kind} is stored; fetch some with `agent-bt data backfill`"
            )
        return StorePanel(root, symbols, market.kind, gaps=market.gaps)
    return PanelSource(Path(market.source), market.symbols, gaps=market.gaps)


def find_prompt(config: Config, config_path: Path | None) -> Prompt | None:
    """The prompt of an agent, alone or in an ensemble; None for any other strategy.

    Raises:
        PromptError: there is no such prompt, or it is not valid.
    """
    kinds = agent_kinds(config.strategy.kind, config.strategy.params)
    if not kinds:
        return None
    prompt = load_prompt(config.strategy.prompt, prompt_roots(config_path))
    ranks = "weights" in prompt.output.get("properties", {})
    if ranks != ("agent_ranker" in kinds):
        wanted, fitting = ("weights", "panel_ranker/v1") if not ranks else ("action", "btcusdt_trader/v1")
        raise PromptError(
            f"strategy.prompt {prompt.reference}: its output has no {wanted}, which {' and '.join(sorted(kinds))} "
            f"{'wants' if len(kinds) == 1 else 'want'}; set strategy.prompt: {fitting}, or one of your own"
        )
    return prompt


def with_prompt_defaults(config: Config, prompt: Prompt | None) -> Config:
    """The config with what the prompt's author suggests, where nobody has said otherwise."""
    if prompt is None:
        return config
    suggested = prompt.model.model_dump(exclude_none=True)
    changes = {key: value for key, value in suggested.items() if key not in config.llm.model_fields_set}
    return config.model_copy(update={"llm": config.llm.model_copy(update=changes)}) if changes else config


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A market with its decision bars, ready for a strategy: what stays the same whoever decides.

    `targets`: what a strategy that can answer for all bars at once wants at `schedule.due`, float64 (D, N); else None.
    """

    market: Market
    schedule: Schedule
    targets: np.ndarray | None = None


def set_stage(config: Config, bars: pl.DataFrame, strategy: Strategy, limit: int | None = None) -> Stage:
    """Compute what the strategy wants to see, and when it decides; with `limit`, only so many decisions.

    A limited market ends where the next decision would have been, so that the last one still has its effect.

    Raises:
        ConfigError: the range holds no decision.
    """
    end = time_us(config.market.end)
    market = build_market(config, bars, strategy)
    schedule = make_schedule(config, market, end)
    if not len(schedule.bars):
        when = f"rebalance {config.rebalance}" if config.mode == "cross_sectional" else f"every {config.strategy.every}"
        bars_needed = strategy.lookback + max((lookback(spec) for spec in strategy.features), default=1) - 1
        raise ConfigError(
            f"market.start {config.market.start} to end {config.market.end} leaves no decision ({when}): "
            f"{strategy.name} needs {bars_needed} bars of {config.market.interval} before the first; "
            f"widen the range or set market.warmup"
        )
    if limit is not None and limit < len(schedule.bars):
        market = market.head(int(schedule.bars[limit]) + 1)
        schedule = make_schedule(config, market, int(market.times[-1])).head(limit)
    if not isinstance(strategy, VectorisedStrategy):
        return Stage(market=market, schedule=schedule)
    targets = _known_targets(strategy, market, schedule)
    return Stage(market=market, schedule=schedule.only(news(targets, strategy.on_change)), targets=targets)


def make_schedule(config: Config, market: Market, end: int) -> Schedule:
    """The decisions of a run up to `end` (UTC us, inclusive)."""
    if config.mode == "cross_sectional":
        due = instants(config.rebalance, int(market.times[market.first]), end)
    else:
        every, start = duration_us(config.strategy.every), int(market.times[market.first])
        due = np.arange(-(-start // every) * every, end + 1, every, dtype=np.int64)
    return decision_schedule(market, due)


AGREEMENTS = 33
"""Decisions, spread over the run, at which a strategy known beforehand is asked alone as well."""


def _known_targets(strategy: VectorisedStrategy, market: Market, schedule: Schedule) -> np.ndarray:
    """The targets at all decisions of a strategy that can answer for them at once, some of them asked for alone too."""
    targets = strategy.decide_all(market, schedule.bars)
    for at in np.unique(np.linspace(0, len(schedule.bars) - 1, AGREEMENTS).astype(np.int64)):
        _check_agreement(strategy, market, int(schedule.bars[at]), targets[at])
    return targets


def _check_agreement(strategy: Strategy, market: Market, bar: int, targets: np.ndarray) -> None:
    """Refuse a strategy whose two answers to the same bar differ, before a run is half one and half the other."""
    decision = strategy.decide(market.at(bar), Portfolio(cash=1.0, positions={}, peak_equity=1.0))
    given = [(decision.targets or {}).get(symbol, np.nan) for symbol in market.symbols]
    if not np.array_equal(given, targets, equal_nan=True):
        raise StrategyError(
            f"strategy {strategy.name}: decide and decide_all differ at {iso(int(market.times[bar]))}: "
            f"{decision.targets} against {dict(zip(market.symbols, targets.tolist(), strict=True))}; a row may "
            "depend on its last `reach` rows, itself included, and on nothing later"
        )


def check_agent(config: Config) -> None:
    """Check what an agent's config must hold beside its own rules.

    Raises:
        ConfigError: an agent decides on several symbols or a ranker on one; both are in one ensemble; an agent has
            parameters; or a ranker may sell short what the account may not.
    """
    strategy = config.strategy
    kinds = agent_kinds(strategy.kind, strategy.params)
    if strategy.kind == "agent" and strategy.params:
        raise ConfigError("strategy.params: an agent takes none; what the model gets is set under llm and features")
    if len(kinds) > 1:
        raise ConfigError("strategy.params.members: agent and agent_ranker cannot vote together: they share one prompt")
    if "agent" in kinds and config.over_many:
        raise ConfigError("strategy.kind agent decides on one symbol; set strategy.kind: agent_ranker for several")
    if "agent_ranker" in kinds and not config.over_many:
        raise ConfigError(
            "strategy.kind agent_ranker weighs symbols against each other; set mode: cross_sectional, or market.symbols"
        )
    short = any(each.get("allow_short") is True for each in agent_params(strategy.kind, strategy.params))
    if short and not config.risk.allow_short:
        raise ConfigError(
            "strategy.params.allow_short: the account may not be short; set risk.allow_short: true, market.kind: um"
        )


def build_strategy(
    config: Config, prompt: Prompt | None, form: RequestForm | None = None, llm: LLM | None = None
) -> Strategy:
    """The strategy that `strategy.kind` names.

    An agent needs its prompt; without `form` and `llm` it can be looked at and cannot be asked.

    Raises:
        ConfigError: there is no such strategy, or its parameters don't fit.
    """

    def agent(kind: str, params: Mapping[str, Any]) -> AgentStrategy:
        assert prompt is not None
        shared: dict[str, Any] = {
            "prompt": prompt, "form": form or _UNASKED_FORM, "llm": llm or _UNASKED_LLM, "strip": config.llm.strip
        }  # fmt: skip
        if kind == "agent_ranker":
            rhythm = config.rebalance if config.mode == "cross_sectional" else config.strategy.every
            try:
                keys("params", params, allowed=("columns", "allow_short", "max_symbols"))
                return RankerAgent(rhythm=rhythm, **shared, **params)
            except AgentBtError as error:
                raise ConfigError(f"strategy {kind}: {error}") from error
        if params:
            raise ConfigError(f"{kind} takes no params; what the model gets is set under llm and features")
        return PromptAgent(
            window=config.features.window,
            every=duration_us(config.strategy.every),
            features=feature_specs(config.features),
            summary=config.features.summary,
            sizing=config.strategy.sizing,
            **shared,
        )

    return make_strategy(config.strategy.kind, config.strategy.params, agent if prompt is not None else None)


class _Unasked:
    """Stands where a model will be, for looking at what its strategy needs."""

    def submit(self, request: Request) -> Future[Reply]:  # noqa: ARG002
        raise AssertionError("no model was opened")

    def complete(self, request: Request) -> Reply:  # noqa: ARG002
        raise AssertionError("no model was opened")

    def close(self) -> None:
        """Nothing to release."""


_UNASKED_LLM = _Unasked()
_UNASKED_FORM = RequestForm(provider="", endpoint_id="", replicate=0, body=lambda messages: {"messages": messages})


def build_market(config: Config, bars: pl.DataFrame, strategy: Strategy) -> Market:
    """Bars with the strategy's features and summary.

    Raises:
        DataError: no bar lies at or after the start.
    """
    from agent_bt.features.compute import compute
    from agent_bt.features.summary import SummaryTable

    interval = interval_us(config.market.interval)
    many = "symbol" in bars.columns
    if many and strategy.summary:
        raise ConfigError(f"{strategy.name} needs the 7-day summary, which is of one symbol; this run has several")
    parts = bars.partition_by("symbol", maintain_order=True) if many else [bars]
    symbols = [str(part["symbol"][0]) for part in parts] if many else [config.market.symbol]
    specs = strategy.features
    market = Market(
        symbols=symbols,
        bars=bars,
        interval=interval,
        start=time_us(config.market.start),
        features=np.concatenate([compute(part, specs) for part in parts]) if specs else np.empty((len(bars), 0)),
        feature_names=[spec.column for spec in specs],
        summary=SummaryTable(bars, interval, strategy.summary).at if strategy.summary else None,
        lookback=strategy.lookback,
    )
    if config.pool.enabled:
        market.restrict(members(market, config.pool))
    return market


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Rules and limits of execution, and what makes an account and a desk that follow them."""

    rules: np.ndarray
    limits: np.ndarray
    broker: Callable[[Market], SimulatedBroker]
    desk: Callable[[Market], Desk]


def open_books(config: Config) -> Books:
    """The execution side of a run.

    Raises:
        ConfigError: the lot step is no decimal number.
    """
    execution, risk = config.execution, config.risk
    try:
        rules = make_rules(
            **execution.model_dump(exclude={"no_trade_band", "funding"}),
            **risk.model_dump(include={"stop_loss", "take_profit", "max_drawdown", "allow_short", "max_leverage"}),
            margin=config.market.kind == "um",
        )
    except ValueError as error:
        raise ConfigError(f"execution.lot_step: {error}") from None
    limits = make_limits(
        no_trade_band=execution.no_trade_band,
        **risk.model_dump(include={"max_position", "max_gross", "max_net", "max_leverage", "allow_short"}),
        **risk.model_dump(include={"max_turnover", "max_daily_loss"}),
    )
    cash = config.account.cash

    def broker(market: Market) -> SimulatedBroker:
        return SimulatedBroker(tape=market, rules=rules, cash=cash, first=market.first)

    def desk(market: Market) -> Desk:
        return Desk(symbols=market.symbols, rules=rules, limits=limits)

    return Books(rules=rules, limits=limits, broker=broker, desk=desk)
