"""The strategies on the engine's own market: a symbol that comes, one that vanishes, one with a gap, and a pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from paper_market import FLAT, same_bits, wanted_of
from test_contract import SIGNALS

from agent_bt.core.clock import HOUR, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.engine.market import Market
from agent_bt.features.compute import compute
from agent_bt.strategies.registry import create_strategy
from agent_bt.strategies.signals import SignalStrategy

T0 = time_us("2024-07-01")
ROWS = 160
LIVES = {"S0": (0, 160), "S1": (40, 160), "S2": (0, 110), "S3": (0, 160)}


def bars_of(symbol: str, rows: int) -> pl.DataFrame:
    born, died = LIVES[symbol]
    rng = np.random.default_rng(int(symbol[1]))
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, ROWS)))
    opened = T0 + HOUR * np.arange(ROWS)
    table = pl.DataFrame(
        {
            "symbol": symbol, "open_time": opened, "close_time": opened + HOUR, "open": close, "high": close * 1.002,
            "low": close * 0.998, "close": close, "volume": rng.uniform(1, 5, ROWS), "quote_asset_volume": close,
            "trades": 3, "taker_base": 1.0, "taker_quote": close / 2, "filled": False,
        }
    ).cast(dict(BAR_SCHEMA))  # fmt: skip
    gone = list(range(70, 76)) if symbol == "S3" else []
    at = pl.int_range(pl.len())
    return table.filter((at >= born) & (at < min(died, rows)) & ~at.is_in(gone))


def market_of(strategy: SignalStrategy, rows: int = ROWS) -> Market:
    tables = [bars_of(symbol, rows) for symbol in LIVES]
    features = [compute(table, strategy.features) for table in tables]
    market = Market(
        symbols=tuple(LIVES), bars=pl.concat(tables), interval=HOUR, start=T0, features=np.concatenate(features),
        feature_names=[spec.column for spec in strategy.features], lookback=strategy.lookback,
    )  # fmt: skip
    pool = np.repeat(np.random.default_rng(3).random((ROWS // 10, len(LIVES))) < 0.8, 10, axis=0)
    market.restrict(pool[:rows])
    return market


@pytest.mark.parametrize(("kind", "params"), SIGNALS)
def test_decide_is_decide_all_on_views_of_the_market(kind: str, params: dict[str, Any]) -> None:
    strategy = create_strategy(kind, **params)
    assert isinstance(strategy, SignalStrategy)
    market = market_of(strategy)
    whole = strategy.decide_all(market, np.arange(len(market)))
    bars = np.arange(1, len(market), 3)
    decided = np.array([wanted_of(strategy.decide(market.at(int(bar)), FLAT), market.symbols) for bar in bars])
    assert same_bits(whole[bars], decided)
    assert np.nan_to_num(whole).any()
    assert not np.nan_to_num(whole[~market.eligible]).any()
    assert not np.nan_to_num(whole[109:, 2]).any()


@pytest.mark.parametrize(("kind", "params"), [case for case in SIGNALS if case[0] in ("momentum", "ensemble", "rule")])
def test_a_market_that_ends_earlier_is_decided_the_same(kind: str, params: dict[str, Any]) -> None:
    strategy = create_strategy(kind, **params)
    assert isinstance(strategy, SignalStrategy)
    short, whole = market_of(strategy, 105), market_of(strategy)
    assert same_bits(strategy.decide_all(short, np.arange(105)), strategy.decide_all(whole, np.arange(ROWS))[:105])
