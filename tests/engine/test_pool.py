"""The asset pool: its members over time, and no look-ahead."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from agent_bt.config.model import PoolConfig
from agent_bt.core.clock import DAY, HOUR, time_us, to_datetime
from agent_bt.core.errors import ConfigError
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.engine.market import Market
from agent_bt.engine.pool import pool_members

START = time_us("2024-07-01")
NAMES = ("AAA", "BBB", "CCC", "DDD")


def market_of(volumes: dict[str, np.ndarray], first: dict[str, int] | None = None) -> Market:
    """Hourly bars at a price of 1; quote volume by symbol, the first listed hour by symbol."""
    parts = []
    for symbol, volume in volumes.items():
        low = (first or {}).get(symbol, 0)
        hours = len(volume) - low
        opens = [to_datetime(START + (low + n) * HOUR) for n in range(hours)]
        columns = dict.fromkeys(("open", "high", "low", "close"), 1.0) | {"volume": volume[low:]}
        frame = pl.DataFrame({"open_time": opens, **columns}).with_columns(
            symbol=pl.lit(symbol),
            close_time=pl.col("open_time") + timedelta(hours=1),
            quote_asset_volume=pl.col("volume"),
            trades=1,
            taker_base=0.0,
            taker_quote=0.0,
            filled=False,
        )
        parts.append(frame.select("symbol", *(pl.col(name).cast(kind) for name, kind in BAR_SCHEMA.items())))
    bars = pl.concat(parts)
    return Market(
        symbols=tuple(volumes), bars=bars, interval=HOUR, start=START, lookback=1,
        features=np.empty((len(bars), 0)), feature_names=(),
    )  # fmt: skip


def random_market(seed: int, days: int = 20) -> Market:
    draw = np.random.default_rng(seed)
    return market_of({name: draw.lognormal(3, 1, 24 * days) for name in NAMES}, first={"DDD": 24 * 8 + 5})


def slow_members(market: Market, row: int, pool: PoolConfig, period_days: int) -> set[str]:
    """Compute the members again: at the last midnight of the frequency, by the mean over the look-back before it."""
    now = int(market.times[row])
    moment = max(int(market.times[0]), now // (period_days * DAY) * (period_days * DAY))
    lookback = int(pool.lookback.removesuffix("d")) * DAY
    mean = {}
    rows = [at for at, time in enumerate(market.times) if moment - lookback < time <= moment]
    for number, symbol in enumerate(market.symbols):
        values = [market.column("quote_asset_volume")[at, number] for at in rows]
        if np.isfinite(market.close[rows[-1], number]):
            mean[symbol] = sum(value for value in values if np.isfinite(value)) / len(rows)
    for symbol in (*pool.include, *pool.exclude):
        mean.pop(symbol, None)
    return set(sorted(mean, key=lambda symbol: -mean[symbol])[: pool.top_n]) | set(pool.include)


@pytest.mark.parametrize(
    "pool",
    [
        PoolConfig(enabled=True, top_n=2, reselect="3d", lookback="5d"),
        PoolConfig(enabled=True, top_n=1, reselect="D", lookback="2d", include=("BBB",), exclude=("AAA",)),
        PoolConfig(enabled=True, top_n=9, reselect="D", lookback="1d"),
    ],
    ids=["two", "with and without", "everything"],
)
def test_members_have_the_largest_volume_before_the_selection(pool: PoolConfig) -> None:
    days = 3 if pool.reselect == "3d" else 1
    for seed in range(3):
        market = random_market(seed)
        chosen = pool_members(market, pool)
        for row in range(0, len(market), 7):
            names = {symbol for number, symbol in enumerate(market.symbols) if chosen[row, number]}
            assert names == slow_members(market, row, pool, days), (seed, row)


def test_members_stay_between_two_selections() -> None:
    market = random_market(1)
    chosen = pool_members(market, PoolConfig(enabled=True, top_n=2, reselect="W-MON", lookback="7d"))
    changed = np.flatnonzero((chosen[1:] != chosen[:-1]).any(axis=1)) + 1
    assert len(changed) > 0
    assert all(to_datetime(int(market.times[row])).weekday() == 0 for row in changed)


def test_later_volume_does_not_change_the_pool() -> None:
    draw = np.random.default_rng(5)
    volumes = {name: draw.lognormal(3, 1, 24 * 20) for name in NAMES}
    pool = PoolConfig(enabled=True, top_n=2, reselect="D", lookback="4d")
    cut = 24 * 11 + 3
    changed = {name: np.concatenate([volume[:cut], draw.lognormal(3, 2, len(volume) - cut)])
               for name, volume in volumes.items()}  # fmt: skip
    before, after = pool_members(market_of(volumes), pool), pool_members(market_of(changed), pool)
    assert np.array_equal(before[:cut], after[:cut])
    assert not np.array_equal(before, after)


def test_only_members_are_eligible() -> None:
    market = random_market(2)
    chosen = pool_members(market, PoolConfig(enabled=True, top_n=1, reselect="D", lookback="2d"))
    market.restrict(chosen)
    assert np.array_equal(market.eligible, chosen)
    assert np.array_equal(market.at(100).eligible, chosen[100])


def test_a_symbol_that_the_run_does_not_have_is_an_error() -> None:
    with pytest.raises(ConfigError, match="EEE"):
        pool_members(random_market(0), PoolConfig(enabled=True, include=("EEE",)))
