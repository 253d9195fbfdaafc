"""Execution sensitivity: a run's own decisions, filled again at other prices, later, and at double costs.

The decisions are taken as they were recorded, and no model is asked again: an agent that saw another account might have
decided differently. So it shows how much of the result depends on the assumed execution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.types import Decision, FeatureSpec, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.engine.market import Market
from agent_bt.engine.simulate import simulate
from agent_bt.execution.setup import ExecutionSetup

COLUMNS = ("bar", "action", "size", "sizing", "targets", "trades", "on_change")
"""The columns of `decisions.parquet` that `read_decisions` needs."""

CONVENTION = (
    "Execution sensitivity refills the decisions as they were made, at the next open, 1 and 5 bars later, and at "
    "double fees and slippage. The agent is not asked again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The outcome of one way to fill the same decisions.

    Attributes:
        name: of the way.
        final_equity: quote units.
        total_return: fraction of the starting cash.
        max_drawdown: fraction of the highest equity before, <= 0.
        fees: quote units.
        slippage: quote units.
        fills: number of fills.
        equity: at each bar of the market, float64 (T,), quote units; NaN before the first bar of the run.
    """

    name: str
    final_equity: float
    total_return: float
    max_drawdown: float
    fees: float
    slippage: float
    fills: int
    equity: np.ndarray

    def to_dict(self) -> dict[str, str | float | int]:
        """Return plain data for `summary.json`, without the equity curve."""
        names = ("name", "final_equity", "total_return", "max_drawdown", "fees", "slippage", "fills")
        return {name: getattr(self, name) for name in names}


def execution_sensitivity(
    market: Market, decisions: Sequence[tuple[int, Decision]], setup: ExecutionSetup
) -> list[Variant]:
    """Fill recorded decisions again under the run's own rules (`as_run`) and under each alternative.

    Args:
        market: the market of the run.
        decisions: (row of the decision bar, decision), ascending; HOLDs may be left out.
        setup: execution rules, limits and cash of the run.

    Returns:
        as_run, next_open, plus_1_bar, plus_5_bars (that number of bars later than in the run), double_costs.
    """
    rule = setup.rules[0]
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
        rules = setup.rules.copy()
        for key, value in entries.items():
            rules[key] = value
        variants.append(_refill(name, market, wanted, replace(setup, rules=rules)))
    return variants


def read_decisions(frame: pl.DataFrame) -> list[tuple[int, Decision]]:
    """Return (row of the bar, decision) of every recorded decision that has targets or trades.

    Args:
        frame: a decisions table; the `COLUMNS` are enough.
    """
    wants = (pl.col("targets").list.len().fill_null(0) > 0) | (pl.col("trades").list.len().fill_null(0) > 0)
    return [
        (
            row["bar"],
            Decision(
                targets=_weights(row["targets"]),
                trades=_weights(row["trades"]),
                on_change=row["on_change"],
                sizing=row["sizing"],
                action=row["action"],
                size=row["size"],
            ),
        )
        for row in frame.select(COLUMNS).filter(wants).iter_rows(named=True)
    ]


def _weights(rows: list[dict[str, Any]] | None) -> dict[str, float] | None:
    return None if rows is None else {row["symbol"]: row["share"] for row in rows}


class _Recorded:
    """A strategy that repeats recorded decisions, one after another."""

    name = "recorded decisions"
    lookback = 1
    features: Sequence[FeatureSpec] = ()
    summary = None

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._decisions = iter(decisions)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:  # noqa: ARG002
        """Return the next decision."""
        return next(self._decisions)


def _refill(name: str, market: Market, decisions: Sequence[tuple[int, Decision]], setup: ExecutionSetup) -> Variant:
    simulation = simulate(
        market=market,
        bars=np.array([bar for bar, _ in decisions], np.int64),
        strategy=_Recorded(decision for _, decision in decisions),
        setup=setup,
    )
    cash, fills = setup.cash, simulation.fills
    curve = simulation.broker.equity[market.first :]
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
        equity=simulation.broker.equity,
    )
