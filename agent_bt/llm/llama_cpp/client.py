"""An LLM whose server is started with the first request, watched, and ended when the LLM is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, Protocol

from agent_bt.core.errors import AgentBtError, EndpointDown, RequestRejected
from agent_bt.core.futures import result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.chat_response import ParameterRefused
from agent_bt.llm.futures import LinkedFuture, outcome_of, resolve

_END_WITHIN_S: Final = 1.0


class Server(Protocol):
    """A server that was started: `LlamaServer`, or one of a test."""

    address: str

    def death(self, within_s: float = 0.0) -> str | None:
        """Return how it ended, waiting up to `within_s` seconds for that; None while it runs."""
        ...

    def stop(self) -> None:
        """End it; idempotent."""
        ...


class LlamaCppLLM:
    """Sends requests to a server of its own; a run whose replies are all in the cache starts none.

    Args:
        name: what the model is called in messages.
        start: starts the server; called once, with the first request.
        connect: makes the client of an address that ends in `/v1`.
    """

    def __init__(self, *, name: str, start: Callable[[], Server], connect: Callable[[str], LLM]) -> None:
        self._name = name
        self._start = start
        self._connect = connect
        self._starting = threading.Lock()
        self._server: Server | None = None
        self._client: LLM | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"LlamaCppLLM(name={self._name!r})"

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request; the first one waits here until the server has loaded the model.

        Raises:
            ConfigError: the server cannot be started as it is configured.
            EndpointDown: the server did not start, or the LLM is closed.
        """
        client = self._opened()
        future = LinkedFuture()
        inner = future.attach(lambda: client.submit(request))
        if inner is not None:
            inner.add_done_callback(partial(self._arrived, future))
        return future

    def complete(self, request: Request) -> Reply:
        """Send the request and wait for its reply.

        Raises:
            ModelError: the server did not start or has ended, or refuses the request.
        """
        return result_of(self.submit(request))

    def close(self) -> None:
        """Give up what is under way and end the server; idempotent."""
        with self._starting:
            self._closed = True
            client, server = self._client, self._server
        try:
            if client is not None:
                client.close()
        finally:
            if server is not None:
                server.stop()

    def _opened(self) -> LLM:
        with self._starting:
            if self._closed:
                raise EndpointDown(f"the client of {self._name} is closed")
            if self._client is None:
                self._server = self._start()
                self._client = self._connect(f"{self._server.address}/v1")
            return self._client

    def _arrived(self, future: LinkedFuture, inner: Future[Reply]) -> None:
        if inner.cancelled():
            future.cancel()
            return
        resolve(future, self._explain(outcome_of(inner)))

    def _explain(self, outcome: Reply | BaseException) -> Reply | BaseException:
        """Replace what went wrong by what it means here: a server that has ended answers nothing any more."""
        if isinstance(outcome, ParameterRefused) and "context size" in outcome.reason:
            return RequestRejected(
                f"the prompt does not fit into the context of {self._name} ({outcome.reason}); raise "
                "llm.server.context, or show less: features.window"
            )
        failed = outcome.failure is not None if isinstance(outcome, Reply) else isinstance(outcome, AgentBtError)
        # A connection breaks a moment before the process has ended.
        broken = isinstance(outcome, Reply) and outcome.failure == "connection"
        watched = failed and self._server is not None and not self._closed
        death = self._server.death(_END_WITHIN_S if broken else 0.0) if watched and self._server else None
        if death is None:
            return outcome
        return EndpointDown(
            f"the server of {self._name} has ended ({death}); the same command starts it again and continues the run"
        )
