"""Config -> objects: the source of bars, the market, the model, the strategy, the account. Nothing is run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from agent_bt.config.model import Config
from agent_bt.core.clock import duration_us, interval_us, iso, time_us
from agent_bt.core.errors import ConfigError, StrategyError
from agent_bt.core.frequency import instants
from agent_bt.core.protocols import Strategy, VectorisedStrategy
from agent_bt.core.targets import changed_rows
from agent_bt.core.types import Portfolio
from agent_bt.engine.market import Market
from agent_bt.engine.pool import pool_members
from agent_bt.engine.schedule import Schedule, decision_schedule
from agent_bt.features.specs import lookback

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedMarket:
    """A market with its decision bars, ready for a strategy: what stays the same whoever decides.

    `targets`: what a strategy that can answer for all bars at once wants at `schedule.due`, float64 (D, N); else None.
    """

    market: Market
    schedule: Schedule
    targets: np.ndarray | None = None


def prepare_market(config: Config, bars: pl.DataFrame, strategy: Strategy, limit: int | None = None) -> PreparedMarket:
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
        return PreparedMarket(market=market, schedule=schedule)
    targets = _known_targets(strategy, market, schedule)
    changed = changed_rows(np.ascontiguousarray(targets, np.float64), strategy.on_change)
    return PreparedMarket(market=market, schedule=schedule.record_only(changed), targets=targets)


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
        market.restrict(pool_members(market, config.pool))
    return market
