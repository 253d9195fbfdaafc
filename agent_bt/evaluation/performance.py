"""All headline measures of one account, and the conventions behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent_bt.core.types import Fill
from agent_bt.evaluation import metrics

CONVENTIONS = (
    "Volatility, Sharpe, Sortino: from daily UTC mark-to-market equity, sample standard deviation (ddof = 1), "
    "times sqrt(365), risk-free rate 0; Sortino over the downside deviation of all days, target 0.",
    "Annualised return: compounded to 365 days. Drawdown: on every bar, the starting cash included. "
    "Calmar: annualised return over the deepest drawdown.",
    "A trade is a fill that reduces a position, against the average entry price, net of the fees of both sides.",
    "Turnover: one-way, half the traded notional over equity; all in and all out again is 1. "
    "Exposure: mean share of equity held, over all bars.",
    "Realised and unrealised PnL are before fees: total = realised + unrealised - fees - funding. "
    "Slippage is inside the prices. A dash is undefined: no variance, no loss, no trade, or less than a day.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """The measures of `summary.performance`; amounts in quote units, the rest shares or ratios, None where undefined.

    `max_drawdown` is <= 0; `fees`, `slippage` and `funding` are costs (>= 0, but received funding is negative).
    """

    final_equity: float
    total_pnl: float
    realised_pnl: float
    unrealised_pnl: float
    total_return: float
    annualised_return: float | None
    max_drawdown: float
    volatility: float | None
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    win_rate: float | None
    profit_factor: float | None
    trades: int
    turnover: float
    exposure: float
    fees: float
    slippage: float
    funding: float


def performance(
    *,
    times: np.ndarray,
    equity: np.ndarray,
    exposure: np.ndarray,
    fills: Sequence[Fill],
    initial_cash: float,
    start: int,
    funding: float = 0.0,
) -> Performance:
    """Measure one account.

    Args:
        times: close times of the bars from `start` on, int64 (T,), UTC us, T >= 1.
        equity: mark-to-market equity at each, float64 (T,), quote units.
        exposure: signed share of equity held at each, float64 (T,).
        fills: in order of time.
        initial_cash: equity at `start`.
        start: open time of the first bar, UTC us.
        funding: funding paid (quote units).
    """
    results = metrics.trade_results(fills)
    return assemble(
        final=float(equity[-1]),
        cash=initial_cash,
        elapsed_us=int(times[-1]) - start,
        returns=metrics.daily_returns(times, equity, initial_cash),
        max_drawdown=metrics.max_drawdown(equity, initial_cash),
        realised_pnl=float(sum(fill.realised_pnl for fill in fills)),
        win_rate=metrics.win_rate(results),
        profit_factor=metrics.profit_factor(results),
        trades=len(results),
        turnover=_turnover(times, equity, fills),
        exposure=float(np.mean(np.abs(exposure))),
        fees=float(sum(fill.fee for fill in fills)),
        slippage=float(sum(fill.slippage for fill in fills)),
        funding=funding,
    )


def assemble(
    *,
    final: float,
    cash: float,
    elapsed_us: int,
    returns: np.ndarray,
    max_drawdown: float,
    realised_pnl: float,
    fees: float,
    funding: float,
    **counted: Any,
) -> Performance:
    """Compute the measures from what was counted on the way: those of `Performance` that follow from others.

    Args:
        final: equity at the end, quote units.
        cash: at the start, quote units.
        elapsed_us: time between them, us.
        returns: daily, fractions, float64 (D,).
        max_drawdown: a fraction <= 0.
        realised_pnl: before fees, quote units.
        fees: paid, quote units.
        funding: paid, quote units.
        counted: the other fields of `Performance`.
    """
    total_pnl = final - cash
    annualised = metrics.annualised_return(cash, final, elapsed_us)
    return Performance(
        final_equity=final,
        total_pnl=total_pnl,
        realised_pnl=realised_pnl,
        unrealised_pnl=total_pnl - realised_pnl + fees + funding,
        total_return=total_pnl / cash,
        annualised_return=annualised,
        max_drawdown=max_drawdown,
        volatility=metrics.volatility(returns),
        sharpe=metrics.sharpe_ratio(returns),
        sortino=metrics.sortino_ratio(returns),
        calmar=metrics.calmar_ratio(annualised, max_drawdown),
        fees=fees,
        funding=funding,
        **counted,
    )


def _turnover(times: np.ndarray, equity: np.ndarray, fills: Sequence[Fill]) -> float:
    bars = np.searchsorted(times, np.array([fill.time for fill in fills], np.int64))
    notionals = np.array([fill.quantity * fill.price for fill in fills])
    return metrics.turnover(notionals, equity[np.minimum(bars, len(equity) - 1)])
