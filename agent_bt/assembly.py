"""Config -> objects: the source of bars, the market, the model, the strategy, the account. Nothing is run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from agent_bt.agents.agent import PromptAgent, RequestForm
from agent_bt.agents.prompt import Prompt, load_prompt, prompt_roots
from agent_bt.config import Config
from agent_bt.core.clock import duration_us, interval_us, iso, time_us
from agent_bt.core.errors import ConfigError, DataError
from agent_bt.core.protocols import LLM, DataSource, Strategy
from agent_bt.engine.market import Market
from agent_bt.engine.schedule import Schedule, decision_schedule
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.desk import Desk
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.features.specs import feature_specs
from agent_bt.strategies.registry import make_strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBars:
    """Bars in `BAR_SCHEMA`, warm-up included, and where they come from; `sample` for generated ones."""

    bars: pl.DataFrame
    label: str
    sample: bool


def load_bars(config: Config) -> LoadedBars:
    """Fetch the bars of a run from its source.

    Raises:
        DataError: the source lacks them; the message says how to get them.
    """
    market = config.market
    start = time_us(market.start) - duration_us(market.warmup)
    source = open_source(config)
    bars = source.fetch_ohlcv(market.interval, start, time_us(market.end))
    if bars.is_empty():
        raise DataError(f"{source.label} has no bars from {iso(start)} to {market.end}; choose another range")
    return LoadedBars(bars=bars, label=source.label, sample=market.source == "sample")


def open_source(config: Config) -> DataSource:
    """The data source that `market.source` names."""
    from agent_bt.data.sample import SampleSource
    from agent_bt.data.sources import ParquetSource, StoreSource

    market = config.market
    if market.source == "sample":
        return SampleSource(market.symbol, config.seed, gaps=market.gaps)
    if market.source == "store":
        return StoreSource(Path(config.data.root), market.symbol, kind=market.kind, gaps=market.gaps)
    return ParquetSource(Path(market.source), market.symbol, gaps=market.gaps)


def find_prompt(config: Config, config_path: Path | None) -> Prompt | None:
    """The prompt of an agent; None for any other strategy.

    Raises:
        PromptError: there is no such prompt, or it is not valid.
    """
    return load_prompt(config.strategy.prompt, prompt_roots(config_path)) if config.strategy.kind == "agent" else None


def with_prompt_defaults(config: Config, prompt: Prompt | None) -> Config:
    """The config with what the prompt's author suggests, where nobody has said otherwise."""
    if prompt is None:
        return config
    suggested = prompt.model.model_dump(exclude_none=True)
    changes = {key: value for key, value in suggested.items() if key not in config.llm.model_fields_set}
    return config.model_copy(update={"llm": config.llm.model_copy(update=changes)}) if changes else config


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A market with its decision bars, ready for a strategy: what stays the same whoever decides."""

    market: Market
    schedule: Schedule


def set_stage(config: Config, bars: pl.DataFrame, strategy: Strategy, limit: int | None = None) -> Stage:
    """Compute what the strategy wants to see, and when it decides; with `limit`, only so many decisions.

    A limited market ends where the next decision would have been, so that the last one still has its effect.

    Raises:
        ConfigError: the range holds no decision.
    """
    every, end = duration_us(config.strategy.every), time_us(config.market.end)
    market = build_market(config, bars, strategy)
    schedule = decision_schedule(market, every, end)
    if not len(schedule.bars):
        raise ConfigError(
            f"market.start {config.market.start} to end {config.market.end} leaves no decision: {strategy.name} needs "
            f"{strategy.lookback} bars of {config.market.interval} with all features first; widen the range or set "
            f"market.warmup"
        )
    if limit is not None and limit < len(schedule.bars):
        market = market.head(int(schedule.bars[limit]) + 1)
        schedule = decision_schedule(market, every, int(market.times[-1]))
        schedule = Schedule(bars=schedule.bars[:limit], skipped=schedule.skipped)
    return Stage(market=market, schedule=schedule)


def check_agent(config: Config) -> None:
    """Check what an agent's config must hold beside its own rules.

    Raises:
        ConfigError: it has parameters, which an agent does not take.
    """
    if config.strategy.params:
        raise ConfigError("strategy.params: an agent takes none; what the model gets is set under llm and features")


def build_strategy(config: Config, prompt: Prompt | None, form: RequestForm | None, llm: LLM | None) -> Strategy:
    """The strategy that `strategy.kind` names; an agent needs its prompt, the form of its requests, and a model.

    Raises:
        ConfigError: there is no such strategy, or its parameters don't fit.
    """
    if prompt is None or form is None or llm is None:
        return make_strategy(config.strategy.kind, config.strategy.params)
    check_agent(config)
    return PromptAgent(
        prompt=prompt,
        form=form,
        llm=llm,
        window=config.features.window,
        every=duration_us(config.strategy.every),
        features=feature_specs(config.features),
        summary=config.features.summary,
        sizing=config.strategy.sizing,
        strip=config.llm.strip,
    )


def build_market(config: Config, bars: pl.DataFrame, strategy: Strategy) -> Market:
    """Bars with the strategy's features and summary.

    Raises:
        DataError: no bar lies at or after the start.
    """
    from agent_bt.features.compute import compute
    from agent_bt.features.summary import SummaryTable

    interval = interval_us(config.market.interval)
    summary = SummaryTable(bars, interval, strategy.summary).at if strategy.summary else None
    return Market(
        symbols=(config.market.symbol,),
        bars=bars,
        interval=interval,
        start=time_us(config.market.start),
        features=compute(bars, strategy.features) if strategy.features else np.empty((len(bars), 0)),
        feature_names=[spec.column for spec in strategy.features],
        summary=summary,
        lookback=strategy.lookback,
    )


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
            **risk.model_dump(include={"stop_loss", "take_profit", "max_drawdown", "allow_short"}),
        )
    except ValueError as error:
        raise ConfigError(f"execution.lot_step: {error}") from None
    limits = make_limits(
        no_trade_band=execution.no_trade_band, **risk.model_dump(include={"max_position", "max_gross", "allow_short"})
    )
    cash = config.account.cash

    def broker(market: Market) -> SimulatedBroker:
        return SimulatedBroker(tape=market, rules=rules, cash=cash, first=market.first)

    def desk(market: Market) -> Desk:
        return Desk(symbols=market.symbols, rules=rules, limits=limits)

    return Books(rules=rules, limits=limits, broker=broker, desk=desk)
