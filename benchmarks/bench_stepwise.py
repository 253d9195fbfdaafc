"""The same rule bar by bar: every bar is a decision through `decide`, against the others' `next` and `on_bar`.

python -m benchmarks.run stepwise
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agent_bt.core.step import Step
from agent_bt.core.types import Fill
from agent_bt.engine.loop import run_decisions
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.strategies.technical import TechnicalRuleGenerator
from benchmarks import ours
from benchmarks.bench_rules import OTHERS
from benchmarks.peers import works
from benchmarks.versus import Versus

BARS = 100_000
TARGET = 200_000


class Nowhere:
    """A journal that keeps nothing."""

    def append(self, step: Step) -> None:
        """Forget the step."""


def main() -> dict[str, Any]:
    """Bars per second of everybody."""
    given = works.rule(BARS)
    strategy = TechnicalRuleGenerator("ma_cross", fast=given["fast"], slow=given["slow"])
    terms = {"cash": given["cash"], "fee_rate": given["fee_rate"]}
    market = ours.market_of(given, specs=strategy.features, lookback=strategy.lookback)
    bars = list(range(given["slow"] - 1, len(market)))

    def run() -> np.ndarray:
        broker, limits = ours.account(market, **terms)
        sizer = RiskLimitedSizer(symbols=market.symbols, rules=broker.rules, limits=limits)
        fills: list[Fill] = []
        run_decisions(
            market=market, bars=bars, strategy=strategy, sizer=sizer, broker=broker, journal=Nowhere(), fills=fills
        )
        return broker.equity

    versus = Versus(work=f"stepwise rule, a decision on each of {BARS:,} bars", run=run)
    for script, peers in OTHERS.items():
        versus.against(script, given, peers=peers)
    rate = {"unit": "bars/s", "amount": len(market), "rate": True}
    rows = versus.rows({"backtesting": 0, "backtrader": 0, "nautilus_trader": 0}, **rate)
    figure = len(market) / versus.seconds
    rows.insert(0, {"work": versus.work, "ours": figure, "unit": "bars/s", "target": f">= {TARGET:,}",
                    "met": figure >= TARGET})  # fmt: skip
    return {"name": "stepwise", "rows": rows, "details": versus.details()}


if __name__ == "__main__":
    print(main())
