"""Parse the replies of rankers: a weight for each symbol, or a hold with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import fsum
from typing import Any, Final

from agent_bt.agents.reply import MAX_NOTE_CHARS, Strip, check_note, read_answer, show
from agent_bt.core.types import MODEL, Provenance, Reply

RANK_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "weights": {
            "type": "array",
            "description": "Each symbol at most once; what is left out is sold. [] sells everything.",
            "items": {
                "type": "object",
                "properties": {
                    "symbol": {"type": "string", "description": "As in the table."},
                    "weight": {
                        "type": "number",
                        "minimum": -1,
                        "maximum": 1,
                        "description": "Share of the equity; 0.1 is a tenth. The absolute weights add up to at most 1.",
                    },
                },
                "required": ["symbol", "weight"],
                "additionalProperties": False,
            },
        },
        "note": {"type": "string", "maxLength": MAX_NOTE_CHARS, "description": "Why, in a few words."},
    },
    "required": ["weights"],
    "additionalProperties": False,
}
"""JSON Schema (Draft 2020-12) of a ranker's reply; `check_shape` is the same in plain code.

A list, not an object with the symbols as keys: strict modes of endpoints need every key named beforehand. Its texts are
part of every prompt that was sent, and so of the addresses of cached replies.
"""

MOST: Final = 1.0 + 1e-9
"""Largest sum of the absolute weights: 1, and a tolerance for decimal fractions in binary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedWeights:
    """The content of a ranker's reply.

    Attributes:
        weights: the weight of each symbol it names; None where the reply is not valid.
        note: the model's note.
        provenance: whether the weights are the model's, and if not, why.
        detail: what is wrong with an invalid reply, in words.
    """

    weights: Mapping[str, float] | None = None
    note: str = ""
    provenance: Provenance = MODEL
    detail: str = ""


def parse_weights(
    reply: Reply, *, symbols: Collection[str], allow_short: bool = False, strip: Strip = "none"
) -> ParsedWeights:
    """Validate a ranker's reply; never raises, and a reply that is not exactly valid has no weights.

    Args:
        reply: what came back for the request.
        symbols: those that the prompt showed; any other is invalid.
        allow_short: whether weights may be negative.
        strip: the declared repairs, as for `reply.parse_reply`.

    Example:
        >>> from agent_bt.agents.rank_reply import parse_weights
        >>> from agent_bt.core.types import Reply
        >>> reply = Reply(text='{"weights": [{"symbol": "BTCUSDT", "weight": 0.6}]}', finish_reason="stop")
        >>> parse_weights(reply, symbols=["BTCUSDT", "ETHUSDT"]).weights
        {'BTCUSDT': 0.6}
        >>> parse_weights(reply, symbols=["ETHUSDT"]).detail
        '"BTCUSDT" is not a symbol of the table'
    """

    def check(value: Any) -> str | None:
        return check_shape(value) or check_weights(value["weights"], symbols=symbols, allow_short=allow_short)

    answer = read_answer(reply, check, strip=strip)
    if answer.value is None:
        return ParsedWeights(provenance=answer.provenance, detail=answer.detail)
    weights = {each["symbol"]: each["weight"] + 0.0 for each in answer.value["weights"]}  # -0.0 + 0.0 is 0.0
    return ParsedWeights(weights=weights, note=answer.value.get("note", ""), provenance=answer.provenance)


def check_shape(value: Any) -> str | None:
    """Return what violates `RANK_SCHEMA` in a decoded JSON value, in words; None: nothing."""
    if not isinstance(value, dict):
        return f"the reply must be an object, got {show(value)}"
    if not isinstance(value.get("weights"), list):
        return f"weights must be a list, got {show(value['weights']) if 'weights' in value else 'none'}"
    for key, member in value.items():
        if key == "note" and (fault := check_note(member)) is not None:
            return fault
        if key not in ("weights", "note"):
            return f"the key {show(key)} is not allowed"
    return next((fault for each in value["weights"] if (fault := _check_one(each)) is not None), None)


def check_weights(weights: list[dict[str, Any]], *, symbols: Collection[str], allow_short: bool) -> str | None:
    """Return what is wrong with weights of the right shape, in words; None: nothing.

    Args:
        weights: `symbol` and `weight` each.
        symbols: those that the prompt showed.
        allow_short: whether weights may be negative.
    """
    seen: set[str] = set()
    for each in weights:
        symbol, weight = each["symbol"], each["weight"]
        if symbol not in symbols:
            return f"{show(symbol)} is not a symbol of the table"
        if symbol in seen:
            return f"{symbol} is given twice"
        if weight < 0 and not allow_short:
            return f"the weight of {symbol} is {weight:g}, and short positions are not allowed"
        seen.add(symbol)
    total = fsum(abs(each["weight"]) for each in weights)
    return f"the absolute weights add up to {total:.6g}, at most 1 is allowed" if total > MOST else None


def _check_one(each: Any) -> str | None:
    if not isinstance(each, dict) or each.keys() != {"symbol", "weight"}:
        return f"an entry of weights must be an object with symbol and weight, got {show(each)}"
    if not isinstance(each["symbol"], str):
        return f"symbol must be text, got {show(each['symbol'])}"
    weight = each["weight"]
    if type(weight) not in (float, int) or not -1 <= weight <= 1:
        return f"the weight of {show(each['symbol'])} must be a number from -1 to 1, got {show(weight)}"
    return None
