"""Prepare the market of a run: features, decision bars, and targets that are known beforehand."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedMarket:
    """A market that is ready for a strategy.

    Attributes:
        market: bars, features and summary.
        schedule: the decision bars.
        targets: target weights of a vectorised strategy at `schedule.due`, float64 (D, N); None for any other.
    """

    market: Market
    schedule: Schedule
    targets: np.ndarray | None = None


def prepare_market(config: Config, bars: pl.DataFrame, strategy: Strategy, limit: int | None = None) -> PreparedMarket:
    """Compute what a strategy needs to see, and when it decides.

    Args:
        config: of the run.
        bars: columns of `BAR_SCHEMA`, warm-up included.
        strategy: names its features, summary and lookback.
        limit: number of decisions after which the run stops; None: all. A limited market ends where the next decision
            would have been, so that the last one still has its effect.

    Raises:
        ConfigError: there is no decision in the range.
        StrategyError: the two answers of a vectorised strategy differ.
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
    """Schedule the decisions of a run.

    Args:
        config: of the run.
        market: its market.
        end: last instant at which a decision may be made, UTC us, inclusive.
    """
    if config.mode == "cross_sectional":
        due = instants(config.rebalance, int(market.times[market.first]), end)
    else:
        every, start = duration_us(config.strategy.every), int(market.times[market.first])
        due = np.arange(-(-start // every) * every, end + 1, every, dtype=np.int64)
    return decision_schedule(market, due)


AGREEMENTS = 33
"""Number of decisions, spread over the run, at which `decide` of a vectorised strategy is compared with its targets."""


def _known_targets(strategy: VectorisedStrategy, market: Market, schedule: Schedule) -> np.ndarray:
    """Compute the targets of a vectorised strategy at all decisions, and compare some of them with its `decide`."""
    targets = strategy.decide_all(market, schedule.bars)
    for at in np.unique(np.linspace(0, len(schedule.bars) - 1, AGREEMENTS).astype(np.int64)):
        _check_agreement(strategy, market, int(schedule.bars[at]), targets[at])
    return targets


def _check_agreement(strategy: Strategy, market: Market, bar: int, targets: np.ndarray) -> None:
    """Refuse a strategy whose two answers to the same bar differ, before a run mixes them."""
    decision = strategy.decide(market.at(bar), Portfolio(cash=1.0, positions={}, peak_equity=1.0))
    given = [(decision.targets or {}).get(symbol, np.nan) for symbol in market.symbols]
    if not np.array_equal(given, targets, equal_nan=True):
        raise StrategyError(
            f"strategy {strategy.name}: decide and decide_all differ at {iso(int(market.times[bar]))}: "
            f"{decision.targets} against {dict(zip(market.symbols, targets.tolist(), strict=True))}; a row may "
            "depend on its last `reach` rows, itself included, and on nothing later"
        )


def build_market(config: Config, bars: pl.DataFrame, strategy: Strategy) -> Market:
    """Build the market of a run with the features and the summary that a strategy needs.

    Args:
        config: of the run.
        bars: columns of `BAR_SCHEMA`, warm-up included.
        strategy: names its features, summary and lookback.

    Raises:
        ConfigError: the strategy needs the 7-day summary, and there are several symbols.
        DataError: there is no bar at or after the start.
    """
    from agent_bt.features.compute import compute
    from agent_bt.features.summary import SummaryTable

    interval = interval_us(config.market.interval)
    multi_symbol = "symbol" in bars.columns
    if multi_symbol and strategy.summary:
        raise ConfigError(f"{strategy.name} needs the 7-day summary, which exists for runs over one symbol only")
    parts = bars.partition_by("symbol", maintain_order=True) if multi_symbol else [bars]
    symbols = [str(part["symbol"][0]) for part in parts] if multi_symbol else [config.market.symbol]
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
