"""One moving-average cross over a year of minutes, indicators and equity curve included, beside five other engines.

    python -m benchmarks.run rules

A peer is written in its quickest documented way, compiled beforehand, best of 5 rounds (of 2, where a round takes
half a minute); the versions are pinned in `benchmarks/peers/requirements-*.txt`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agent_bt.strategies.technical import TechnicalRuleGenerator
from benchmarks import ours
from benchmarks.peers import works
from benchmarks.versus import Versus

TARGET_MS = 8.0
OTHERS = {"rule_backtesting.py": "common", "rule_backtrader.py": "common", "rule_nautilus.py": "nautilus"}


def main() -> dict[str, Any]:
    """Rows against vectorbt with either engine, and against those that go bar by bar."""
    given = works.rule()
    market = ours.market_of(given)
    strategy = TechnicalRuleGenerator("ma_cross", fast=given["fast"], slow=given["slow"])
    bars = np.arange(given["slow"] - 1, len(market))
    terms = {"cash": given["cash"], "fee_rate": given["fee_rate"]}

    def run() -> np.ndarray:
        targets = strategy.decide_all(ours.Columns(market, strategy.features), bars)
        return ours.equity_of(market, bars, targets, on_change=strategy.on_change, **terms)

    versus = Versus(work=f"one rule, {len(market):,} 1m bars", run=run)
    versus.against("rule_vectorbt.py", given)
    for script, peers in OTHERS.items():
        versus.against(script, given, peers=peers)
    rows = versus.rows({"rust": 5, "numba": 5, "backtesting": 0, "backtrader": 0, "nautilus_trader": 0})
    figure = versus.seconds * 1e3
    rows.insert(0, {"work": versus.work, "ours": figure, "unit": "ms", "target": f"<= {TARGET_MS:g} ms",
                    "met": figure <= TARGET_MS})  # fmt: skip
    return {"name": "rules", "rows": rows, "details": versus.details()}


if __name__ == "__main__":
    print(main())
