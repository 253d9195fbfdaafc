"""Ticks to bars: 20 million ticks to one-minute and dollar bars, beside Polars doing the same.

Run `python -m benchmarks.run bars`. The basic columns are measured from arrays in memory, checks of every tick apart;
`checked` is the whole call on a table, every tick checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from agent_bt.bars import FastBarAggregator, kernels
from agent_bt.bars.benchmark import by_polars
from agent_bt.bars.kernels import BAR

TICKS = 20_000_000
ROUNDS = 5
MINUTE = 60_000_000


def best(work: Callable[[], Any]) -> float:
    """Return the fastest of the rounds, in seconds; the first, which compiles, is left out."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def by_polars_advanced(ticks: pl.DataFrame) -> pl.DataFrame:
    """Return one-minute bars with all columns, made with Polars expressions alone."""
    price, quantity = pl.col("price"), pl.col("quantity")
    move = price.diff().sign()
    direction = move.filter(move != 0)
    return (
        ticks.lazy()
        .with_columns(bar=pl.col("timestamp").to_physical() // MINUTE)
        .group_by("bar", maintain_order=True)
        .agg(
            open=price.first(), high=price.max(), low=price.min(), close=price.last(), volume=quantity.sum(),
            buy_volume=quantity.filter(~pl.col("is_buyer_maker")).sum(), dollar_volume=(price * quantity).sum(),
            tick_count=pl.len(), up_move_ratio=(move > 0).mean(), medium_price=price.median(),
            reversals=(direction.diff() != 0).sum(),
        )
        .collect()
    )  # fmt: skip


def main() -> dict[str, Any]:
    """Measure the kernel, the whole call, and Polars, on one process."""
    draw = np.random.default_rng(0)
    times = 1_722_470_400_000_000 + np.cumsum(draw.integers(0, 260_000, TICKS))
    prices = 100.0 + np.cumsum(draw.integers(-1, 2, TICKS)) * 0.01
    quantities, makers = draw.random(TICKS), draw.random(TICKS) < 0.5
    table = pl.DataFrame(
        {"timestamp": pl.Series(times).cast(pl.Datetime("us")), "price": prices, "quantity": quantities,
         "is_buyer_maker": makers}
    )  # fmt: skip
    room = np.zeros(200_000, BAR)

    def kernel(kind: int, threshold: float, step: int) -> Callable[[], Any]:
        def work() -> None:
            state = np.zeros(1, BAR)
            kernels.aggregate(times, prices, quantities, makers, kind, threshold, step, state, False, False, room)

        return work

    def whole(*, advanced: bool) -> Callable[[], Any]:
        aggregator = FastBarAggregator(bar_type="time_bar", threshold="1min", include_advanced=advanced)
        return lambda: aggregator.aggregate(table)

    rate = {
        "minute": TICKS / best(kernel(kernels.TIME_BAR, 0.0, MINUTE)) / 1e6,
        "dollar": TICKS / best(kernel(kernels.DOLLAR_BAR, 1_000_000.0, 0)) / 1e6,
        "checked": TICKS / best(whole(advanced=False)) / 1e6,
        "advanced": TICKS / best(whole(advanced=True)) / 1e6,
        "polars": TICKS / best(lambda: by_polars(table, kernels.TIME_BAR, MINUTE)) / 1e6,
        "polars_advanced": TICKS / best(lambda: by_polars_advanced(table)) / 1e6,
    }

    def row(work: str, ours: str, peer: str, target: str, met: bool) -> dict[str, Any]:
        return {
            "work": work, "ours": rate[ours], "unit": "M ticks/s", "peer": "polars", "theirs": rate[peer],
            "ratio": rate[ours] / rate[peer], "target": target, "met": met,
        }  # fmt: skip

    return {
        "name": "Ticks to bars",
        "rows": [
            row("20 M ticks to minutes, kernel, one thread", "minute", "polars", ">= 400 M/s", rate["minute"] >= 400),
            row("20 M ticks to dollar bars, kernel, one thread", "dollar", "polars", "", True),
            row("the same minutes from a table, every tick checked", "checked", "polars", ">= 1x",
                rate["checked"] >= rate["polars"]),
            row("with up-moves, median and reversals, checked", "advanced", "polars_advanced", ">= 3x",
                rate["advanced"] >= 3 * rate["polars_advanced"]),
        ],
    }  # fmt: skip
