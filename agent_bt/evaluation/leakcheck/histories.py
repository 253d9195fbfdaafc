"""Other histories: the same market behind a mask, and markets that never were on dates that did exist.

Every function keeps the number of rows and the contract of bars. A mask leaves the shape of the market as it is and
takes away what could be recognised; a counterfactual does the opposite: dates and symbol stay, the market is another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from agent_bt.core.clock import DAY, time_us
from agent_bt.core.schema import BAR_SCHEMA, TIME

SYMBOL = "ASSET"
"""What a masked symbol is called."""

_PRICES = ("open", "high", "low", "close")
_VOLUMES = ("volume", "taker_base")
_QUOTES = ("quote_asset_volume", "taker_quote")
_ERA = time_us("2001-01-01")
_PRICE_LEVEL = 100.0
_VOLUME_LEVEL = 1000.0
_SHIFT = 1.37
_BLOCK = DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Takes symbol, dates and levels away; nothing else changes.

    Glasserman & Lin (2023, arXiv 2309.17322) anonymise to measure what a model knows beforehand. Masks can be undone
    (Lopez-Lira, Tang & Zhu 2025, arXiv 2504.14765): a masked run is evidence, not proof. `shift` is whole weeks (us),
    so that hours and weekdays stay. Both factors are powers of two, so that whatever is relative to a price or a
    volume stays equal to the last bit.
    """

    shift: int
    price_factor: float
    volume_factor: float

    @classmethod
    def of(cls, bars: pl.DataFrame) -> Mask:
        """Make the mask that moves bars to 2001, prices to about 100, the mean volume of a bar to about 1000."""
        start = int(bars["open_time"].to_physical()[0])
        week = 7 * DAY
        volume = float(bars["volume"].to_numpy().mean())
        return cls(
            shift=(_ERA - start) // week * week,
            price_factor=_power_of_two(_PRICE_LEVEL / float(bars["close"][0])),
            volume_factor=_power_of_two(_VOLUME_LEVEL / volume) if volume > 0 else 1.0,
        )

    def apply(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Return the masked bars."""
        moved = pl.duration(microseconds=self.shift)
        return bars.with_columns(
            (pl.col("open_time", "close_time") + moved).cast(TIME),
            pl.col(*_PRICES) * self.price_factor,
            pl.col(*_VOLUMES) * self.volume_factor,
            pl.col(*_QUOTES) * (self.price_factor * self.volume_factor),
        ).cast(BAR_SCHEMA)


def mirrored(bars: pl.DataFrame) -> pl.DataFrame:
    """Mirror every log return at the first open: rises become falls, takers buy what they sold."""
    centre = float(bars["open"][0]) ** 2
    turned = bars.with_columns(
        open=centre / pl.col("open"),
        high=centre / pl.col("low"),
        low=centre / pl.col("high"),
        close=centre / pl.col("close"),
        taker_base=pl.col("volume") - pl.col("taker_base"),
    )
    return _with_quotes(turned, bars)


def shuffled(bars: pl.DataFrame, rng: np.random.Generator, block_us: int = _BLOCK) -> pl.DataFrame:
    """Put blocks of bars into a random order in which none keeps its place; inside a block everything stays.

    Args:
        bars: a history with the columns of `core.schema.BAR_SCHEMA`.
        rng: draws the order.
        block_us: length of a block, us; default: a day.
    """
    length = int(bars["close_time"].to_physical()[0] - bars["open_time"].to_physical()[0])
    rows = np.arange(len(bars))
    blocks = np.array_split(rows, max(2, math.ceil(len(bars) * length / block_us)))
    taken = np.concatenate([blocks[at] for at in _cycle(len(blocks), rng)])
    close = bars["close"].to_numpy()
    before = np.concatenate([bars["open"].to_numpy()[:1], close[:-1]])
    level = float(before[0]) * np.exp(np.cumsum(np.log(close / before)[taken]))
    reached = np.concatenate([[before[0]], level[:-1]])
    moved = bars[taken.tolist()]
    scale = reached / before[taken]
    changed = bars.with_columns(
        **{name: pl.Series(moved[name].to_numpy() * scale) for name in _PRICES},
        **{name: moved[name] for name in (*_VOLUMES, "trades", "filled")},
    )
    return _with_quotes(changed, moved)


def shifted(bars: pl.DataFrame) -> pl.DataFrame:
    """Raise all prices by 37%: the same returns at a level that never was."""
    return bars.with_columns(pl.col(*_PRICES, *_QUOTES) * _SHIFT).cast(BAR_SCHEMA)


def counterfactuals(rng: np.random.Generator) -> Mapping[str, Callable[[pl.DataFrame], pl.DataFrame]]:
    """Return the counterfactual histories by name (input perturbation: Li et al. 2025, arXiv 2510.07920)."""
    return {"mirrored": mirrored, "shuffled": lambda bars: shuffled(bars, rng), "shifted": shifted}


def _with_quotes(changed: pl.DataFrame, source: pl.DataFrame) -> pl.DataFrame:
    """Turnover in quote units at the new prices: the mean price of the bar moves as its close does."""
    ratio = changed["close"] / source["close"]
    quote = source["quote_asset_volume"] * ratio
    volume = source["volume"].to_numpy()
    share = np.divide(changed["taker_base"].to_numpy(), volume, out=np.zeros(len(volume)), where=volume > 0)
    return changed.with_columns(quote_asset_volume=quote, taker_quote=quote * pl.Series(share)).cast(BAR_SCHEMA)


def _cycle(n: int, rng: np.random.Generator) -> list[int]:
    """A random permutation that is one cycle, so that nothing stays in place (Sattolo 1986)."""
    order = list(range(n))
    for at in range(n - 1, 0, -1):
        other = int(rng.integers(at))
        order[at], order[other] = order[other], order[at]
    return order


def _power_of_two(ratio: float) -> float:
    return 2.0 ** round(math.log2(ratio))
