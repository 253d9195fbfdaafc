"""A small market of arrays: ragged, with gaps, symbols that come and go, a pool; and its views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent_bt.core.types import FeatureSpec, Portfolio
from agent_bt.core.view import BAR_COLUMNS, MarketView
from agent_bt.features.compute import compute

MINUTE = 60_000_000
FLAT = Portfolio(cash=1_000.0, positions={})


class PaperMarket:
    """What `decide_all` reads, and views as the engine cuts them."""

    def __init__(self, columns: dict[str, np.ndarray], eligible: np.ndarray | None = None) -> None:
        """`columns`: float64 (T, N) by name; the other bar columns are NaN."""
        first = next(iter(columns.values()))
        rows, count = first.shape
        self.data = {name: np.full((rows, count), np.nan) for name in BAR_COLUMNS}
        self.data |= {name: np.array(values, np.float64) for name, values in columns.items()}
        self.symbols = tuple(f"S{at}" for at in range(count))
        self.times = MINUTE * np.arange(1, rows + 1)
        self.interval = MINUTE
        self.eligible = np.ones((rows, count), bool) if eligible is None else eligible

    def __len__(self) -> int:
        return len(self.times)

    def column(self, name: str) -> np.ndarray:
        values = self.data[name].view()
        values.setflags(write=False)
        return values

    def at(self, bar: int, lookback: int) -> MarketView:
        low = max(0, bar + 1 - lookback)
        return MarketView(
            now=int(self.times[bar]),
            interval=self.interval,
            symbols=self.symbols,
            columns=tuple(self.data),
            times=self.times[low : bar + 1].copy(),
            data=np.stack([values[low : bar + 1] for values in self.data.values()], axis=-1),
            eligible=self.eligible[bar].copy(),
            eligibility=self.eligible[low : bar + 1].copy(),
        )

    def changed(self, rows: slice, seed: int) -> PaperMarket:
        """The same market with other numbers, holes and members in these rows."""
        rng = np.random.default_rng(seed)
        other = PaperMarket({name: values.copy() for name, values in self.data.items()}, self.eligible.copy())
        for values in other.data.values():
            part = values[rows]
            part[:] = np.where(rng.random(part.shape) < 0.2, np.nan, rng.normal(50, 30, part.shape))
        other.eligible[rows] = rng.random(other.eligible[rows].shape) < 0.5
        return other


def traded_market(features: Sequence[FeatureSpec], rows: int, count: int, seed: int) -> PaperMarket:
    """Random prices with real features: gaps filled flat, symbols that appear and vanish, a pool."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (rows, count)), axis=0))
    filled = np.zeros((rows, count))
    for symbol in range(count):
        gap = int(rng.integers(5, rows - 8))
        close[gap : gap + 6, symbol] = close[gap - 1, symbol]
        filled[gap : gap + 6, symbol] = 1.0
    low, high = close * (1 - 0.002 * (filled == 0)), close * (1 + 0.002 * (filled == 0))
    volume = np.where(filled > 0, 0.0, rng.uniform(1, 5, close.shape))
    bars = {"open": close, "high": high, "low": low, "close": close, "volume": volume, "filled": filled}
    bars |= {"quote_asset_volume": volume * close, "trades": 10 * volume, "taker_base": volume / 2}
    bars |= {"taker_quote": volume * close / 2}
    born = np.where(np.arange(count) % 3 == 1, rows // 4, 0)
    died = np.where(np.arange(count) % 3 == 2, rows - rows // 4, rows)
    columns = {name: values.copy() for name, values in bars.items()}
    columns |= {spec.column: np.full(close.shape, np.nan) for spec in features}
    at = np.arange(rows)[:, None]
    for symbol in range(count):
        alive = slice(int(born[symbol]), int(died[symbol]))
        own = {name: values[alive, symbol] for name, values in bars.items()}
        for number, spec in enumerate(features):
            columns[spec.column][alive, symbol] = compute(own, features)[:, number]
    for values in columns.values():
        values[at < born] = np.nan
    eligible = (at >= born) & (at < died - 1)
    eligible &= np.repeat(rng.random((rows // 10 + 1, count)) < 0.85, 10, axis=0)[:rows]
    return PaperMarket(columns, eligible)


def noise_market(names: Sequence[str], rows: int, count: int, seed: int) -> PaperMarket:
    """Columns of noise with many equal values, NaN, infinities and -0.0, and random eligibility."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name in ("close", *names):
        values = np.round(rng.normal(0, 2, (rows, count)), 1) * rng.choice([1.0, 1.0, 37.123])
        values[rng.random(values.shape) < 0.15] = np.nan
        values[rng.random(values.shape) < 0.02] = rng.choice([np.inf, -np.inf])
        columns[name] = values
    return PaperMarket(columns, rng.random((rows, count)) < 0.8)


def wanted_of(decision: object, symbols: Sequence[str]) -> np.ndarray:
    """The targets of a decision as a row, NaN where a symbol is left alone."""
    targets = decision.targets or {}  # type: ignore[attr-defined]
    return np.array([targets.get(symbol, np.nan) for symbol in symbols])


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal to the last bit, the sign of zero included; any NaN equals any NaN."""
    there = ~np.isnan(one)
    return bool(
        np.array_equal(there, ~np.isnan(other))
        and np.array_equal(one[there].view(np.int64), other[there].view(np.int64))
    )
