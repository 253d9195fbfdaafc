"""Aggregate ticks to time, tick, volume and dollar bars, from tables, files and streams of chunks.

>>> import polars as pl
>>> from agent_bt.bars import build_tick_bars
>>> ticks = pl.DataFrame({
...     "timestamp": [1_722_470_400_000, 1_722_470_400_100, 1_722_470_400_200, 1_722_470_400_300],
...     "price": [100.0, 101.0, 99.0, 100.0],
...     "quantity": [1.0, 2.0, 1.0, 4.0],
...     "is_buyer_maker": [False, False, True, True],
... })
>>> build_tick_bars(ticks, n_ticks=2).select("open", "high", "low", "close", "volume", "buy_volume").rows()
[(100.0, 101.0, 100.0, 101.0, 3.0, 3.0), (99.0, 100.0, 99.0, 100.0, 5.0, 0.0)]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_bt.bars.aggregate import (
        AggregationResult,
        FastBarAggregator,
        aggregate_bars,
        build_dollar_bars,
        build_tick_bars,
        build_time_bars,
        build_volume_bars,
    )
    from agent_bt.bars.benchmark import benchmark_aggregation
    from agent_bt.bars.streaming import StreamingAggregator, create_streaming_aggregator

_MODULES = {
    "AggregationResult": "agent_bt.bars.aggregate",
    "FastBarAggregator": "agent_bt.bars.aggregate",
    "StreamingAggregator": "agent_bt.bars.streaming",
    "aggregate_bars": "agent_bt.bars.aggregate",
    "benchmark_aggregation": "agent_bt.bars.benchmark",
    "build_dollar_bars": "agent_bt.bars.aggregate",
    "build_tick_bars": "agent_bt.bars.aggregate",
    "build_time_bars": "agent_bt.bars.aggregate",
    "build_volume_bars": "agent_bt.bars.aggregate",
    "create_streaming_aggregator": "agent_bt.bars.streaming",
}

__all__ = [
    "AggregationResult",
    "FastBarAggregator",
    "StreamingAggregator",
    "aggregate_bars",
    "benchmark_aggregation",
    "build_dollar_bars",
    "build_tick_bars",
    "build_time_bars",
    "build_volume_bars",
    "create_streaming_aggregator",
]


def __getattr__(name: str) -> Any:
    # Loaded on first access, so that importing another module of this package does not load numba.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'agent_bt.bars' has no attribute {name!r}")
