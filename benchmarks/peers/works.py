"""The works that are measured: what goes in, drawn from a fixed seed, the same for everybody."""

from __future__ import annotations

from typing import Any

import numpy as np

CASH = 10_000.0
FEE_RATE = 0.0005
HOURS_A_WEEK = 168


def rule(bars: int = 525_600) -> dict[str, Any]:
    """A year of minutes and one moving-average cross: long while the mean of 60 is above the mean of 240."""
    market = _minutes(bars, seed=7)
    fast, slow = 60, 240
    first = market["close"][slow - fast : slow].mean() > market["close"][:slow].mean()
    if first:
        raise AssertionError("the averages must start uncrossed, where the peers' conventions agree")
    return market | {"fast": fast, "slow": slow, "cash": CASH, "fee_rate": FEE_RATE}


def pairs(bars: int = 86_400) -> dict[str, Any]:
    """Sixty days of minutes and 1,000 pairs: 25 fast windows (10, 14 ... 106) by 40 slow ones (120, 140 ... 900)."""
    fast, slow = np.meshgrid(np.arange(10, 110, 4), np.arange(120, 920, 20), indexing="ij")
    market = _minutes(bars, seed=8)
    return {"close": market["close"], "fast": fast.ravel(), "slow": slow.ravel(), "cash": CASH, "fee_rate": FEE_RATE}


def cross_section(symbols: int = 100, hours: int = 8_760) -> dict[str, Any]:
    """A year of hours of 100 symbols: each week the ten with the highest return over four weeks, 9.5% of equity each.

    Less than all of it, so that no buy is cut by the cash, where the peers' conventions differ. `rebalance` holds the
    rows, from the first whole look-back on.
    """
    generator = np.random.default_rng(9)
    common = generator.normal(0.0, 0.004, (hours, 1))
    closes = 100.0 * np.exp(np.cumsum(common + generator.normal(0.0, 0.008, (hours, symbols)), axis=0))
    lookback = 4 * HOURS_A_WEEK
    rows = np.arange(HOURS_A_WEEK - 1, hours, HOURS_A_WEEK)
    return {
        "close": closes, "rebalance": rows[rows >= lookback], "lookback": lookback, "top": 10, "weight": 0.095,
        "cash": CASH, "fee_rate": FEE_RATE,
    }  # fmt: skip


def _minutes(bars: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    close = 30_000.0 * np.exp(np.cumsum(generator.normal(0.0, 0.0006, bars)))
    opened = np.concatenate([[30_000.0], close[:-1]])
    spread = 1.0 + np.abs(generator.normal(0.0, 0.0003, (2, bars)))
    return {
        "open": opened,
        "high": np.maximum(opened, close) * spread[0],
        "low": np.minimum(opened, close) / spread[1],
        "close": close,
    }
