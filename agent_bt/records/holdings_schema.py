"""The columns of the four tables that runs over several symbols have in addition."""

from __future__ import annotations

from typing import Any

import polars as pl

from agent_bt.core.schema import TIME

_LEGS: dict[str, Any] = {
    "time": TIME,
    **dict.fromkeys(("long_pnl", "short_pnl", "fees", "funding", "gross", "long", "short"), pl.Float64),
}
LEGS_SCHEMA = pl.Schema(_LEGS)
"""`legs.parquet`, one row per bar.

`long_pnl`, `short_pnl`: cumulative PnL of the long and of the short positions, in quote units, before fees and funding.
`fees`, `funding`: paid so far, in quote units. `gross`, `long` (>= 0), `short` (<= 0): exposure, fractions of equity.
"""

_SNAPSHOT: dict[str, Any] = {
    "time": TIME,
    "bar": pl.Int64,
    "symbol": pl.String,
    **dict.fromkeys(("quantity", "price", "value", "share"), pl.Float64),
}
SNAPSHOT_SCHEMA = pl.Schema(_SNAPSHOT)
"""`snapshots.parquet`, one row per recorded decision and symbol held right after it.

`quantity`: signed. `price`: the close. `value`: in quote units. `share`: the weight, a fraction of equity. Orders that
fill later (at the next open, with latency) are not included yet.
"""

_REBALANCE: dict[str, Any] = {
    "time": TIME,
    "bar": pl.Int64,
    **dict.fromkeys(("equity", "turnover", "gross", "net", "long", "short"), pl.Float64),
    "positions": pl.Int64,
    "fees": pl.Float64,
}
REBALANCE_SCHEMA = pl.Schema(_REBALANCE)
"""`rebalances.parquet`, one row per recorded decision.

`equity`, the exposures (fractions of equity) and the number of positions right after it. `turnover`: one-way, half of
what its orders traded, as a fraction of that equity. `fees`: of its orders. Both include orders that filled later.
"""

_ATTRIBUTION: dict[str, Any] = {
    "symbol": pl.String,
    **dict.fromkeys(("pnl", "long_pnl", "short_pnl", "fees", "funding", "slippage"), pl.Float64),
    "trades": pl.Int64,
    **dict.fromkeys(("turnover", "share_of_time"), pl.Float64),
}
ATTRIBUTION_SCHEMA = pl.Schema(_ATTRIBUTION)
"""`attribution.parquet`, one row per symbol.

pnl = long_pnl + short_pnl - fees - funding, in quote units; slippage is inside the prices. `trades`: closed trades.
`turnover`: one-way, half the traded notional over the equity at the time. `share_of_time`: fraction of the bars in
which it was held.
"""
