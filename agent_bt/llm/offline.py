"""Answer from the store alone, without a socket; a miss shows how the prompt differs from the nearest stored one."""

from __future__ import annotations

import difflib
import json
from concurrent.futures import Future
from typing import Any, Literal

from agent_bt.core.errors import ReplayError
from agent_bt.core.futures import completed, failed
from agent_bt.core.types import Reply, Request
from agent_bt.llm.cache_entry import Entry
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.priority import current_priority

_SEARCHED = 20_000
_SHOWN_LINES = 40
_SHOWN_CHARS = 160


class OfflineLLM:
    """An LLM with nothing behind the store.

    Args:
        store: stays open; its opener closes it.
        on_miss: `error`: the future fails with a ReplayError. `hold`: the reply has `failure="offline_miss"`.
    """

    def __init__(self, store: ReplyStore, on_miss: Literal["error", "hold"] = "error") -> None:
        self._store = store
        self._on_miss = on_miss

    def submit(self, request: Request) -> Future[Reply]:
        """Return the future of the stored reply, or of the miss."""
        entry = self._store.get(request)
        if entry is not None:
            return completed(entry.reply)
        if self._on_miss == "hold":
            return completed(Reply(failure="offline_miss", error="no stored reply", attempts=0))
        if current_priority().speculative:
            # This request may never be needed: the search for the nearest one waits until it is.
            return failed(ReplayError("no stored reply to a prefetched request"))
        return failed(ReplayError(describe_miss(request, self._store)))

    def complete(self, request: Request) -> Reply:
        """Return the stored reply.

        Raises:
            ReplayError: there is none.
        """
        return self.submit(request).result()

    def close(self) -> None:
        """Do nothing: the store stays open."""


def describe_miss(request: Request, store: ReplyStore) -> str:
    """Return what is missing and how the request differs from the nearest stored one, in a few lines.

    Args:
        request: the one without a stored reply.
        store: where it was looked up.
    """
    model = request.body.get("model")
    head = f"no stored reply to the request {request.address[:12]} of model {model!r}"
    nearest = find_nearest(request, store)
    if nearest is None:
        stored = ", ".join(sorted({row.model for row in store.stats()}))
        holds = f"it has replies of {stored}" if stored else "it is empty"
        return (
            f"{head}; {store.path} holds none that resembles it ({holds}). Run the same command without --offline to"
            " send requests to the model, or bring the replies in with `agent-bt cache import`"
        )
    lines = difference(nearest.request, request)
    if len(lines) > _SHOWN_LINES:
        lines = [*lines[:_SHOWN_LINES], f"... and {len(lines) - _SHOWN_LINES} more lines"]
    shown = "\n".join(f"  {line if len(line) <= _SHOWN_CHARS else line[:_SHOWN_CHARS] + ' ...'}" for line in lines)
    return f"{head}. The nearest stored request is {nearest.request.address[:12]}; - stored, + requested now:\n{shown}"


def find_nearest(request: Request, store: ReplyStore) -> Entry | None:
    """Return the stored entry whose messages have most words in common with the request's; None without a candidate.

    The same messages with other parameters come first, then entries of the same model, those with the same first
    message (the stable part of the prompt) before the rest.

    Args:
        request: what entries are compared with.
        store: where they are.
    """
    words = _words(request)
    best, best_score = None, -1.0
    for entry in store.candidates(request, _SEARCHED):
        if entry.request.messages == request.messages:
            score = 2.0 + (entry.request.body == request.body)
        else:
            other = _words(entry.request)
            score = len(words & other) / max(len(words | other), 1)
        if score > best_score:
            best, best_score = entry, score
    return best


def difference(stored: Request, requested: Request) -> list[str]:
    """Return lines `- stored` and `+ requested` of everything that differs: parameters first, then the messages.

    Args:
        stored: a stored request.
        requested: the request without a stored reply.
    """
    lines = []
    before, after = _parameters(stored), _parameters(requested)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            lines += [f"- {key}: {_short(before, key)}", f"+ {key}: {_short(after, key)}"]
    old, new = stored.messages, requested.messages
    for at in range(max(len(old), len(new))):
        one, other = (old[at] if at < len(old) else {}), (new[at] if at < len(new) else {})
        if one == other:
            continue
        lines.append(f"message {at + 1} ({other.get('role') or one.get('role')}):")
        changes = difflib.unified_diff(_lines(one), _lines(other), lineterm="", n=0)
        lines += [f"{line[0]} {line[1:]}" for line in changes if not line.startswith(("---", "+++", "@@"))]
    return lines


def _parameters(request: Request) -> dict[str, Any]:
    own = {"provider": request.provider, "endpoint_id": request.endpoint_id, "replicate": request.replicate}
    return own | {key: value for key, value in request.body.items() if key != "messages"}


def _short(parameters: dict[str, Any], key: str) -> str:
    return json.dumps(parameters[key], ensure_ascii=False, sort_keys=True) if key in parameters else "(none)"


def _words(request: Request) -> set[str]:
    return {word for message in request.messages for word in str(message.get("content", "")).split()}


def _lines(message: dict[str, str]) -> list[str]:
    return str(message.get("content", "")).splitlines()
