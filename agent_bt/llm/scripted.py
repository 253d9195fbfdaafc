"""A model that answers from a script, so that users test their agents and prompts without an endpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from agent_bt.core.errors import ModelError
from agent_bt.core.futures import completed, failed
from agent_bt.core.types import Reply, Request

Script = Iterable[str | Reply] | Callable[[Request], str | Reply]


class ScriptedLLM:
    """Answers each request with the next reply of a list, or with what a function of the request returns.

    A text stands for a complete reply with finish_reason `stop`. `requests` holds what was asked, in order.

        llm = ScriptedLLM(['{"action": "BUY", "size_pct": 0.5}', Reply(failure="timeout")])
        llm = ScriptedLLM(lambda request: '{"action": "HOLD"}')
    """

    def __init__(self, replies: Script) -> None:
        self.requests: list[Request] = []
        self._script = replies if callable(replies) else tuple(replies)
        self._next = threading.Lock()

    def __repr__(self) -> str:
        return f"ScriptedLLM({self._script!r})"

    def submit(self, request: Request) -> Future[Reply]:
        """The reply at once, or the script's exception, in a future."""
        try:
            return completed(self.complete(request))
        except Exception as error:  # the script's own: it belongs to whoever waits for the future
            return failed(error)

    def complete(self, request: Request) -> Reply:
        """The reply.

        Raises:
            ModelError: the script has no further reply.
        """
        with self._next:
            position = len(self.requests)
            self.requests.append(request)
        if callable(self._script):
            reply = self._script(request)
        elif position < len(self._script):
            reply = self._script[position]
        else:
            raise ModelError(
                f"the script has {len(self._script)} replies and was asked for number {position + 1}; "
                "add replies, or give a function of the request"
            )
        return Reply(text=reply, finish_reason="stop") if isinstance(reply, str) else reply

    def close(self) -> None:
        """Nothing to release."""
