"""Computes the measures of many accounts from their outcomes, with the functions that measure a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from agent_bt.evaluation import metrics
from agent_bt.evaluation.performance import Performance, assemble

CHOOSABLE = (
    "sharpe", "sortino", "calmar", "total_return", "annualised_return", "max_drawdown", "win_rate", "profit_factor",
)  # fmt: skip
"""Measures that the best combination can be chosen by: larger is better (a drawdown is negative)."""


def returns_of(marks: np.ndarray, cash: float) -> np.ndarray:
    """Return daily returns, float64 (..., D); the first is from `cash`.

    Args:
        marks: equity at the end of each day, float64 (..., D), quote units.
        cash: equity before the first day.
    """
    before = np.concatenate([np.full((*marks.shape[:-1], 1), cash), marks[..., :-1]], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # In the order of operations of `metrics.daily_returns`, for equal bits.
        returns: np.ndarray = (marks - before) / before
    return returns


def measure(outcome: np.void, marks: np.ndarray, *, cash: float, elapsed_us: int) -> Performance:
    """Return the performance of one account.

    Args:
        outcome: an `engine.batch.OUTCOME` record.
        marks: equity at the end of each UTC day, float64 (D,), quote units.
        cash: at the start, quote units.
        elapsed_us: from the start to the last mark, microseconds.
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
    """Return the index of the largest value, the first of equal ones; None where all are NaN."""
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def column(performances: list[Performance], name: str) -> np.ndarray:
    """Return one measure of several accounts, NaN where undefined; float64 (C,).

    Args:
        performances: of C accounts.
        name: of a field of `Performance`.
    """
    return np.array([math.nan if (value := getattr(each, name)) is None else value for each in performances], float)


def sharpe_per_day(returns: np.ndarray) -> float | None:
    """Return the Sharpe ratio per day, not annualised; None where undefined."""
    return metrics.sharpe_ratio(returns, 1.0)


def plain(measures: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    """Return measures as JSON takes them: None where not finite."""
    return {
        key: value if value is None or isinstance(value, int) or math.isfinite(value) else None
        for key, value in measures.items()
    }


def _profit_factor(gains: float, losses: float) -> float | None:
    return gains / losses if losses > 1e-12 else None
