"""Minutes -> bars of any interval, and what stands in for the bars that are missing."""

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
    """The part of `span` that whole bars of `interval` (us, aligned to UTC) fit into; may be empty."""
    start = -(-span.start // interval) * interval
    return Span(start, max(start, span.end // interval * interval))


def to_bars(minutes: pl.DataFrame, span: Span, interval: int, gaps: Gaps, *, step: int = MINUTE) -> pl.DataFrame:
    """Bars that lie wholly in `span`, built from the minutes that are there, and from nothing else.

    A bar with some of its minutes is a bar of these; one with none of them is a gap: left out, or flat at the last
    close with volume 0 and `filled`. Before the first bar there is nothing to fill from, so nothing is invented.

    Args:
        minutes: `STORE_SCHEMA`, sorted; bars of length `step`.
        span: UTC us.
        interval: length of the bars, us; a multiple of `step`.
        gaps: `forward_fill` or `drop`.
        step: length of the bars in `minutes`, us.
    """
    fit = whole_bars(span, interval)
    opened = pl.col("open_time").cast(pl.Int64)
    inside = minutes.filter(opened.is_between(fit.start, fit.end, closed="left")).with_columns(open_time=opened)
    bars = inside if interval == step else _aggregate(inside, interval)
    bars = bars.with_columns(filled=False)
    if gaps == "forward_fill" and len(bars):
        bars = _fill(bars, fit.end, interval)
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
    # `maintain_order` also keeps the order of the sums, and with it their last bit.
    return minutes.group_by(slot.alias("open_time"), maintain_order=True).agg(columns)


def _fill(bars: pl.DataFrame, end: int, interval: int) -> pl.DataFrame:
    first = int(bars["open_time"][0])
    grid = pl.DataFrame({"open_time": pl.int_range(first, end, interval, eager=True)})
    if len(grid) == len(bars):
        return bars
    wide = grid.join(bars, on="open_time", how="left", maintain_order="left")
    return wide.with_columns(
        pl.col("filled").fill_null(True),
        pl.col("close").forward_fill(),
        *[pl.col(name).fill_null(0) for name in (*_AMOUNTS, "trades")],
    ).with_columns(pl.col(name).fill_null(pl.col("close")) for name in _PRICES)
