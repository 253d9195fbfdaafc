"""A thousand pairs of moving averages over sixty days of minutes, beside vectorbt with either engine.

python -m benchmarks.run pairs
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agent_bt.engine.market import Market
from agent_bt.experiments.sweep.evaluate import Candidate, Span, evaluate
from agent_bt.strategies.technical import TechnicalRuleGenerator
from benchmarks import ours
from benchmarks.peers import works
from benchmarks.peers.timing import peak_mb
from benchmarks.versus import Versus

LEAST_RATIO = 50
MOST_MB = 500


def sweep(market: Market, given: dict[str, Any]) -> np.ndarray:
    """Final equity of every pair, float64 (pairs,): averages, rules and accounts, each account measured whole."""
    broker, limits = ours.account(market, cash=given["cash"], fee_rate=given["fee_rate"])
    candidates = [
        Candidate(strategy=TechnicalRuleGenerator("ma_cross", fast=fast, slow=slow), rules=broker.rules, limits=limits)
        for fast, slow in zip(given["fast"].tolist(), given["slow"].tolist(), strict=True)
    ]
    whole = Span(first=0, last=len(market) - 1, cash=given["cash"])
    (found,) = evaluate(market, np.arange(len(market)), candidates, [whole])
    finals: np.ndarray = found.outcomes["final_equity"].copy()
    return finals


def main() -> dict[str, Any]:
    """Rows of time and of memory; each engine of vectorbt in a process of its own."""
    given = works.pairs()
    market = ours.market_of({"close": given["close"]})
    versus = Versus(
        work=f"{len(given['fast']):,} pairs on {len(given['close']):,} bars", run=lambda: sweep(market, given)
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
