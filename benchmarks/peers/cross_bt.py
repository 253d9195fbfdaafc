"""bt: weekly momentum over many symbols, equity curve included."""

from __future__ import annotations

import warnings

import bt
import numpy as np
import pandas as pd
import timing

given = timing.inputs()
closes, rows, lookback = given["close"], given["rebalance"], given["lookback"]
times = pd.date_range("2024-01-01", periods=len(closes), freq="1h")
frame = pd.DataFrame(closes, index=times, columns=[f"S{at:03}" for at in range(closes.shape[1])])


def run() -> np.ndarray:
    returns = closes[rows] / closes[rows - lookback] - 1.0
    best = np.argpartition(-returns, given["top"] - 1, axis=1)[:, : given["top"]]
    weights = np.zeros_like(returns)
    weights[np.arange(len(rows))[:, None], best] = given["weight"]
    weights = pd.DataFrame(weights, index=times[rows], columns=frame.columns)
    strategy = bt.Strategy(
        "momentum", [bt.algos.RunOnDate(*times[rows]), bt.algos.WeighTarget(weights), bt.algos.Rebalance()]
    )
    backtest = bt.Backtest(
        strategy, frame, initial_capital=given["cash"], integer_positions=False, progress_bar=False,
        commissions=lambda quantity, price: abs(quantity) * price * given["fee_rate"],
    )  # fmt: skip
    backtest.run()
    # It puts a row before the first one.
    return backtest.strategy.values.to_numpy()[1:]


warnings.simplefilter("ignore")
variants, curves = {}, {}
variants["algos"], curves["algos"] = timing.best_of(run)
timing.report(variants, ("bt",), **curves)
