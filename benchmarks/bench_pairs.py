"""A thousand pairs of moving averages over sixty days of minutes, beside vectorbt with either engine.

python -m benchmarks.run pairs
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agent_bt.strategies.technical import TechnicalRuleGenerator
from benchmarks import ours
from benchmarks.peers import works
from benchmarks.peers.timing import peak_mb
from benchmarks.versus import Versus

LEAST_RATIO = 50
MOST_MB = 500


def sweep(given: dict[str, Any]) -> np.ndarray:
    """Final equity of every pair; float64 (pairs,)."""
    # One drive per pair, until the compiled sweep of agent_bt.experiments stands here in its place.
    market = ours.market_of({"close": given["close"]})
    finals = []
    for fast, slow in zip(given["fast"].tolist(), given["slow"].tolist(), strict=True):
        strategy = TechnicalRuleGenerator("ma_cross", fast=fast, slow=slow)
        bars = np.arange(slow - 1, len(market))
        targets = strategy.decide_all(ours.Columns(market, strategy.features), bars)
        curve = ours.equity_of(
            market, bars, targets, on_change=strategy.on_change, cash=given["cash"], fee_rate=given["fee_rate"]
        )
        finals.append(curve[-1])
    return np.array(finals)


def main() -> dict[str, Any]:
    """Rows of time and of memory; each engine of vectorbt in a process of its own."""
    given = works.pairs()
    versus = Versus(
        work=f"{len(given['fast']):,} pairs on {len(given['close']):,} bars", run=lambda: sweep(given), rounds=2
    )
    memory = peak_mb()
    for engine in ("rust", "numba"):
        versus.against("pairs_vectorbt.py", {**given, "engine": engine})
    rows = versus.rows({"rust": LEAST_RATIO, "numba": LEAST_RATIO}, unit="s", amount=1.0)
    for name, facts in versus.theirs.items():
        rows.append(
            {
                "work": f"{versus.work}: peak memory", "ours": memory, "unit": "MB", "peer": name,
                "theirs": facts["peak_mb"], "ratio": facts["peak_mb"] / memory, "target": f"< {MOST_MB} MB",
                "met": memory < MOST_MB,
            }
        )  # fmt: skip
    return {"name": "pairs", "rows": rows, "details": versus.details()}


if __name__ == "__main__":
    print(main())
