"""Measure how fast each implementation aggregates the same ticks on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import polars as pl

from agent_bt.bars import kernels
from agent_bt.bars.aggregate import FastBarAggregator
from agent_bt.bars.streaming import BarType, resolve
from agent_bt.bars.ticks import read_chunks, read_ticks
from agent_bt.core.errors import UsageError

_UNCOMPILED_TICKS = 20_000


def benchmark_aggregation(
    data: Any, bar_type: BarType = "time_bar", threshold: float | str = "1h", n_iterations: int = 3
) -> pl.DataFrame:
    """Measure how fast each implementation aggregates these ticks; the time to read them is not included.

    Args:
        data: see `bars.aggregate_bars`.
        bar_type: see `bars.aggregate_bars`; default `time_bar`.
        threshold: see `bars.aggregate_bars`; default `"1h"`.
        n_iterations: number of runs of each implementation, of which the fastest counts; default 3.

    Returns:
        One row an implementation: `implementation` (`numba` with the basic columns, `numba_advanced` with all, `polars`
        for time and tick bars, `python`, uncompiled, on the first 20,000 ticks), `ticks`, `seconds`, `ticks_per_s`.

    Raises:
        UsageError: a parameter is not valid, or there are no ticks.
        DataError: a tick is invalid.
    """
    if isinstance(n_iterations, bool) or not isinstance(n_iterations, int) or n_iterations < 1:
        raise UsageError(f"n_iterations must be an integer of at least 1, got {n_iterations!r}")
    kind, _, step = resolve(bar_type, threshold)
    frame = pl.concat(list(read_chunks(data)))
    if frame.is_empty():
        raise UsageError("the benchmark needs at least one tick, got none; pass a table or file with ticks")
    ticks = read_ticks(frame)
    plain = pl.DataFrame(
        {"timestamp": pl.Series(ticks.times).cast(pl.Datetime("us")), "price": ticks.prices,
         "quantity": ticks.quantities, "is_buyer_maker": ticks.makers}
    )  # fmt: skip

    def aggregator(**options: Any) -> Callable[[], Any]:
        compiled = FastBarAggregator(bar_type=bar_type, threshold=threshold, **options)
        return lambda: compiled.aggregate(plain)

    few = plain.head(_UNCOMPILED_TICKS)
    uncompiled = FastBarAggregator(bar_type=bar_type, threshold=threshold, use_numba=False)
    candidates: dict[str, tuple[int, Callable[[], Any]]] = {
        "numba": (len(plain), aggregator(include_advanced=False)),
        "numba_advanced": (len(plain), aggregator(include_advanced=True)),
        "python": (len(few), lambda: uncompiled.aggregate(few)),
    }
    if kind in (kernels.TIME_BAR, kernels.TICK_BAR):
        candidates["polars"] = (len(plain), lambda: by_polars(plain, kind, step))
    rows = []
    for name, (count, run) in candidates.items():
        run()  # warm-up: compiles, and loads the data into memory
        seconds = min(_time(run) for _ in range(n_iterations))
        rows.append({"implementation": name, "ticks": count, "seconds": seconds, "ticks_per_s": count / seconds})
    return pl.DataFrame(rows)


def by_polars(ticks: pl.DataFrame, kind: int, step: int) -> pl.DataFrame:
    """Aggregate ticks to time or tick bars with the basic columns, using Polars expressions only.

    Args:
        ticks: columns `timestamp` (datetime, us), `price` (quote units), `quantity` (base units) and `is_buyer_maker`
            (bool), in chronological order.
        kind: `kernels.TIME_BAR` or `kernels.TICK_BAR`.
        step: length of a time bar in us, or number of ticks of a tick bar.
    """
    place = pl.col("timestamp").to_physical() if kind == kernels.TIME_BAR else pl.int_range(pl.len())
    bar = place // step
    price, quantity = pl.col("price"), pl.col("quantity")
    return (
        ticks.lazy()
        .with_columns(bar.alias("bar"))
        .group_by("bar", maintain_order=True)
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=quantity.sum(),
            buy_volume=quantity.filter(~pl.col("is_buyer_maker")).sum(),
            dollar_volume=(price * quantity).sum(),
            tick_count=pl.len(),
        )
        .collect()
    )


def _time(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
