"""This project's side of the comparisons: a market from plain arrays, an account on it, the vectorised driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.clock import MINUTE, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import FeatureSpec
from agent_bt.engine.market import Market
from agent_bt.engine.vectorised import run_targets_without_fills
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.features.compute import columns, compute

LOT_STEP = 1e-8


class Columns:
    """A market seen through columns that were computed just now: what `decide_all` reads, indicators included."""

    def __init__(self, market: Market, specs: Sequence[FeatureSpec]) -> None:
        self.symbols, self.times, self.interval = market.symbols, market.times, market.interval
        self.eligible = market.eligible
        self._market = market
        found = [list(columns({"close": market.close[:, at]}, specs)) for at in range(len(market.symbols))]
        self._columns = {
            spec.column: found[0][at].reshape(-1, 1)
            if len(found) == 1
            else np.column_stack([each[at] for each in found])
            for at, spec in enumerate(specs)
        }

    def column(self, name: str) -> np.ndarray:
        """As of `Market`."""
        return self._columns[name] if name in self._columns else self._market.column(name)


def market_of(
    prices: Mapping[str, np.ndarray],
    *,
    interval: int = MINUTE,
    lookback: int = 1,
    specs: Sequence[FeatureSpec] = (),
) -> Market:
    """A market of `close` (T,) or (T, N), and `open`, `high`, `low` if there are any; a NaN close is no bar."""
    close = prices["close"].reshape(len(prices["close"]), -1)
    symbols = tuple(f"S{at:03}" for at in range(close.shape[1]))
    opened = time_us("2024-01-01") + interval * np.arange(len(close))
    parts, features = [], []
    for at, symbol in enumerate(symbols):
        listed = ~np.isnan(close[:, at])
        values = {
            name: np.ascontiguousarray(prices.get(name, close).reshape(close.shape)[listed, at])
            for name in ("open", "high", "low", "close")
        }
        times = {"open_time": opened[listed], "close_time": opened[listed] + interval}
        volumes = {"volume": 1.0, "quote_asset_volume": values["close"], "trades": 1}
        rest = {"taker_base": 0.5, "taker_quote": values["close"] / 2, "filled": False, "symbol": symbol}
        bars = pl.DataFrame({**times, **values, **volumes, **rest}).cast(dict(BAR_SCHEMA))
        parts.append(bars)
        features.append(compute(bars, specs))
    return Market(
        symbols=symbols, bars=pl.concat(parts), interval=interval, start=int(opened[0]), lookback=lookback,
        features=np.concatenate(features), feature_names=[spec.column for spec in specs],
    )  # fmt: skip


def account(
    market: Market,
    *,
    cash: float,
    fee_rate: float,
    slippage_bps: float = 0.0,
    short: bool = False,
    lot_step: float = LOT_STEP,
) -> tuple[SimulatedBroker, np.ndarray]:
    """A fresh broker and the limits; `short`: positions on margin, with more leverage than is ever used."""
    rules: dict[str, Any] = {"stop_loss": None, "take_profit": None, "max_drawdown": None}
    made = make_rules(
        fill="close", latency_bars=0, slippage_bps=slippage_bps, fee_rate=fee_rate, lot_step=lot_step,
        min_quantity=0.0, min_notional=0.0, allow_short=short, margin=short, max_leverage=3.0, **rules,
    )  # fmt: skip
    limits = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=short)
    return SimulatedBroker(prices=market, rules=made, cash=cash), limits


def equity_of(
    market: Market, bars: np.ndarray, targets: np.ndarray, *, on_change: bool = False, **terms: Any
) -> np.ndarray:
    """The equity curve, float64 (T,), of target shares (D, N) at the rows `bars` (D,); `terms` as of `account`."""
    broker, limits = account(market, **terms)
    run_targets_without_fills(broker=broker, limits=limits, bars=bars, targets=targets, on_change=on_change)
    return broker.equity
