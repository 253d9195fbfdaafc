"""Answer requests from the journal of an earlier part of the run."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from agent_bt.core.futures import completed, result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request


class JournaledLLM:
    """An LLM that answers from the journal of an earlier part of the run, transport failures included.

    Args:
        inner: gets the requests that the journal has no reply to. Closed with this one.
        replies: recorded replies by the address of their request.
    """

    def __init__(self, inner: LLM, replies: Mapping[str, Reply]) -> None:
        self._inner = inner
        self._replies = replies

    def submit(self, request: Request) -> Future[Reply]:
        """Return the recorded reply, or send the request."""
        recorded = self._replies.get(request.address)
        if recorded is None:
            return self._inner.submit(request)
        return completed(recorded)

    def complete(self, request: Request) -> Reply:
        """Return the recorded reply, or the one of a new call."""
        return result_of(self.submit(request))

    def close(self) -> None:
        """Close the layers behind."""
        self._inner.close()
