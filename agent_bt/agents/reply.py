"""Parse a model's reply: an action, or a HOLD with the reason; nothing outside the schema is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NoReturn

from agent_bt.core.types import MODEL, Provenance, ProvenanceKind, Reply
from agent_bt.llm.chat_response import read_reasoning

ReplyAction = Literal["BUY", "SELL", "HOLD"]
Strip = Literal["none", "code_fence", "think", "both"]
InvalidReason = Literal[
    "not_json",
    "schema",
    "duplicate_key",
    "not_finite",
    "truncated",
    "refused",
    "empty",
    "too_long",
    "tool_call",
    "unknown_finish",
]

ACTIONS: Final = ("BUY", "SELL", "HOLD")
MAX_NOTE_CHARS: Final = 2_000
MAX_REPLY_CHARS: Final = 32_768
"""Longest answer that is parsed, after declared repairs; a note of 2,000 characters, all escaped, fits."""

REPLY_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "action": {"type": "string", "enum": list(ACTIONS)},
        "size_pct": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Share between 0 and 1; 0.5 is one half. Required unless the action is HOLD.",
        },
        "note": {"type": "string", "maxLength": MAX_NOTE_CHARS, "description": "Why, in a few words."},
    },
    "required": ["action"],
    "additionalProperties": False,
    "if": {"properties": {"action": {"const": "HOLD"}}},
    "else": {"required": ["size_pct"]},
}
"""JSON Schema (Draft 2020-12) of a reply of any size; `check` is the same in plain code.

Its texts are part of every prompt that was sent, and so of the addresses of cached replies.
"""


def reply_schema(sizes: Sequence[float] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a reply.

    Args:
        sizes: the values that `size_pct` may have, each in (0, 1]; empty: any number from 0 to 1. Servers that turn
            a schema into a grammar ignore `minimum` and `maximum`, and enforce an enumeration.

    Returns:
        `REPLY_SCHEMA`, with `size_pct` enumerated where there are sizes.
    """
    if not sizes:
        return REPLY_SCHEMA
    allowed = plain_sizes(sizes)
    size = {
        "type": "number",
        "enum": allowed,
        "description": f"One of {', '.join(map(str, allowed))}. Required unless the action is HOLD.",
    }
    return {**REPLY_SCHEMA, "properties": {**REPLY_SCHEMA["properties"], "size_pct": size}}


def plain_sizes(sizes: Sequence[float]) -> list[float]:
    """Return the sizes as they are written: `1`, not `1.0`."""
    return [int(size) if float(size).is_integer() else float(size) for size in sizes]


MAX_DEPTH: Final = 100

_JSON_SPACE: Final = " \t\n\r"
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)

_FINISH: Final[dict[str, InvalidReason]] = {
    "length": "truncated",
    "max_tokens": "truncated",
    "model_length": "truncated",
    "content_filter": "refused",
    "safety": "refused",
    "refusal": "refused",
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "tool_use": "tool_call",
}
# A JSON object that was cut off never parses, so a missing finish reason hides nothing.
_COMPLETE: Final = (None, "stop", "eos", "eos_token", "end_turn", "stop_sequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedReply:
    """The content of a reply.

    Attributes:
        action: BUY, SELL or HOLD; HOLD where `provenance` is not `model`.
        size: the size in [0, 1] as the model gave it; None where a HOLD gives none.
        note: the model's note.
        provenance: whether the action is the model's, and if not, why.
        detail: what is wrong with an invalid reply, in words.
    """

    action: ReplyAction = "HOLD"
    size: float | None = None
    note: str = ""
    provenance: Provenance = MODEL
    detail: str = ""

    @property
    def valid(self) -> bool:
        """Return whether the action comes from the model."""
        return self.provenance.kind == "model"


class _Invalid(ValueError):
    def __init__(self, reason: InvalidReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: InvalidReason = reason


def parse_reply(reply: Reply, *, strip: Strip = "none", sizes: Sequence[float] = ()) -> ParsedReply:
    """Validate a reply; never raises, and a reply that is not exactly valid is a HOLD.

    The first fault gives the reason, in this order: transport failure, finish reason and refusal, empty text, length,
    JSON (syntax, repeated keys, numbers that are not finite), schema. White space around the object is allowed; -0.0
    is 0.

    Args:
        reply: what came back for the request.
        strip: the declared repairs: remove one code fence around the whole text, one think block in front of it.
        sizes: the values that `size_pct` may have; empty: any number from 0 to 1.

    Example:
        >>> from agent_bt.agents.reply import parse_reply
        >>> from agent_bt.core.types import Reply
        >>> parsed = parse_reply(Reply(text='{"action": "BUY", "size_pct": 0.5}', finish_reason="stop"))
        >>> parsed.action, parsed.size, parsed.valid
        ('BUY', 0.5, True)
        >>> parsed = parse_reply(Reply(text='{"action": "BUY", "size_pct": 50}', finish_reason="stop"))
        >>> parsed.action, parsed.provenance.reason, parsed.detail
        ('HOLD', 'schema', 'size_pct must be a number from 0 to 1, got 50.0')
    """
    answer = read_answer(reply, partial(check, sizes=sizes), strip=strip)
    if answer.value is None:
        return ParsedReply(provenance=answer.provenance, detail=answer.detail)
    size = answer.value.get("size_pct")
    return ParsedReply(
        action=answer.value["action"],
        size=None if size is None else size + 0.0,  # -0.0 + 0.0 is 0.0
        note=answer.value.get("note", ""),
        provenance=answer.provenance,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The JSON object of a reply.

    Attributes:
        value: the object; None where the reply is not valid.
        provenance: whether the object is the model's, and if not, why.
        detail: what is wrong with an invalid reply, in words.
    """

    value: Mapping[str, Any] | None
    provenance: Provenance = MODEL
    detail: str = ""


def read_answer(reply: Reply, check: Callable[[Any], str | None], *, strip: Strip = "none") -> Answer:
    """Return the validated JSON object of a reply; never raises. Faults and repairs as for `parse_reply`.

    Args:
        reply: what came back for the request.
        check: the schema in plain code: returns what is wrong with a decoded value, in words, or None.
        strip: the declared repairs.
    """
    if reply.failure is not None:
        kind: ProvenanceKind = "budget" if reply.failure == "budget" else "transport"
        return Answer(value=None, provenance=Provenance(kind=kind, reason=reply.failure), detail=reply.error or "")
    repaired = ""
    try:
        _check_finish(reply)
        text, repaired = _repair(reply.text or "", strip)
        value = _decode(text)
        fault = check(value)
        if fault is not None:
            raise _Invalid("schema", fault)
    except _Invalid as error:
        provenance = Provenance(kind="invalid", reason=error.reason, repaired=repaired)
        about = _describe_reasoning(reply, check) if error.reason == "empty" else ""
        return Answer(value=None, provenance=provenance, detail=f"{error}{about}")
    return Answer(value=value, provenance=Provenance(repaired=repaired) if repaired else MODEL)


def check(value: Any, sizes: Sequence[float] = ()) -> str | None:
    """Return what is wrong with a decoded JSON value against `reply_schema(sizes)`, in words; None: nothing.

    Args:
        value: the decoded reply.
        sizes: the values that `size_pct` may have; empty: any number from 0 to 1.
    """
    if not isinstance(value, dict):
        return f"the reply must be an object, got {show(value)}"
    action = value.get("action")
    if action not in ACTIONS:
        return f"action must be BUY, SELL or HOLD, got {show(action) if 'action' in value else 'none'}"
    for key, member in value.items():
        if key == "size_pct":
            if (fault := _check_size(member, sizes)) is not None:
                return fault
        elif key == "note":
            if (fault := check_note(member)) is not None:
                return fault
        elif key != "action":
            return f"the key {show(key)} is not allowed"
    if action != "HOLD" and "size_pct" not in value:
        return f"{action} needs size_pct"
    return None


def _check_size(size: Any, sizes: Sequence[float]) -> str | None:
    is_number = type(size) in (float, int)
    if sizes and not (is_number and size in sizes):
        return f"size_pct must be one of {', '.join(map(str, plain_sizes(sizes)))}, got {show(size)}"
    if not (is_number and 0 <= size <= 1):
        return f"size_pct must be a number from 0 to 1, got {show(size)}"
    return None


def check_note(note: Any) -> str | None:
    """Return what is wrong with the note of a reply, in words; None: nothing."""
    if not isinstance(note, str):
        return f"note must be text, got {show(note)}"
    if len(note) > MAX_NOTE_CHARS:
        return f"note has {len(note):,} characters, at most {MAX_NOTE_CHARS:,} are allowed"
    return None


def _describe_reasoning(reply: Reply, check: Callable[[Any], str | None]) -> str:
    """Say what stands in the reasoning of a reply without an answer; empty where there is none."""
    reasoning = read_reasoning(reply.body)
    if not reasoning:
        return ""
    try:
        answered = check(_decode(reasoning.strip(_JSON_SPACE))) is None
    except _Invalid:
        answered = False
    advice = "the answer stands there: set the server's reasoning format" if answered else "raise llm.max_tokens"
    return f", beside {len(reasoning):,} characters of reasoning; {advice}, or turn reasoning off"


def _check_finish(reply: Reply) -> None:
    if reply.refusal:
        raise _Invalid("refused", f"the model refused: {show(reply.refusal)}")
    finish = reply.finish_reason and reply.finish_reason.lower()
    if finish in _COMPLETE:
        return
    reason = _FINISH.get(finish or "", "unknown_finish")
    hint = "; raise llm.max_tokens" if reason == "truncated" else ""
    raise _Invalid(reason, f"the reply ended with finish_reason {show(reply.finish_reason)}{hint}")


def _repair(text: str, strip: Strip) -> tuple[str, str]:
    text = text.strip(_JSON_SPACE)
    done = []
    if strip in ("think", "both"):
        # Some chat templates put the opening tag into the prompt, so that only the closing one comes back.
        end = -1 if text.startswith("{") else text.find("</think>")
        if end >= 0:
            text, done = text[end + len("</think>") :].strip(_JSON_SPACE), ["think"]
    if strip in ("code_fence", "both") and len(text) >= 6 and text.startswith("```") and text.endswith("```"):
        inner = text[3:-3]
        text = (inner[4:] if inner[:4].lower() == "json" else inner).strip(_JSON_SPACE)
        done.append("code_fence")
    return text, "both" if len(done) == 2 else "".join(done)


def _decode(text: str) -> Any:
    if not text:
        raise _Invalid("empty", "the reply has no text")
    if len(text) > MAX_REPLY_CHARS:
        raise _Invalid("too_long", f"the reply has {len(text):,} characters, at most {MAX_REPLY_CHARS:,} are read")
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise _Invalid("schema", f"the reply is nested more than {MAX_DEPTH} levels deep")
    try:
        value = _DECODER.decode(text)
    except _Invalid:
        raise
    except json.JSONDecodeError as error:
        raise _Invalid("not_json", f"{error.msg} at character {error.pos}{_hint(text)}") from None
    if "\\u" in text or not text.isascii():
        _check_characters(value)
    return value


def _depth(text: str) -> int:
    # Counted here, not by the decoder: its depth limit depends on the Python version and the stack.
    depth = deepest = 0
    for token in _BRACKETS.findall(text):
        depth += 1 if token in "{[" else -1 if token in "}]" else 0
        deepest = max(deepest, depth)
    return deepest


def _check_characters(value: Any) -> None:
    # An unpaired surrogate is half a character: it cannot be encoded as UTF-8, so it cannot be recorded.
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Invalid("not_json", "the reply holds an unpaired surrogate, which is not a character") from None


def _hint(text: str) -> str:
    if text.startswith("```"):
        return "; the text is in a code fence, which llm.strip: code_fence removes"
    if text.startswith("<think>") and "</think>" in text:
        return "; the text starts with a think block, which llm.strip: think removes"
    return ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Invalid("duplicate_key", f"the key {show(next(n for n in names if names.count(n) > 1))} is given twice")
    return value


def _number(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise _Invalid("not_finite", f"the number {show(text)} is too large")
    return value


def _constant(text: str) -> NoReturn:
    raise _Invalid("not_finite", f"{text} is not a number")


def show(value: Any) -> str:
    """Return a JSON value for a message, a long one shortened."""
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


# Integers become floats: a number of a million digits then costs nothing and is simply too large.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_int=_number, parse_constant=_constant)
