"""The dynamic asset pool: the symbols that may be held, selected periodically by past volume."""

from __future__ import annotations

import numpy as np

from agent_bt.config.model import PoolConfig
from agent_bt.core.clock import duration_us
from agent_bt.core.errors import ConfigError
from agent_bt.core.frequency import instants
from agent_bt.engine.market import Market


def pool_members(market: Market, pool: PoolConfig) -> np.ndarray:
    """Return the members of the pool at every row; bool (T, N).

    At the first bar of the run and at every instant of `pool.reselect`, the `top_n` symbols with the largest mean quote
    volume over the `lookback` before it are chosen; they stay until the next one. The mean is over all bars of the
    look-back; bars before a listing count as 0. Symbols that cannot be traded then are not chosen; of equal ones the
    first is.

    Args:
        market: the market of N symbols.
        pool: configuration of the pool.

    Raises:
        ConfigError: `include` or `exclude` names a symbol that the run does not have.
    """
    for symbol in (*pool.include, *pool.exclude):
        if symbol not in market.symbols:
            raise ConfigError(
                f"pool.include and pool.exclude must name symbols of the run, got {symbol}; "
                f"there is {', '.join(market.symbols)}"
            )
    always = np.isin(market.symbols, pool.include)
    never = np.isin(market.symbols, pool.exclude)
    start = int(market.times[market.first])
    moments = np.union1d([start], instants(pool.reselect, start, int(market.times[-1])))
    volume, back = market.column("quote_asset_volume"), duration_us(pool.lookback)
    chosen = np.zeros(market.eligible.shape, bool)
    for moment, following in zip(moments, [*moments[1:], market.times[-1] + 1], strict=True):
        low, row = np.searchsorted(market.times, (moment - back, moment), side="right")
        until = np.searchsorted(market.times, following)
        ranked = np.nan_to_num(volume[low:row]).sum(axis=0) / max(1, row - low)
        may = market.eligible[row - 1] & ~never & ~always
        best = np.argsort(-np.where(may, ranked, -1.0), kind="stable")[: pool.top_n]
        now = np.zeros(len(market.symbols), bool)
        now[best] = may[best]
        chosen[np.searchsorted(market.times, moment) : until] = now | always
    return chosen
