"""vectorbt: one moving-average cross over one symbol, indicator and equity curve included, with both its engines.

Two ways to write it, of which the quicker counts: as its documentation does, and with as little pandas as it allows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import timing
import vectorbt as vbt
from vectorbt.generic import dispatch

given = timing.inputs()
closes, fast, slow = given["close"], given["fast"], given["slow"]
series, column = pd.Series(closes), closes.reshape(-1, 1)
account = {"init_cash": given["cash"], "fees": given["fee_rate"]}


def documented(engine: str) -> np.ndarray:
    quick, lazy = vbt.MA.run(series, fast, engine=engine), vbt.MA.run(series, slow, engine=engine)
    entries, exits = quick.ma_crossed_above(lazy), quick.ma_crossed_below(lazy)
    portfolio = vbt.Portfolio.from_signals(series, entries, exits, engine=engine, **account)
    return portfolio.value().to_numpy()


def lean(engine: str) -> np.ndarray:
    quick = dispatch.rolling_mean(column, fast, fast, engine=engine)[:, 0]
    lazy = dispatch.rolling_mean(column, slow, slow, engine=engine)[:, 0]
    above = quick > lazy
    entries, exits = np.zeros(len(above), bool), np.zeros(len(above), bool)
    entries[1:], exits[1:] = above[1:] & ~above[:-1], ~above[1:] & above[:-1]
    portfolio = vbt.Portfolio.from_signals(series, entries, exits, engine=engine, **account)
    return portfolio.value().to_numpy()


variants, curves = {}, {}
for engine in ("numba", "rust"):
    for way in (documented, lean):
        name = f"{engine} {way.__name__}"
        variants[name], curves[name] = timing.best_of(lambda way=way, engine=engine: way(engine))
timing.report(variants, ("vectorbt", "vectorbt-rust", "numba"), **curves)
