"""An LLM that answers from the journal of an earlier part of the run."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from agent_bt.core.futures import completed, result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request


class JournaledLLM:
    """An LLM that answers from the journal of an earlier part of the run, transport failures included."""

    def __init__(self, inner: LLM, replies: Mapping[str, Reply]) -> None:
        self._inner = inner
        self._replies = replies

    def submit(self, request: Request) -> Future[Reply]:
        """The recorded reply, or a new call."""
        recorded = self._replies.get(request.address)
        if recorded is None:
            return self._inner.submit(request)
        return completed(recorded)

    def complete(self, request: Request) -> Reply:
        """The recorded reply, or a new call's."""
        return result_of(self.submit(request))

    def close(self) -> None:
        """Close the layers behind."""
        self._inner.close()
