"""The measures of a result, as pure functions of returns, equity curves and trades; undefined is None, never NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent_bt.core.clock import DAY
from agent_bt.core.types import Fill

DAYS_PER_YEAR = 365
"""Crypto markets have no closing days."""

_FLAT = 1e-12
"""A spread of returns below this is rounding noise, and no risk to divide by."""


def daily_returns(times: np.ndarray, equity: np.ndarray, initial: float) -> np.ndarray:
    """Compute the returns from one UTC day's last mark to the next.

    Args:
        times: close times of the bars, int64 (T,), UTC us, ascending; a bar that closes at 00:00 ends the day before.
        equity: mark-to-market equity at those times, float64 (T,).
        initial: equity before the first bar.

    Returns:
        float64 (D,), one for each UTC day that a bar falls into; the first and the last day may be partial ones.
    """
    days = (times - 1) // DAY
    last = np.append(np.flatnonzero(np.diff(days)), len(days) - 1)
    marks = np.concatenate([[initial], equity[last]])
    with np.errstate(divide="ignore", invalid="ignore"):
        returns: np.ndarray = np.diff(marks) / marks[:-1]
    return returns


def drawdowns(equity: np.ndarray, initial: float) -> np.ndarray:
    """Compute the fraction by which each mark is below the highest before it, the starting value included.

    Args:
        equity: marks, quote units, float64 (T,).
        initial: starting value, quote units.

    Returns:
        float64 (T,), <= 0.
    """
    peaks = np.maximum(np.maximum.accumulate(equity), initial)
    below: np.ndarray = equity / peaks - 1.0
    return below


def max_drawdown(equity: np.ndarray, initial: float) -> float:
    """Compute the deepest drawdown, a fraction <= 0; the starting value counts as a peak.

    Args:
        equity: marks, quote units, float64 (T,).
        initial: starting value, quote units.
    """
    return min(0.0, float(np.min(drawdowns(equity, initial)))) if len(equity) else 0.0


def volatility(returns: np.ndarray, periods_per_year: float = DAYS_PER_YEAR) -> float | None:
    """Compute the annualised standard deviation (ddof = 1) of returns; None for fewer than two.

    Args:
        returns: per period, fractions, float64 (T,).
        periods_per_year: number of periods in a year; default: days.
    """
    if len(returns) < 2:
        return None
    return _finite(float(np.std(returns, ddof=1)) * math.sqrt(periods_per_year))


def sharpe_ratio(returns: np.ndarray, periods_per_year: float = DAYS_PER_YEAR) -> float | None:
    """Compute mean over standard deviation (ddof = 1), annualised, risk-free rate 0; None without variance.

    Sharpe (1994), "The Sharpe Ratio".

    Args:
        returns: per period, fractions, float64 (T,).
        periods_per_year: number of periods in a year; default: days.
    """
    if len(returns) < 2:
        return None
    spread = float(np.std(returns, ddof=1))
    return _ratio(float(np.mean(returns)) * math.sqrt(periods_per_year), spread)


def sortino_ratio(returns: np.ndarray, periods_per_year: float = DAYS_PER_YEAR, target: float = 0.0) -> float | None:
    """Compute the mean excess over the downside deviation, annualised; None without a return below the target.

    The downside deviation is the root of the mean square of shortfalls over all returns, not over the losing ones
    alone (Sortino & Price 1994).

    Args:
        returns: per period, fractions, float64 (T,).
        periods_per_year: number of periods in a year; default: days.
        target: return per period that is not a shortfall.
    """
    if len(returns) < 2:
        return None
    downside = math.sqrt(float(np.mean(np.minimum(returns - target, 0.0) ** 2)))
    return _ratio(float(np.mean(returns - target)) * math.sqrt(periods_per_year), downside)


def annualised_return(initial: float, final: float, elapsed_us: int) -> float | None:
    """Compute the compound return per 365 days; None for less than a day, which says nothing about a year.

    Args:
        initial: equity at the start, quote units.
        final: equity at the end, quote units.
        elapsed_us: time between them, us.
    """
    if elapsed_us < DAY or initial <= 0.0:
        return None
    if final <= 0.0:
        return -1.0
    exponent = DAYS_PER_YEAR * DAY / elapsed_us * math.log(final / initial)
    return _finite(math.expm1(exponent)) if exponent < 700.0 else None


def calmar_ratio(annualised: float | None, deepest: float) -> float | None:
    """Compute the annualised return over the size of the deepest drawdown (Young 1991); None without a drawdown.

    Args:
        annualised: return per year, a fraction; None: undefined.
        deepest: drawdown, a fraction <= 0.
    """
    return None if annualised is None else _ratio(annualised, -deepest)


def trade_results(fills: Sequence[Fill]) -> list[float]:
    """Compute the profit of every closed trade, in quote units, net of fees.

    A trade is closed by each fill that reduces a position, against the average entry price. It bears its own fee, and
    its part of the fees that were paid to enter.
    """
    results: list[float] = []
    held: dict[str, tuple[float, float]] = {}
    for fill in fills:
        position, entry_fees = held.get(fill.symbol, (0.0, 0.0))
        after = position + fill.quantity
        if position * fill.quantity >= 0.0:
            held[fill.symbol] = (after, entry_fees + fill.fee)
            continue
        # Closing more than is held opens the other side; quantities are sums of lots, so tiny remainders are zero.
        after = 0.0 if abs(after) <= 1e-9 * abs(position) else after
        closed = min(abs(fill.quantity), abs(position))
        entry_part = entry_fees * closed / abs(position)
        exit_part = fill.fee * closed / abs(fill.quantity)
        results.append(fill.realised_pnl - exit_part - entry_part)
        rest = fill.fee - exit_part if after * position < 0.0 else entry_fees - entry_part
        held[fill.symbol] = (after, rest)
    return results


def win_rate(results: Sequence[float]) -> float | None:
    """Compute the fraction of trades that made money; None without trades."""
    return sum(result > 0.0 for result in results) / len(results) if results else None


def profit_factor(results: Sequence[float]) -> float | None:
    """Sum of the profits over the sum of the losses; None without a losing trade."""
    lost = -sum(result for result in results if result < 0.0)
    return _ratio(sum(result for result in results if result > 0.0), lost) if lost > 0.0 else None


def turnover(notionals: np.ndarray, equities: np.ndarray) -> float:
    """Compute one-way turnover: half the sum of traded notional over the equity at the time.

    Buying with everything and selling it all again is 1. What is traded when the equity is used up has no weight, and
    counts as nothing.

    Args:
        notionals: of each fill, quote units, float64 (F,).
        equities: at each fill, quote units, float64 (F,).
    """
    alive = equities > 0.0
    return 0.5 * float(np.sum(np.abs(notionals[alive]) / equities[alive])) if len(notionals) else 0.0


def _ratio(above: float, below: float) -> float | None:
    return None if not below > _FLAT else _finite(above / below)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
