"""Views, accounts and prompt files for the tests of prompts and of the stand-in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent_bt.config.model import FeaturesConfig
from agent_bt.core.clock import DAY, HOUR, MINUTE
from agent_bt.core.types import DaySummary, Portfolio, Position
from agent_bt.core.view import BAR_COLUMNS, MarketView
from agent_bt.features.compute import compute
from agent_bt.features.specs import feature_specs

NOW = 19_900 * DAY + 13 * HOUR
FLAT = Portfolio(cash=10_000.0, positions={})
SPECS = feature_specs(FeaturesConfig())
COLUMNS = (*BAR_COLUMNS, *(spec.column for spec in SPECS))
FRONT = """---
name: mine
description: A test.
inputs: {symbol: the symbol, account: the account}
output: {type: object}
---
"""


def make_view(
    seed: int = 1, *, rows: int = 60, days: int = 7, step: float = 0.0005, price: float = 60_000.0, warm: int = 200
) -> MarketView:
    """The end of a random walk of `warm` + `rows` minutes; `step`: standard deviation of a minute's return."""
    rng = np.random.default_rng(seed)
    close = price * np.exp(rng.normal(size=warm + rows).cumsum() * step)
    opens = np.concatenate([[price], close[:-1]])
    high = np.maximum(opens, close) * (1 + step * rng.random(warm + rows))
    low = np.minimum(opens, close) * (1 - step * rng.random(warm + rows))
    volume = rng.lognormal(size=warm + rows)
    bars = {"open": opens, "high": high, "low": low, "close": close, "volume": volume}
    bars |= {"quote_asset_volume": volume * close, "trades": np.full(warm + rows, 9.0), "filled": np.zeros(warm + rows)}
    bars |= {"taker_base": volume / 2, "taker_quote": volume * close / 2}
    data = np.column_stack([*(bars[name] for name in BAR_COLUMNS), compute(bars, SPECS)])[-rows:]
    today = NOW - NOW % DAY
    run_decisions = price * np.exp(rng.normal(size=days) * 0.03)
    summary = tuple(
        DaySummary(
            start=today - (days - at) * DAY,
            open=price,
            high=max(price, level) * 1.01,
            low=min(price, level) * 0.99,
            close=level,
            volume=1_000.0 * (at + 1),
            taker_share=0.48,
            filled_share=0.0,
        )
        for at, level in enumerate(run_decisions.tolist())
    )
    return MarketView(
        now=NOW,
        interval=MINUTE,
        symbols=("BTCUSDT",),
        columns=COLUMNS,
        times=NOW - MINUTE * np.arange(rows - 1, -1, -1),
        data=data[:, None, :].copy(),
        summary=summary,
    )


def holding(
    view: MarketView, weight: float = 0.5, *, gain: float = 0.02, hours: int = 3, size: float = 1.0
) -> Portfolio:
    """An account of 10,000 x `size` with this weight held, bought `hours` ago at a price `gain` lower."""
    price, equity = view.prices["BTCUSDT"], 10_000.0 * size
    held = Position(quantity=weight * equity / price, average_price=price / (1 + gain), opened=view.now - hours * HOUR)
    return Portfolio(cash=(1 - weight) * equity, positions={"BTCUSDT": held})


def write_prompt(root: Path, text: str, reference: str = "mine/v1") -> Path:
    """Write a prompt file below `root`; returns its path."""
    path = root / f"{reference}.prompty"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
