"""vectorbt: every pair of moving averages over one symbol in one call, with one of its engines.

Signals are compared on plain arrays, which takes less memory and time than its `ma_crossed_above` on frames.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import timing
import vectorbt as vbt

given = timing.inputs()
closes, engine = pd.Series(given["close"]), given["engine"]
windows, at = np.unique(np.concatenate([given["fast"], given["slow"]]), return_inverse=True)
fast, slow = at[: len(given["fast"])], at[len(given["fast"]) :]


def run() -> np.ndarray:
    """Final equity per pair; each window's mean is computed once."""
    means = vbt.MA.run(closes, windows.tolist(), engine=engine).ma.to_numpy()
    above = means[:, fast] > means[:, slow]
    # Signals at the changes alone: it walks through them quicker than through a signal on every bar.
    entries, exits = above.copy(), np.zeros_like(above)
    entries[1:] &= ~above[:-1]
    exits[1:] = above[:-1] & ~above[1:]
    portfolio = vbt.Portfolio.from_signals(
        closes, entries, exits, init_cash=given["cash"], fees=given["fee_rate"], engine=engine
    )
    return portfolio.final_value().to_numpy()


variants, finals = {}, {}
variants[engine], finals[engine] = timing.best_of(run)
timing.report(variants, ("vectorbt", "vectorbt-rust", "numba"), **finals)
