"""A guard against an endpoint that keeps failing: many transport failures in a row stop the run."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial

from agent_bt.core.errors import EndpointDown
from agent_bt.core.futures import result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.futures import LinkedFuture, outcome_of, resolve


class FailureGuard:
    """An LLM that fails with `EndpointDown` after `limit` transport failures in a row.

    Calls count in the order in which they end, prefetched ones included; any answer starts the count again, a refusal
    by the budget does not count. The call that reaches the limit fails already, and so does every later one.

    Args:
        inner: makes the calls. Closed with this one.
        limit: the number of failures in a row.
    """

    def __init__(self, inner: LLM, limit: int) -> None:
        self._inner = inner
        self._limit = limit
        self._lock = threading.Lock()
        self._failures: list[Reply] = []

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request, unless the limit has been reached."""
        future = LinkedFuture()
        down = self._down()
        if down is not None:
            resolve(future, down)
            return future
        inner = future.attach(lambda: self._inner.submit(request))
        if inner is not None:
            inner.add_done_callback(partial(self._arrived, future))
        return future

    def complete(self, request: Request) -> Reply:
        """Wait for the reply and return it.

        Raises:
            EndpointDown: too many calls in a row have failed.
        """
        return result_of(self.submit(request))

    def close(self) -> None:
        """Close the layers behind."""
        self._inner.close()

    def _arrived(self, future: LinkedFuture, inner: Future[Reply]) -> None:
        if inner.cancelled():
            future.cancel()
            return
        outcome = outcome_of(inner)
        if isinstance(outcome, Reply) and outcome.failure != "budget":
            with self._lock:
                if outcome.failure is not None:
                    self._failures.append(outcome)
                elif len(self._failures) < self._limit:
                    self._failures.clear()
            if outcome.failure is not None:
                outcome = self._down() or outcome
        resolve(future, outcome)

    def _down(self) -> EndpointDown | None:
        with self._lock:
            if len(self._failures) < self._limit:
                return None
            last = self._failures[-1]
        return EndpointDown(
            f"{self._limit} calls in a row have failed, the last one with {last.failure}"
            f"{f' ({last.error})' if last.error else ''}; the run stops here instead of deciding HOLD from now on."
            " Check the endpoint (llm.base_url) and run the same command again to continue"
            " (risk.max_failures_in_a_row sets the number of failures)"
        )
