"""Run backtests in memory, for Python users: a config and a strategy in, tables out; nothing is written.

A recorded run, with its folder and report, is `agent_bt.run(config)`; both compute the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.prepare import prepare_market
from agent_bt.config.load import Values, load_config
from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError
from agent_bt.core.protocols import Strategy
from agent_bt.core.types import Fill
from agent_bt.engine.market import Market
from agent_bt.engine.simulate import simulate
from agent_bt.evaluation.performance import Performance, performance
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.records.holdings import Holdings, compute_holdings
from agent_bt.records.tables import equity_frame, fills_frame
from agent_bt.strategies.registry import asks_model, make_strategy

Settings = Config | Mapping[str, Any] | str | Path | None
"""A config, its file, or its values as nested mappings; None: the defaults, which are the sample market."""


@dataclass(frozen=True, kw_only=True)
class BacktestResult:
    """The results of a backtest; tables are computed on first access.

    Attributes:
        performance: all headline measures.
        market: the market it ran over.
        fills: in order.
        sample: whether the prices are generated; then the results say nothing about the real market.
        notes: what of the data is not exact, or missing at the ends.
    """

    performance: Performance
    market: Market = field(repr=False)
    fills: tuple[Fill, ...] = field(repr=False)
    sample: bool
    notes: tuple[str, ...]
    _broker: SimulatedBroker = field(repr=False)
    _config: Config = field(repr=False)
    _bars: Any = field(repr=False)

    @cached_property
    def nav(self) -> pl.DataFrame:
        """One row a bar: time, nav (quote units), return (of the bar), drawdown (<= 0), cash, exposure (weight)."""
        first, market = self.market.first, self.market
        table = equity_frame(
            time=market.times[first:],
            equity=self._broker.equity[first:],
            exposure=self._broker.exposure[first:],
            price=market.close[first:, 0],
            initial_cash=self._config.account.cash,
        )
        nav = pl.col("equity")
        change = (nav / nav.shift(1, fill_value=self._config.account.cash) - 1.0).alias("return")
        return table.select("time", nav.alias("nav"), change, "drawdown", "cash", "exposure")

    @cached_property
    def trades(self) -> pl.DataFrame:
        """One row a fill: time, bar, symbol, quantity, price, reference_price, fee, slippage, realised_pnl, reason."""
        return fills_frame(self.fills)

    @cached_property
    def snapshots(self) -> pl.DataFrame:
        """One row a decision and symbol held after it: time, bar, symbol, quantity, price, value, share (weight)."""
        return self.holdings.snapshots

    @cached_property
    def holdings(self) -> Holdings:
        """What was held, and what each symbol and each leg earned: `.legs`, `.rebalances`, `.attribution`."""
        return compute_holdings(
            market=self.market,
            fills=self.trades,
            equity=self._broker.equity[self.market.first :],
            decisions=self._bars,
            execution=self._config.execution,
        )

    def get_nav_history(self) -> list[dict[str, Any]]:
        """Return `nav` as plain data."""
        return self.nav.to_dicts()

    def get_trades(self) -> list[dict[str, Any]]:
        """Return `trades` as plain data."""
        return self.trades.to_dicts()

    def get_snapshots(self) -> list[dict[str, Any]]:
        """Return `snapshots` as plain data."""
        return self.snapshots.to_dicts()

    def to_dict(self) -> dict[str, Any]:
        """Return the measures as plain data."""
        return asdict(self.performance)


class BacktestEngine:
    """One strategy over one market, ready to run; every run starts again and gives the same results."""

    def __init__(self, config: Config, strategy: Strategy) -> None:
        """Combine a config with a strategy.

        Args:
            config: of the backtest; its `strategy` section gives the time between decisions only.
            strategy: decides.
        """
        self.config = config
        self.strategy = strategy

    def run(self) -> BacktestResult:
        """Run the backtest: in one compiled loop if the strategy is vectorised, else decision by decision.

        Raises:
            AgentBtError: the bars are missing, or the strategy failed.
        """
        config, strategy = self.config, self.strategy
        loaded = load_bars(config)
        prepared = prepare_market(config, loaded.bars, strategy)
        market = prepared.market
        simulation = simulate(
            market=market,
            bars=prepared.schedule.due,
            strategy=strategy,
            setup=build_execution(config),
            targets=prepared.targets,
        )
        broker, first = simulation.broker, market.first
        measures = performance(
            times=market.times[first:],
            equity=broker.equity[first:],
            exposure=broker.exposure[first:],
            fills=simulation.fills,
            initial_cash=config.account.cash,
            start=int(market.times[first]) - market.interval,
            funding=simulation.funding,
        )
        return BacktestResult(
            performance=measures,
            market=market,
            fills=tuple(simulation.fills),
            sample=loaded.sample,
            notes=loaded.notes,
            _broker=broker,
            _config=config,
            _bars=prepared.schedule.bars,
        )


def create_backtest_engine(config: Settings = None, strategy: Strategy | str | None = None) -> BacktestEngine:
    """Create a backtest in memory of a strategy under a config.

    >>> settings = {"market": {"end": "2024-07-08", "interval": "1h"}, "account": {"cash": 1000}}
    >>> result = create_backtest_engine(settings, "buy_and_hold").run()
    >>> result.nav.height, result.trades["symbol"].to_list(), result.sample
    (168, ['BTCUSDT'], True)

    Args:
        config: a config, its file, or its values as nested mappings; None: the defaults, which are the sample market.
        strategy: an object, or the name of a registered strategy; None: as the config's `strategy` section says.

    Raises:
        ConfigError: the config is not valid, or its strategy asks a model; `agent_bt.run` is for those.
    """
    resolved = _resolved(config)
    if strategy is None:
        if asks_model(resolved.strategy.kind, resolved.strategy.params):
            raise ConfigError(f"strategy.kind {resolved.strategy.kind} asks a model; run it with agent_bt.run(config)")
        strategy = make_strategy(resolved.strategy.kind, resolved.strategy.params)
    elif isinstance(strategy, str):
        strategy = make_strategy(strategy, {})
    return BacktestEngine(resolved, strategy)


def create_momentum_backtest(config: Settings = None, **params: Any) -> BacktestEngine:
    """Create a cross-sectional backtest in memory that holds the symbols with the highest past return.

    >>> settings = {"market": {"end": "2024-07-15", "interval": "1h"}, "rebalance": "D"}
    >>> result = create_momentum_backtest(settings, lookback_col="return_24", top_n_long=3).run()
    >>> result.snapshots.group_by("time").len()["len"].max()     # symbols held at once
    3

    Args:
        config: a config, its file, or its values as nested mappings; None: the defaults, with mode cross_sectional.
        params: of the strategy `momentum`: lookback_col, top_n_long, top_n_short, ...

    Raises:
        ConfigError: the config or a parameter is not valid.
    """
    return _ranked(config, "momentum", params)


def create_mean_reversion_backtest(config: Settings = None, **params: Any) -> BacktestEngine:
    """Create a cross-sectional backtest in memory that holds the symbols with the lowest past return.

    >>> settings = {"market": {"end": "2024-07-15", "interval": "1h"}, "rebalance": "D"}
    >>> create_mean_reversion_backtest(settings, lookback_col="return_24", top_n_long=3).run().performance.fees > 0
    True

    Args:
        config: a config, its file, or its values as nested mappings; None: the defaults, with mode cross_sectional.
        params: of the strategy `mean_reversion`: lookback_col, top_n_long, top_n_short, ...

    Raises:
        ConfigError: the config or a parameter is not valid.
    """
    return _ranked(config, "mean_reversion", params)


def _ranked(config: Settings, kind: str, params: Mapping[str, Any]) -> BacktestEngine:
    if config is None or isinstance(config, Mapping):
        config = {"mode": "cross_sectional", **(config or {})}
    resolved = _resolved(config)
    if resolved.mode != "cross_sectional":
        raise ConfigError(f"mode must be cross_sectional for a cross-sectional backtest, got {resolved.mode}")
    return BacktestEngine(resolved, make_strategy(kind, params))


def _resolved(config: Settings) -> Config:
    if isinstance(config, Config):
        return config
    if config is None or isinstance(config, str | Path):
        return load_config(config)
    values = dict(_flat(config))
    return load_config(None, over_file=Values(values=values, origins=dict.fromkeys(values, "config")))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted paths and values; a value that the config takes as a whole is not divided."""
    for key, value in values.items():
        path = f"{before}{key}"
        if isinstance(value, Mapping) and value and not path.endswith("params"):
            yield from _flat(value, f"{path}.")
        else:
            yield path, value
