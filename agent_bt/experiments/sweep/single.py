"""Simulates one combination of a sweep over periods of time: vectorised where possible, else step by step."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from agent_bt.backtest.account import build_execution
from agent_bt.backtest.prepare import build_market, make_schedule
from agent_bt.config.model import Config
from agent_bt.core.clock import time_us
from agent_bt.core.errors import DataError
from agent_bt.core.protocols import Strategy, VectorisedStrategy
from agent_bt.core.types import Fill
from agent_bt.engine.batch import last_rows_of_days
from agent_bt.engine.market import Market
from agent_bt.engine.simulate import simulate
from agent_bt.experiments.sweep.evaluate import Span
from agent_bt.experiments.sweep.walk_forward import rows_between
from agent_bt.strategies.registry import make_strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A range of time with an account of its own.

    Attributes:
        start, end: UTC us, the end exclusive.
    """

    start: int
    end: int

    def span(self, market: Market, cash: float) -> Span:
        """Return its rows in a market.

        Args:
            market: the bars.
            cash: of the account at the start, quote units.

        Raises:
            DataError: no bar lies in it.
        """
        first, last = rows_between(market.times, self.start, self.end)
        if last < first:
            raise DataError("a window of the walk-forward has no bars; choose longer windows, or fill the gap")
        return Span(first=first, last=last, cash=cash)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAccount:
    """An account over one period.

    Attributes:
        times: close times of the bars, int64 (T,), UTC us.
        equity: at each, float64 (T,), quote units.
        exposure: signed fraction of equity at each, float64 (T,).
        fills: in order of time.
        marks: equity at the end of each UTC day, float64 (D,).
        funding: paid, quote units.
        start: open time of the first bar, UTC us.
        cash: at the start, quote units.
    """

    times: np.ndarray
    equity: np.ndarray
    exposure: np.ndarray
    fills: list[Fill]
    marks: np.ndarray
    funding: float
    start: int
    cash: float

    @property
    def days(self) -> np.ndarray:
        """The time of each daily mark, int64 (D,), UTC us."""
        days: np.ndarray = self.times[last_rows_of_days(self.times, 0)]
        return days

    def scaled(self, factor: float) -> SimulatedAccount:
        """Return the account scaled to other cash, without its fills; lots and minimum sizes are ignored."""
        return replace(self, equity=self.equity * factor, marks=self.marks * factor, cash=self.cash * factor, fills=[])


def simulate_account(
    config: Config, bars: pl.DataFrame, strategy: Strategy, periods: Sequence[Period], cash: float | None = None
) -> list[SimulatedAccount]:
    """Simulate the account of one strategy over each period.

    Args:
        config: of the run.
        bars: of its market.
        strategy: runs in every period.
        periods: each starts with fresh cash.
        cash: at the start of each, quote units; None: that of `config`.

    Raises:
        StrategyError: the strategy failed.
    """
    market = build_market(config, bars, strategy)
    setup = build_execution(config)
    setup = setup if cash is None else replace(setup, cash=cash)
    schedule = make_schedule(config, market, time_us(config.market.end))
    accounts = []
    for period in periods:
        span = period.span(market, setup.cash)
        prices = copy(market.head(span.last + 1))
        prices.first = span.first
        made = schedule.due[(schedule.due >= span.first) & (schedule.due <= span.last)]
        # Targets are computed over the whole market, so that every period has the values of the whole run.
        targets = strategy.decide_all(market, made) if isinstance(strategy, VectorisedStrategy) else None
        simulation = simulate(market=prices, bars=made, strategy=strategy, setup=setup, targets=targets)
        broker = simulation.broker
        rows = slice(span.first, span.last + 1)
        accounts.append(
            SimulatedAccount(
                times=prices.times[rows],
                equity=broker.equity[rows],
                exposure=broker.exposure[rows],
                fills=simulation.fills,
                marks=broker.equity[last_rows_of_days(prices.times, span.first)],
                funding=simulation.funding,
                start=int(prices.times[span.first]) - prices.interval,
                cash=span.cash,
            )
        )
    return accounts


def simulate_all(
    configs: Sequence[Config], bars: Mapping[str, pl.DataFrame], periods: Sequence[Period]
) -> Iterator[list[SimulatedAccount]]:
    """Yield `simulate_account` of each config's strategy, in order, computed in parallel processes.

    Args:
        configs: of the runs.
        bars: interval -> bars.
        periods: each starts with fresh cash.

    Raises:
        StrategyError: a strategy failed.
    """
    if not configs:
        return
    processes = max(1, min(len(configs), os.cpu_count() or 1))
    # Spawned, not forked: the threads of compiled code and of Polars don't survive a fork.
    with ProcessPoolExecutor(
        max_workers=processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_set_inputs,
        initargs=(bars, periods),
    ) as pool:
        try:
            yield from pool.map(_simulate_one, configs, chunksize=1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_given: dict[str, tuple[Mapping[str, pl.DataFrame], Sequence[Period]]] = {}


def _set_inputs(bars: Mapping[str, pl.DataFrame], periods: Sequence[Period]) -> None:
    _given["all"] = (bars, periods)


def _simulate_one(config: Config) -> list[SimulatedAccount]:
    bars, periods = _given["all"]
    strategy = make_strategy(config.strategy.kind, config.strategy.params)
    return simulate_account(config, bars[config.market.interval], strategy, periods)
