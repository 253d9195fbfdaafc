"""Builds the record of a decision from a step, and reads records back from the table of decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.step import Step
from agent_bt.core.types import DaySummary, Fill, ModelCall, Order, Portfolio, Reply, RiskCut, Usage
from agent_bt.core.view import MarketView
from agent_bt.records.schema import CALL_CONTENT, CALL_TELEMETRY, json_schema


def build_content(step: Step, *, prompt: str | None = None, window: bool = True) -> dict[str, Any]:
    """Build the content of a step's record: plain data, every key present, times in microseconds.

    Args:
        step: the decision and what led to it.
        prompt: `name/version` of the prompt; None for a strategy without one.
        window: False leaves the features window out.
    """
    view, decision = step.view, step.decision
    first, *others = decision.calls or (None,)
    content = {
        "index": step.index,
        "time": view.now,
        "bar": step.bar,
        "symbol": view.symbols[0],
        "prompt": prompt,
        **_call_content(first),
        "others": [_call_content(other) for other in others],
        "action": decision.action,
        "size": None if decision.size is None else float(decision.size),
        "sizing": decision.sizing,
        "note": _text(decision.note),
        "provenance": decision.provenance.kind,
        "reason": _text(decision.provenance.reason),
        "repaired": decision.provenance.repaired,
        "targets": _by_symbol(decision.targets),
        "trades": _by_symbol(decision.trades),
        "on_change": decision.on_change,
        "risk": _risk(step.cuts),
        "risk_cuts": [{"symbol": cut.symbol, "verdict": cut.verdict, "reason": cut.reason} for cut in step.cuts],
        "orders": [_order(order) for order in step.orders],
        "fills": [fill_to_row(fill) for fill in step.fills],
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


def build_telemetry(step: Step, wall_time: int) -> dict[str, Any]:
    """Build the telemetry of a step's record; all null for a decision without a model call.

    `detail`, the explanation of an invalid reply, is telemetry because a library's wording may change with its version.

    Args:
        step: the decision and its model calls.
        wall_time: when it was recorded, UTC microseconds.
    """
    first, *others = step.decision.calls or (None,)
    calls = [_call_telemetry(other.reply) for other in others if other is not None]
    call = _call_telemetry(None if first is None else first.reply)
    return {"wall_time": wall_time, "detail": _text(step.decision.detail), **call, "others": calls}


def iterate_records(frame: pl.DataFrame) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (content, telemetry) of every row of a decisions table, equal to what was built for it."""
    plain = frame.cast(json_schema(frame.schema))
    windows = _windows(plain["window"]) if "window" in plain.columns else None
    for content in plain.drop("window", strict=False).iter_rows(named=True):
        telemetry = content.pop("telemetry")
        yield (content if windows is None else {**content, "window": next(windows)}), telemetry


def _windows(column: pl.Series) -> Iterator[dict[str, np.ndarray]]:
    """Yield the windows of a table as slices of its columns; converting them to Python numbers would be slow."""
    fields = column.struct.unnest()
    flat = {field.name: field.to_arrow().flatten().to_numpy(zero_copy_only=False) for field in fields}
    start = 0
    for end in fields["close_time"].list.len().cum_sum():
        yield {name: values[start:end] for name, values in flat.items()}
        start = end


def extract_replies(content: Mapping[str, Any], telemetry: Mapping[str, Any]) -> list[tuple[str, Reply]]:
    """Return the replies behind a decision, each with the address of its request; transport failures included.

    Args:
        content: the record's content (`build_content`).
        telemetry: the record's telemetry (`build_telemetry`).
    """
    if content["request"] is None:
        return []
    contents = [content, *content["others"]]
    calls = [telemetry, *telemetry["others"]]
    return [(each["request"], _reply(each, call)) for each, call in zip(contents, calls, strict=True)]


def fill_to_row(fill: Fill) -> dict[str, Any]:
    """Convert a fill to plain data: one row of `fills.parquet`."""
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


def _call_content(call: ModelCall | None) -> dict[str, Any]:
    if call is None:
        return {**dict.fromkeys(CALL_CONTENT), "messages": []}
    request, reply = call.request, call.reply
    return {
        "request": request.address,
        "messages": [{"role": message["role"], "content": message["content"]} for message in request.messages],
        "reply": _text(reply.text),
        "finish_reason": _text(reply.finish_reason),
        "refusal": _text(reply.refusal),
        "failure": reply.failure,
    }


def _text(text: str | None) -> str | None:
    """Return a model's text as valid UTF-8: an unpaired surrogate is written as its escape."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _call_telemetry(reply: Reply | None) -> dict[str, Any]:
    if reply is None:
        return dict.fromkeys(CALL_TELEMETRY)
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


def _reply(content: Mapping[str, Any], call: Mapping[str, Any]) -> Reply:
    usage = None
    if call["prompt_tokens"] is not None:
        usage = Usage(
            prompt_tokens=call["prompt_tokens"],
            completion_tokens=call["completion_tokens"],
            cached_tokens=call["cached_tokens"],
            reasoning_tokens=call["reasoning_tokens"],
        )
    return Reply(
        text=content["reply"],
        finish_reason=content["finish_reason"],
        refusal=content["refusal"],
        failure=content["failure"],
        error=call["error"],
        body=call["body"],
        usage=usage,
        cost_usd=call["cost_usd"],
        latency_ms=call["latency_ms"],
        attempts=call["attempts"],
        cached=call["cached"],
        speculated=call["speculated"],
    )


def _by_symbol(fractions: Mapping[str, float] | None) -> list[dict[str, Any]] | None:
    if fractions is None:
        return None
    return [{"symbol": symbol, "share": float(fraction)} for symbol, fraction in sorted(fractions.items())]


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
