"""Put together the body of a chat completion that was sent in parts."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_OF_THE_WHOLE: Final = ("id", "created", "model", "system_fingerprint", "service_tier", "usage")


def join_stream(text: str) -> str:
    """Return the body of the completion whose parts a server has sent as events; other text as it is.

    Args:
        text: server-sent events (`data: {...}` lines, HTML Living Standard, section 9.2), as chat completions are
            streamed. Without the last part the result has no choice, so that it counts as unreadable.
    """
    # Not splitlines: an answer may hold other characters that end a line there, such as U+2028.
    data: list[str] = [
        line[5:].strip() for line in _LINE_END.split(text.removeprefix("\ufeff")) if line.startswith("data:")
    ]
    if not data:
        return text
    whole: dict[str, Any] = {"object": "chat.completion"}
    message: dict[str, Any] = {"role": "assistant", "content": None}
    finish, ended = None, False
    for part in data:
        if not part:
            continue
        if part == "[DONE]":
            ended = True
            break
        try:
            chunk = orjson.loads(part)
        except orjson.JSONDecodeError:
            return part
        if not isinstance(chunk, dict) or chunk.get("error"):
            return part
        whole |= {key: chunk[key] for key in _OF_THE_WHOLE if chunk.get(key) is not None}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                continue
            if choice.get("error"):
                return orjson.dumps({"error": choice["error"]}).decode()
            # Some servers send the whole message as the only part.
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                _add(message, delta)
            finish = choice.get("finish_reason") or finish
    if ended or finish is not None:
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    return orjson.dumps(whole).decode()


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for key in ("content", "refusal", "reasoning_content", "reasoning"):
        new, known = delta.get(key), message.get(key)
        if isinstance(new, str) and isinstance(known, list):
            message[key] = [*known, {"type": "text", "text": new}]
        elif isinstance(new, list):
            first = [{"type": "text", "text": known}] if isinstance(known, str) else known or []
            message[key] = [*first, *new]
        elif isinstance(new, str):
            message[key] = (known or "") + new
