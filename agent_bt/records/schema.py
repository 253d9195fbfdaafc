"""What a decision record holds: its content (hashed) and its telemetry (not), as plain data and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.schema import TIME
from agent_bt.core.step import Step
from agent_bt.core.types import DaySummary, Fill, ModelCall, Order, Portfolio, Reply, RiskCut, Usage
from agent_bt.core.view import BAR_COLUMNS, MarketView

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))

EXCHANGE: dict[str, Any] = {
    "request": pl.String,
    "messages": MESSAGES,
    "reply": pl.String,
    "finish_reason": pl.String,
    "refusal": pl.String,
    "failure": pl.String,
}
"""One question and its answer: the request's address, the full messages, the raw reply; or the transport failure."""

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
    **EXCHANGE,
    "others": pl.List(pl.Struct(EXCHANGE)),
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

_CALL: dict[str, Any] = {
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

_TELEMETRY = pl.Struct({"wall_time": TIME, "detail": pl.String, **_CALL, "others": pl.List(pl.Struct(_CALL))})


def decision_schema(window_columns: Sequence[str]) -> pl.Schema:
    """The schema of `decisions.parquet`: every content column, then the struct `telemetry`.

    `window_columns` are the columns of the strategy's view; with none, the records hold no window. The column
    `window` is a struct of lists, oldest first: `close_time`, the bars' columns, then the features by name, all of the
    view's first symbol.
    Content is what decided the run and is hashed; telemetry is how it went (time, cost) and is not.
    """
    window: dict[str, Any] = {}
    if window_columns:
        known = [name for name in BAR_COLUMNS if name in window_columns]
        names = known + sorted(name for name in window_columns if name not in known)
        fields = {"close_time": pl.List(TIME), **{name: pl.List(pl.Float64) for name in names}}
        window = {"window": pl.Struct(fields)}
    return pl.Schema({**_CONTENT, **window, "telemetry": _TELEMETRY})


def json_schema(schema: pl.Schema) -> pl.Schema:
    """The same schema as it stands in JSON, where an instant is an integer of microseconds."""
    return pl.Schema({name: _plain(dtype) for name, dtype in schema.items()})


def _plain(dtype: Any) -> Any:
    if dtype == TIME:
        return pl.Int64
    if isinstance(dtype, pl.List):
        return pl.List(_plain(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _plain(field.dtype) for field in dtype.fields})
    return dtype


def content_of(step: Step, *, prompt: str | None = None, window: bool = True) -> dict[str, Any]:
    """The content of a step's record: plain data, complete keys, times in microseconds.

    `prompt` is name/version; `window=False` leaves the features window out.
    """
    view, decision = step.view, step.decision
    first, *others = decision.calls or (None,)
    content = {
        "index": step.index,
        "time": view.now,
        "bar": step.bar,
        "symbol": view.symbols[0],
        "prompt": prompt,
        **_exchange(first),
        "others": [_exchange(other) for other in others],
        "action": decision.action,
        "size": None if decision.size is None else float(decision.size),
        "sizing": decision.sizing,
        "note": _text(decision.note),
        "provenance": decision.provenance.kind,
        "reason": _text(decision.provenance.reason),
        "repaired": decision.provenance.repaired,
        "targets": _shares(decision.targets),
        "trades": _shares(decision.trades),
        "on_change": decision.on_change,
        "risk": _risk(step.cuts),
        "risk_cuts": [{"symbol": cut.symbol, "verdict": cut.verdict, "reason": cut.reason} for cut in step.cuts],
        "orders": [_order(order) for order in step.orders],
        "fills": [fill_row(fill) for fill in step.fills],
        "account": _account(step.portfolio, view),
        "positions": [
            {
                "symbol": symbol,
                "quantity": float(held.quantity),
                "average_price": float(held.average_price),
                "opened": int(held.opened),
            }
            for symbol, held in sorted(step.portfolio.positions.items())
        ],
        "prices": [{"symbol": symbol, "price": float(price)} for symbol, price in view.prices.items()],
        "summary": [_day(day) for day in view.summary],
    }
    if window:
        content["window"] = _window(view)
    return content


def telemetry_of(step: Step, wall_time: int) -> dict[str, Any]:
    """How the step's calls went; all null for a decision that asked no model. `wall_time` in UTC microseconds.

    `detail`, why a reply is not valid in words, is here because a library's wording may change with its version.
    """
    first, *others = step.decision.calls or (None,)
    calls = [_call(other.reply) for other in others if other is not None]
    call = _call(None if first is None else first.reply)
    return {"wall_time": wall_time, "detail": _text(step.decision.detail), **call, "others": calls}


def rows_of(frame: pl.DataFrame) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(content, telemetry) of every row of a decisions table, as `content_of` and `telemetry_of` made them."""
    plain = frame.cast(json_schema(frame.schema))
    windows = _windows(plain["window"]) if "window" in plain.columns else None
    for content in plain.drop("window", strict=False).iter_rows(named=True):
        telemetry = content.pop("telemetry")
        yield (content if windows is None else {**content, "window": next(windows)}), telemetry


def _windows(column: pl.Series) -> Iterator[dict[str, np.ndarray]]:
    """The windows of a table, as slices of its columns: as Python numbers they would cost more than the decision."""
    fields = column.struct.unnest()
    flat = {field.name: field.to_arrow().flatten().to_numpy(zero_copy_only=False) for field in fields}
    start = 0
    for end in fields["close_time"].list.len().cum_sum():
        yield {name: values[start:end] for name, values in flat.items()}
        start = end


def replies_of(content: Mapping[str, Any], telemetry: Mapping[str, Any]) -> list[tuple[str, Reply]]:
    """The replies behind a decision by their request's address, transport failures included."""
    if content["request"] is None:
        return []
    exchanges = [content, *content["others"]]
    calls = [telemetry, *telemetry["others"]]
    return [(ex["request"], _reply(ex, call)) for ex, call in zip(exchanges, calls, strict=True)]


def fill_row(fill: Fill) -> dict[str, Any]:
    """A fill as plain data: one row of `fills.parquet`."""
    return {
        "time": int(fill.time),
        "bar": int(fill.bar),
        "symbol": fill.symbol,
        "quantity": float(fill.quantity),
        "price": float(fill.price),
        "reference_price": float(fill.reference_price),
        "fee": float(fill.fee),
        "slippage": float(fill.slippage),
        "realised_pnl": float(fill.realised_pnl),
        "reason": fill.reason,
    }


def _exchange(exchange: ModelCall | None) -> dict[str, Any]:
    if exchange is None:
        return {**dict.fromkeys(EXCHANGE), "messages": []}
    request, reply = exchange.request, exchange.reply
    return {
        "request": request.address,
        "messages": [{"role": message["role"], "content": message["content"]} for message in request.messages],
        "reply": _text(reply.text),
        "finish_reason": _text(reply.finish_reason),
        "refusal": _text(reply.refusal),
        "failure": reply.failure,
    }


def _text(text: str | None) -> str | None:
    """Text of a model as UTF-8 can hold it: half a surrogate pair is written out as its escape."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _call(reply: Reply | None) -> dict[str, Any]:
    if reply is None:
        return dict.fromkeys(_CALL)
    usage = reply.usage
    return {
        "latency_ms": float(reply.latency_ms),
        "attempts": reply.attempts,
        "cached": reply.cached,
        "speculated": reply.speculated,
        "cost_usd": None if reply.cost_usd is None else float(reply.cost_usd),
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
        "cached_tokens": None if usage is None else usage.cached_tokens,
        "reasoning_tokens": None if usage is None else usage.reasoning_tokens,
        "error": _text(reply.error),
        "body": _text(reply.body),
    }


def _reply(exchange: Mapping[str, Any], call: Mapping[str, Any]) -> Reply:
    usage = None
    if call["prompt_tokens"] is not None:
        usage = Usage(
            prompt_tokens=call["prompt_tokens"],
            completion_tokens=call["completion_tokens"],
            cached_tokens=call["cached_tokens"],
            reasoning_tokens=call["reasoning_tokens"],
        )
    return Reply(
        text=exchange["reply"],
        finish_reason=exchange["finish_reason"],
        refusal=exchange["refusal"],
        failure=exchange["failure"],
        error=call["error"],
        body=call["body"],
        usage=usage,
        cost_usd=call["cost_usd"],
        latency_ms=call["latency_ms"],
        attempts=call["attempts"],
        cached=call["cached"],
        speculated=call["speculated"],
    )


def _shares(shares: Mapping[str, float] | None) -> list[dict[str, Any]] | None:
    if shares is None:
        return None
    return [{"symbol": symbol, "share": float(share)} for symbol, share in sorted(shares.items())]


def _risk(cuts: Sequence[RiskCut]) -> str:
    verdicts = {cut.verdict for cut in cuts}
    return "rejected" if "rejected" in verdicts else "clipped" if verdicts else "none"


def _order(order: Order) -> dict[str, Any]:
    return {"symbol": order.symbol, "lots": int(order.lots), "quantity": float(order.quantity)}


def _account(portfolio: Portfolio, view: MarketView) -> dict[str, float]:
    return {
        "cash": float(portfolio.cash),
        "equity": float(portfolio.equity(view.prices)),
        "realised_pnl": float(portfolio.realised_pnl),
        "unrealised_pnl": float(portfolio.unrealised_pnl(view.prices)),
        "fees": float(portfolio.fees),
        "funding": float(portfolio.funding),
        "peak_equity": float(portfolio.peak_equity),
    }


def _day(day: DaySummary) -> dict[str, Any]:
    return {
        "start": int(day.start),
        "open": float(day.open),
        "high": float(day.high),
        "low": float(day.low),
        "close": float(day.close),
        "volume": float(day.volume),
        "taker_share": float(day.taker_share),
        "filled_share": float(day.filled_share),
    }


def _window(view: MarketView) -> dict[str, np.ndarray]:
    columns = np.ascontiguousarray(view.matrix().T)
    return {"close_time": np.ascontiguousarray(view.times), **dict(zip(view.columns, columns, strict=True))}
