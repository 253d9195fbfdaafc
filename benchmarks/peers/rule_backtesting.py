"""backtesting.py: one moving-average cross over one symbol, bar by bar through `next`."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import timing
from backtesting import Backtest, Strategy
from backtesting.lib import crossover

given = timing.inputs()
closes = given["close"]
# It trades whole units only, so the account is made large enough for that not to matter.
cash = float(closes[0]) * 1e7


def mean(values: np.ndarray, window: int) -> np.ndarray:
    return pd.Series(values).rolling(window).mean().to_numpy()


class Cross(Strategy):
    def init(self) -> None:
        self.fast = self.I(mean, self.data.Close, given["fast"])
        self.slow = self.I(mean, self.data.Close, given["slow"])

    def next(self) -> None:
        if crossover(self.fast, self.slow):
            self.buy()
        elif crossover(self.slow, self.fast):
            self.position.close()


frame = pd.DataFrame(
    {"Open": given["open"], "High": given["high"], "Low": given["low"], "Close": closes},
    index=pd.date_range("2024-01-01", periods=len(closes), freq="1min"),
)


def run() -> np.ndarray:
    backtest = Backtest(
        frame, Cross, cash=cash, commission=given["fee_rate"], trade_on_close=True, finalize_trades=False
    )
    return backtest.run()["_equity_curve"]["Equity"].to_numpy() / cash * given["cash"]


warnings.simplefilter("ignore")
variants, curves = {}, {}
variants["next"], curves["next"] = timing.best_of(run, warm=False)
timing.report(variants, ("backtesting",), **curves)
