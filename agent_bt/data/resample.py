"""Aggregate minute bars to bars of any interval, and fill or drop gaps."""

from __future__ import annotations

from typing import Literal

import polars as pl

from agent_bt.core.clock import MINUTE
from agent_bt.core.schema import BAR_SCHEMA, TIME
from agent_bt.data.spans import Span

Gaps = Literal["forward_fill", "drop"]

_PRICES = ("open", "high", "low", "close")
_AMOUNTS = ("volume", "quote_asset_volume", "taker_base", "taker_quote")


def whole_bars(span: Span, interval: int) -> Span:
    """Return the part of a span that complete bars cover; it may be empty.

    Args:
        span: UTC us.
        interval: length of the bars, us; they open at multiples of it since 1970.
    """
    start = -(-span.start // interval) * interval
    return Span(start, max(start, span.end // interval * interval))


def to_bars(minutes: pl.DataFrame, span: Span, interval: int, gaps: Gaps, *, step: int = MINUTE) -> pl.DataFrame:
    """Aggregate the minutes inside `span` to complete bars, columns of `BAR_SCHEMA`.

    A bar with some of its minutes is built from these; one without any is a gap: left out, or filled with the last
    close as all four prices, volume 0 and `filled` True. Gaps before the first bar are not filled.

    Args:
        minutes: bars of length `step`, columns of `STORE_SCHEMA`, sorted by time.
        span: UTC us; only bars that open and close within it are returned.
        interval: length of the resulting bars, us; a multiple of `step`.
        gaps: `forward_fill` or `drop`.
        step: length of the bars in `minutes`, us; default: a minute.
    """
    whole = whole_bars(span, interval)
    opened = pl.col("open_time").cast(pl.Int64)
    inside = minutes.filter(opened.is_between(whole.start, whole.end, closed="left")).with_columns(open_time=opened)
    bars = inside if interval == step else _aggregate(inside, interval)
    bars = bars.with_columns(filled=False)
    if gaps == "forward_fill" and len(bars):
        bars = _fill(bars, whole.end, interval)
    times = {
        "open_time": pl.col("open_time").cast(TIME),
        "close_time": (pl.col("open_time") + interval).cast(TIME),
    }
    return bars.with_columns(**times).select(BAR_SCHEMA.names()).cast(BAR_SCHEMA)


def _aggregate(minutes: pl.DataFrame, interval: int) -> pl.DataFrame:
    columns = [
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("trades").sum(),
        *[pl.col(name).sum() for name in _AMOUNTS],
    ]
    slot = pl.col("open_time") // interval * interval
    # `maintain_order` also fixes the order of the sums, so that results are bit-identical.
    return minutes.group_by(slot.alias("open_time"), maintain_order=True).agg(columns)


def _fill(bars: pl.DataFrame, end: int, interval: int) -> pl.DataFrame:
    first = int(bars["open_time"][0])
    grid = pl.DataFrame({"open_time": pl.int_range(first, end, interval, eager=True)})
    if len(grid) == len(bars):
        return bars
    filled = grid.join(bars, on="open_time", how="left", maintain_order="left")
    return filled.with_columns(
        pl.col("filled").fill_null(True),
        pl.col("close").forward_fill(),
        *[pl.col(name).fill_null(0) for name in (*_AMOUNTS, "trades")],
    ).with_columns(pl.col(name).fill_null(pl.col("close")) for name in _PRICES)
