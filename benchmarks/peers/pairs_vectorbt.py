"""vectorbt: every pair of moving averages over one symbol in one call, with both its engines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import timing
import vectorbt as vbt

given = timing.inputs()
closes = pd.Series(given["close"])
fast, slow = given["fast"].tolist(), given["slow"].tolist()


def run(engine: str) -> np.ndarray:
    """Final equity per pair; each window's mean is computed once (`run_unique`)."""
    quick = vbt.MA.run(closes, fast, short_name="fast", run_unique=True, engine=engine)
    lazy = vbt.MA.run(closes, slow, short_name="slow", run_unique=True, engine=engine)
    portfolio = vbt.Portfolio.from_signals(
        closes, quick.ma_crossed_above(lazy), quick.ma_crossed_below(lazy),
        init_cash=given["cash"], fees=given["fee_rate"], engine=engine,
    )  # fmt: skip
    return portfolio.final_value().to_numpy()


variants, finals = {}, {}
engine = given["engine"]
variants[engine], finals[engine] = timing.best_of(lambda: run(engine))
timing.report(variants, ("vectorbt", "vectorbt-rust", "numba"), **finals)
