"""The measures of many accounts from what was kept of each: the same functions that measure a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from agent_bt.evaluation import metrics
from agent_bt.evaluation.performance import Performance, assemble

CHOOSABLE = (
    "sharpe", "sortino", "calmar", "total_return", "annualised_return", "max_drawdown", "win_rate", "profit_factor",
)  # fmt: skip
"""What a sweep may choose by: of each, more is better (a drawdown is negative)."""


def returns_of(marks: np.ndarray, cash: float) -> np.ndarray:
    """Returns from one day's last mark to the next; float64 (..., D) of marks (..., D), the first from `cash` on."""
    before = np.concatenate([np.full((*marks.shape[:-1], 1), cash), marks[..., :-1]], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The way `metrics.daily_returns` writes it, for the same bits.
        returns: np.ndarray = (marks - before) / before
    return returns


def measure(outcome: np.void, marks: np.ndarray, *, cash: float, elapsed_us: int) -> Performance:
    """The performance of one account.

    Args:
        outcome: an `engine.many.OUTCOME` record.
        marks: equity at the end of each UTC day, float64 (D,).
        cash: what it began with.
        elapsed_us: from its beginning to its last mark.
    """
    (final, deepest, realised, fees, slippage, funding, turnover, exposure, gains, losses, _, trades, wins, *_) = (
        outcome.item()
    )
    return assemble(
        final=final,
        cash=cash,
        elapsed_us=elapsed_us,
        returns=returns_of(marks, cash),
        max_drawdown=deepest,
        realised_pnl=realised,
        win_rate=wins / trades if trades else None,
        profit_factor=_profit_factor(gains, losses),
        trades=trades,
        turnover=turnover,
        exposure=exposure,
        fees=fees,
        slippage=slippage,
        funding=funding,
    )


def choose(values: np.ndarray) -> int | None:
    """The index of the largest value; of equals the first; None where all are NaN."""
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def column(performances: list[Performance], name: str) -> np.ndarray:
    """One measure of many accounts, NaN where undefined; float64 (C,)."""
    return np.array([math.nan if (value := getattr(each, name)) is None else value for each in performances], float)


def sharpe_per_day(returns: np.ndarray) -> float | None:
    """The Sharpe ratio that is not annualised, None where undefined."""
    return metrics.sharpe_ratio(returns, 1.0)


def plain(measures: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    """Measures as JSON takes them: what is not finite is null."""
    return {
        key: value if value is None or isinstance(value, int) or math.isfinite(value) else None
        for key, value in measures.items()
    }


def _profit_factor(gains: float, losses: float) -> float | None:
    return gains / losses if losses > 1e-12 else None
