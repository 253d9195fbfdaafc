"""Execution sensitivity: a run's own decisions, refilled at other prices, later, and at double costs.

The decisions are taken as they were made, nobody is asked again: an agent that saw another account might have
decided otherwise. What remains is how much of the result hangs on the assumed execution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.types import Decision, Fill
from agent_bt.engine.market import Market
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer

COLUMNS = ("bar", "action", "size", "sizing", "targets", "trades", "on_change")
"""The columns of `decisions.parquet` that `recorded_decisions` needs."""

CONVENTION = (
    "Execution sensitivity refills the decisions as they were made, at the next open, 1 and 5 bars later, and at "
    "double fees and slippage. The agent is not asked again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to fill the same decisions; amounts in quote units, shares as fractions, `max_drawdown` <= 0."""

    name: str
    final_equity: float
    total_return: float
    max_drawdown: float
    fees: float
    slippage: float
    fills: int
    equity: np.ndarray
    """Equity per bar of the market, float64 (T,); NaN before its first bar."""

    def to_dict(self) -> dict[str, str | float | int]:
        """Plain data for `summary.json`, without the curve."""
        names = ("name", "final_equity", "total_return", "max_drawdown", "fees", "slippage", "fills")
        return {name: getattr(self, name) for name in names}


def execution_sensitivity(
    market: Market,
    decisions: Sequence[tuple[int, Decision]],
    rules: np.ndarray,
    limits: np.ndarray,
    cash: float,
) -> list[Variant]:
    """Fill `decisions` under the run's own rules (`as_run`) and under each alternative.

    Args:
        market: the market of the run.
        decisions: (row of the decision bar, decision), ascending; HOLDs may be left out.
        rules: the run's, as made by `execution.sizing.make_rules`.
        limits: the run's, as made by `execution.sizing.make_limits`.
        cash: what the account starts with, quote units.

    Returns:
        as_run, next_open, plus_1_bar, plus_5_bars (later than the run by so many bars), double_costs.
    """
    rule = rules[0]
    changes: dict[str, dict[str, float]] = {
        "as_run": {},
        "next_open": {"at_close": 0, "delay": 1},
        "plus_1_bar": {"delay": rule["delay"] + 1},
        "plus_5_bars": {"delay": rule["delay"] + 5},
        "double_costs": {"fee_rate": 2.0 * rule["fee_rate"], "slippage": 2.0 * rule["slippage"]},
    }
    wanted = [(bar, decision) for bar, decision in decisions if decision.trades or decision.targets]
    variants = []
    for name, entries in changes.items():
        changed = rules.copy()
        for key, value in entries.items():
            changed[key] = value
        variants.append(_refill(name, market, wanted, changed, limits, cash))
    return variants


def recorded_decisions(frame: pl.DataFrame) -> list[tuple[int, Decision]]:
    """(bar, decision) of every record that wanted something, from the `COLUMNS` of a decisions table."""
    wants = (pl.col("targets").list.len().fill_null(0) > 0) | (pl.col("trades").list.len().fill_null(0) > 0)
    return [
        (
            row["bar"],
            Decision(
                targets=_shares(row["targets"]),
                trades=_shares(row["trades"]),
                on_change=row["on_change"],
                sizing=row["sizing"],
                action=row["action"],
                size=row["size"],
            ),
        )
        for row in frame.select(COLUMNS).filter(wants).iter_rows(named=True)
    ]


def _shares(rows: list[dict[str, Any]] | None) -> dict[str, float] | None:
    return None if rows is None else {row["symbol"]: row["share"] for row in rows}


def _refill(
    name: str,
    market: Market,
    decisions: Sequence[tuple[int, Decision]],
    rules: np.ndarray,
    limits: np.ndarray,
    cash: float,
) -> Variant:
    broker = SimulatedBroker(prices=market, rules=rules, cash=cash, first=market.first)
    sizer = RiskLimitedSizer(symbols=market.symbols, rules=rules, limits=limits)
    fills: list[Fill] = []
    for bar, decision in decisions:
        fills += broker.advance(bar)
        if broker.halted:
            break
        sized = sizer.size(decision, broker.state())
        fills += broker.submit(sized.orders, sized.targets)
    fills += broker.advance(len(market) - 1)
    curve = broker.equity[market.first :]
    peak = np.maximum(np.maximum.accumulate(curve), cash)
    final = float(curve[-1])
    return Variant(
        name=name,
        final_equity=final,
        total_return=final / cash - 1.0,
        max_drawdown=float(np.min(curve / peak - 1.0)),
        fees=sum(fill.fee for fill in fills),
        slippage=sum(fill.slippage for fill in fills),
        fills=len(fills),
        equity=broker.equity,
    )
