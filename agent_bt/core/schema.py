"""The schema of bars as a table; every source of market data delivers these columns."""

from __future__ import annotations

from typing import Any

import polars as pl

TIME = pl.Datetime("us", "UTC")

_COLUMNS: dict[str, Any] = {
    "open_time": TIME,
    "close_time": TIME,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Float64,
    "quote_asset_volume": pl.Float64,
    "trades": pl.Int64,
    "taker_base": pl.Float64,
    "taker_quote": pl.Float64,
}

STORE_SCHEMA = pl.Schema(_COLUMNS)
"""What the store keeps: `close_time` = open_time + interval, exclusive; volumes in base and quote units."""

BAR_SCHEMA = pl.Schema({**_COLUMNS, "filled": pl.Boolean})
"""What a `DataSource` delivers: `filled` marks bars that were invented over a gap (flat, volume 0)."""
