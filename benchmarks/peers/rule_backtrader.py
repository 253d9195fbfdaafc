"""backtrader: one moving-average cross over one symbol, bar by bar through `next`, indicators computed beforehand."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd
import timing

given = timing.inputs()
closes = given["close"]
frame = pd.DataFrame(
    {"open": given["open"], "high": given["high"], "low": given["low"], "close": closes, "volume": 1.0},
    index=pd.date_range("2024-01-01", periods=len(closes), freq="1min"),
)


class Cross(bt.Strategy):
    def __init__(self) -> None:
        fast, slow = (bt.ind.SMA(self.data, period=given[name]) for name in ("fast", "slow"))
        self.cross = bt.ind.CrossOver(fast, slow)
        self.equity: list[float] = []

    def next(self) -> None:
        if self.cross[0] > 0:
            # An order that the cash does not cover to the last bit is refused whole.
            self.buy(size=self.broker.getcash() * (1.0 - 1e-9) / (self.data.close[0] * (1.0 + given["fee_rate"])))
        elif self.cross[0] < 0 and self.position:
            self.close()
        self.equity.append(self.broker.getvalue())


def run() -> np.ndarray:
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=frame, openinterest=None))
    cerebro.addstrategy(Cross)
    cerebro.broker.setcash(given["cash"])
    cerebro.broker.setcommission(commission=given["fee_rate"])
    cerebro.broker.set_coc(True)
    equity = cerebro.run()[0].equity
    return np.concatenate([np.full(len(closes) - len(equity), given["cash"]), equity])


variants, curves = {}, {}
variants["next"], curves["next"] = timing.best_of(run, warm=False)
timing.report(variants, ("backtrader",), **curves)
