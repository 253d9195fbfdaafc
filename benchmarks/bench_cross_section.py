"""A hundred symbols over a year of hours, the ten best of four weeks bought each week, beside vectorbt and bt.

python -m benchmarks.run cross_section
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agent_bt.core.clock import HOUR
from agent_bt.strategies.cross_section import Momentum
from benchmarks import ours
from benchmarks.peers import works
from benchmarks.versus import Versus


def main() -> dict[str, Any]:
    """Rows against both engines of vectorbt, and bt."""
    given = works.cross_section()
    top = given["top"]
    strategy = Momentum(
        lookback_col=f"return_{given['lookback']}", top_n_long=top, top_n_short=0, gross=top * given["weight"]
    )
    market = ours.market_of({"close": given["close"]}, interval=HOUR)
    terms = {"cash": given["cash"], "fee_rate": given["fee_rate"]}

    def run() -> np.ndarray:
        targets = strategy.decide_all(ours.Columns(market, strategy.features), given["rebalance"])
        return ours.equity_of(market, given["rebalance"], targets, on_change=strategy.on_change, **terms)

    hours, symbols = given["close"].shape
    versus = Versus(work=f"weekly momentum, {symbols} symbols x {hours:,} hours", run=run)
    versus.against("cross_vectorbt.py", given)
    versus.against("cross_bt.py", given)
    rows = versus.rows({"vectorbt rust": 10, "vectorbt numba": 10, "bt": 0})
    return {"name": "cross_section", "rows": rows, "details": versus.details()}


if __name__ == "__main__":
    print(main())
