"""A model with scripted replies, to test agents and prompts without an endpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from agent_bt.core.errors import ModelError
from agent_bt.core.futures import completed, failed
from agent_bt.core.types import Reply, Request

Script = Iterable[str | Reply] | Callable[[Request], str | Reply]


class ScriptedLLM:
    """An `LLM` that answers each request with the next reply of a list, or with the result of a function.

    Args:
        replies: replies in their order, or a function from a `Request` to a reply. A text stands for a complete reply
            with finish_reason `stop`.

    Attributes:
        requests: the requests that were sent, in their order.

    Example:
        >>> from agent_bt.core.types import Reply, Request
        >>> from agent_bt.llm.scripted import ScriptedLLM
        >>> llm = ScriptedLLM(['{"action": "BUY", "size_pct": 0.5}', Reply(failure="timeout")])
        >>> messages = [{"role": "user", "content": "BTCUSDT at 60,000: what now?"}]
        >>> request = Request(provider="test", endpoint_id="local", body={"model": "m", "messages": messages})
        >>> llm.complete(request).text
        '{"action": "BUY", "size_pct": 0.5}'
        >>> llm.submit(request).result().failure
        'timeout'
        >>> [sent.messages[0]["content"] for sent in llm.requests]
        ['BTCUSDT at 60,000: what now?', 'BTCUSDT at 60,000: what now?']
        >>> ScriptedLLM(lambda request: '{"action": "HOLD"}').complete(request).text
        '{"action": "HOLD"}'
    """

    def __init__(self, replies: Script) -> None:
        self.requests: list[Request] = []
        self._script = replies if callable(replies) else tuple(replies)
        self._next = threading.Lock()

    def __repr__(self) -> str:
        return f"ScriptedLLM({self._script!r})"

    def submit(self, request: Request) -> Future[Reply]:
        """Return a future that holds the reply already, or the exception of the script."""
        try:
            return completed(self.complete(request))
        except Exception as error:  # the script's own: it belongs to the caller who waits for the future
            return failed(error)

    def complete(self, request: Request) -> Reply:
        """Return the next reply.

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
                f"the script has {len(self._script)} replies, and request number {position + 1} was sent; "
                "add replies, or give a function of the request"
            )
        return Reply(text=reply, finish_reason="stop") if isinstance(reply, str) else reply

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
