"""The columns of a decision record: its content, which is hashed, and its telemetry, which is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from agent_bt.core.schema import TIME
from agent_bt.core.view import BAR_COLUMNS

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))

CALL_CONTENT: dict[str, Any] = {
    "request": pl.String,
    "messages": MESSAGES,
    "reply": pl.String,
    "finish_reason": pl.String,
    "refusal": pl.String,
    "failure": pl.String,
}
"""One model call: the request's address, the full messages, and the raw reply or the transport failure."""

FILL: dict[str, Any] = {
    "time": TIME,
    "bar": pl.Int64,
    "symbol": pl.String,
    "quantity": pl.Float64,
    "price": pl.Float64,
    "reference_price": pl.Float64,
    "fee": pl.Float64,
    "slippage": pl.Float64,
    "realised_pnl": pl.Float64,
    "reason": pl.String,
}
"""The fields of `core.types.Fill`; also the columns of `fills.parquet`."""

_CONTENT: dict[str, Any] = {
    "index": pl.Int64,
    "time": TIME,
    "bar": pl.Int64,
    "symbol": pl.String,
    "prompt": pl.String,
    **CALL_CONTENT,
    "others": pl.List(pl.Struct(CALL_CONTENT)),
    "action": pl.String,
    "size": pl.Float64,
    "sizing": pl.String,
    "note": pl.String,
    "provenance": pl.String,
    "reason": pl.String,
    "repaired": pl.String,
    "targets": pl.List(pl.Struct({"symbol": pl.String, "share": pl.Float64})),
    "trades": pl.List(pl.Struct({"symbol": pl.String, "share": pl.Float64})),
    "on_change": pl.Boolean,
    "risk": pl.String,
    "risk_cuts": pl.List(pl.Struct({"symbol": pl.String, "verdict": pl.String, "reason": pl.String})),
    "orders": pl.List(pl.Struct({"symbol": pl.String, "lots": pl.Int64, "quantity": pl.Float64})),
    "fills": pl.List(pl.Struct(FILL)),
    "account": pl.Struct(
        dict.fromkeys(
            ("cash", "equity", "realised_pnl", "unrealised_pnl", "fees", "funding", "peak_equity"), pl.Float64
        )
    ),
    "positions": pl.List(
        pl.Struct({"symbol": pl.String, "quantity": pl.Float64, "average_price": pl.Float64, "opened": TIME})
    ),
    "prices": pl.List(pl.Struct({"symbol": pl.String, "price": pl.Float64})),
    "summary": pl.List(
        pl.Struct(
            {
                "start": TIME,
                **dict.fromkeys(("open", "high", "low", "close", "volume", "taker_share", "filled_share"), pl.Float64),
            }
        )
    ),
}

CALL_TELEMETRY: dict[str, Any] = {
    "latency_ms": pl.Float64,
    "attempts": pl.Int64,
    "cached": pl.Boolean,
    "speculated": pl.Boolean,
    "cost_usd": pl.Float64,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cached_tokens": pl.Int64,
    "reasoning_tokens": pl.Int64,
    "error": pl.String,
    "body": pl.String,
}
"""How one model call went."""

_TELEMETRY = pl.Struct(
    {"wall_time": TIME, "detail": pl.String, **CALL_TELEMETRY, "others": pl.List(pl.Struct(CALL_TELEMETRY))}
)


def decision_schema(window_columns: Sequence[str]) -> pl.Schema:
    """Return the schema of `decisions.parquet`: every content column, then the struct `telemetry`.

    The column `window` is a struct of lists, oldest first: `close_time`, the bars' columns, then the features by name,
    all of the view's first symbol. Content is what the run consists of and is hashed; telemetry is how it went (time,
    cost) and is not.

    Args:
        window_columns: the columns of the strategy's view; with none, the records hold no window.
    """
    window: dict[str, Any] = {}
    if window_columns:
        known = [name for name in BAR_COLUMNS if name in window_columns]
        names = known + sorted(name for name in window_columns if name not in known)
        fields = {"close_time": pl.List(TIME), **{name: pl.List(pl.Float64) for name in names}}
        window = {"window": pl.Struct(fields)}
    return pl.Schema({**_CONTENT, **window, "telemetry": _TELEMETRY})


def json_schema(schema: pl.Schema) -> pl.Schema:
    """Return the schema of the same table in JSON, where an instant is an integer of microseconds."""
    return pl.Schema({name: _plain(dtype) for name, dtype in schema.items()})


def _plain(dtype: Any) -> Any:
    if dtype == TIME:
        return pl.Int64
    if isinstance(dtype, pl.List):
        return pl.List(_plain(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _plain(field.dtype) for field in dtype.fields})
    return dtype
