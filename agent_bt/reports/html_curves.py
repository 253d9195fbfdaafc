"""Candles and curves of a run for the page: bars as whole ticks, equity and drawdown on a time grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from agent_bt.records.summary import BASELINES
from agent_bt.reports.html_pack import Column, decimals_of, pack_columns, quantise, significant_decimals

MAX_CANDLES = 400_000
MAX_POINTS = 30_000
"""Maximum candles, and points of a curve, in a page."""

_STEPS_MIN = (1, 2, 3, 5, 10, 15, 30, 60, 120, 240, 480, 720, 1440, 4320, 10080)


def pack_candles(bars: pl.DataFrame, most: int | None = None) -> str:
    """Pack the bars, merged to a longer interval where there are more than `most`.

    `close` and `open` are coded relative to the previous close, `high` and `low` relative to the body of the candle.

    Args:
        bars: columns of `BAR_SCHEMA`.
        most: maximum candles; default `MAX_CANDLES`.
    """
    columns = ("open", "high", "low", "close", "volume")
    start = bars["open_time"].to_physical().to_numpy() // 1000
    span = int(bars.select((pl.col("close_time") - pl.col("open_time")).dt.total_milliseconds().max()).item() or 0)
    opens, highs, lows, closes, volumes = (bars[name].to_numpy() for name in columns)
    step = step_ms(start, MAX_CANDLES if most is None else most)
    if step > span:
        first = bucket_starts(start, step)
        start, span = start[first] // step * step, step
        last = np.append(first[1:], len(opens)) - 1
        opens, closes = opens[first], closes[last]
        highs, lows = np.maximum.reduceat(highs, first), np.minimum.reduceat(lows, first)
        volumes = np.add.reduceat(volumes, first)
    decimals = max(decimals_of(prices) for prices in (opens, highs, lows, closes))
    o, h, low, c = (np.rint(prices * 10.0**decimals).astype(np.int64) for prices in (opens, highs, lows, closes))
    before = np.concatenate([c[:1], c[:-1]])
    return pack_columns(
        [
            Column(name="time", codes=start, delta=True),
            Column(name="span", codes=np.array([span])),
            Column(name="first_open", codes=o[:1], decimals=decimals),
            Column(name="close", codes=c, decimals=decimals, delta=True),
            Column(name="open", codes=o - before, decimals=decimals),
            Column(name="high", codes=h - np.maximum(o, c), decimals=decimals),
            Column(name="low", codes=np.minimum(o, c) - low, decimals=decimals),
            quantise("volume", volumes, significant_decimals(volumes[volumes > 0], 6)),
        ]
    )


def pack_curves(equity: pl.DataFrame, baselines: pl.DataFrame | None) -> str:
    """Pack equity (the last of each step), drawdown (the deepest) and baselines, at most `MAX_POINTS` each.

    Args:
        equity: columns of `EQUITY_SCHEMA`.
        baselines: `time` and one column per baseline; None without any.
    """
    time = equity["time"].to_physical().to_numpy() // 1000
    # A bar belongs to the step in which it closes: its close time is the end of its period.
    first = bucket_starts(time - 1, step_ms(time, MAX_POINTS))
    last = np.append(first[1:], len(time)) - 1
    values = equity["equity"].to_numpy()
    decimals = significant_decimals(values, 8)
    packed = [
        Column(name="time", codes=time[last], delta=True),
        quantise("strategy", values[last], decimals, delta=True),
        quantise("drawdown", np.minimum.reduceat(equity["drawdown"].to_numpy(), first), 6),
    ]
    if baselines is not None:
        aligned = equity.select("time").join(baselines, on="time", how="left", maintain_order="left")
        for name in BASELINES:
            if name in aligned.columns:
                curve = aligned[name].cast(pl.Float64).to_numpy()
                packed.append(quantise(name, curve[last], decimals, delta=True))
    return pack_columns(packed)


def read_baselines(folder: Path) -> pl.DataFrame | None:
    """Read the baselines' equity per bar from a run folder; None if it has none."""
    path = folder / "baselines.parquet"
    return pl.read_parquet(path) if path.exists() else None


def step_ms(time: np.ndarray, most: int) -> int:
    """Return the shortest step, in ms, that divides a period into at most `most` buckets.

    Args:
        time: ascending times, ms, int64.
        most: maximum number of buckets.
    """
    span = int(time[-1] - time[0]) if len(time) else 0
    return next((m * 60_000 for m in _STEPS_MIN if span / (m * 60_000) <= most), _STEPS_MIN[-1] * 60_000)


def bucket_starts(time: np.ndarray, step: int) -> np.ndarray:
    """Return the first row of every bucket.

    Args:
        time: ascending times, ms, int64.
        step: length of a bucket, ms.
    """
    buckets = time // step
    return np.flatnonzero(np.concatenate([[True], buckets[1:] != buckets[:-1]]))
