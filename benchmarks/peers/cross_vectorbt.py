"""vectorbt: weekly momentum over many symbols that share their cash, equity curve included, with both its engines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import timing
import vectorbt as vbt

given = timing.inputs()
closes, rows, lookback = given["close"], given["rebalance"], given["lookback"]
frame = pd.DataFrame(closes)


def run(engine: str) -> np.ndarray:
    returns = closes[rows] / closes[rows - lookback] - 1.0
    best = np.argpartition(-returns, given["top"] - 1, axis=1)[:, : given["top"]]
    sizes = np.full(closes.shape, np.nan)
    sizes[rows] = 0.0
    sizes[rows[:, None], best] = given["weight"]
    portfolio = vbt.Portfolio.from_orders(
        frame, sizes, size_type="targetpercent", group_by=True, cash_sharing=True, call_seq="auto",
        init_cash=given["cash"], fees=given["fee_rate"], engine=engine,
    )  # fmt: skip
    return portfolio.value().to_numpy()


variants, curves = {}, {}
for engine in ("numba", "rust"):
    variants[engine], curves[engine] = timing.best_of(lambda engine=engine: run(engine))
timing.report(variants, ("vectorbt", "vectorbt-rust", "numba"), **curves)
