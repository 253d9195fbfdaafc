"""Backtests of one configuration: planned, executed, finished, replayed, estimated, or run in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_bt.backtest.in_memory import (
        BacktestEngine,
        BacktestResult,
        create_backtest_engine,
        create_mean_reversion_backtest,
        create_momentum_backtest,
    )
    from agent_bt.strategies.registry import create_strategy

__all__ = [
    "BacktestEngine",
    "BacktestResult",
    "create_backtest_engine",
    "create_mean_reversion_backtest",
    "create_momentum_backtest",
    "create_strategy",
]

if not TYPE_CHECKING:
    from agent_bt.core.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "BacktestEngine": "agent_bt.backtest.in_memory",
            "BacktestResult": "agent_bt.backtest.in_memory",
            "create_backtest_engine": "agent_bt.backtest.in_memory",
            "create_mean_reversion_backtest": "agent_bt.backtest.in_memory",
            "create_momentum_backtest": "agent_bt.backtest.in_memory",
            "create_strategy": "agent_bt.strategies.registry",
        },
    )
