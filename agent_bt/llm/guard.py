"""A guard against an endpoint that fails without end: a long unbroken row of transport failures stops the run."""

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
    """An LLM that fails with `EndpointDown` once `limit` calls in a row have failed on the way.

    The row is in the order in which the calls end, calls sent ahead included; any answer breaks it, a refusal by the
    budget does not count. The call that completes the row fails already, and so does everything after it.
    """

    def __init__(self, inner: LLM, limit: int) -> None:
        self._inner = inner
        self._limit = limit
        self._lock = threading.Lock()
        self._row: list[Reply] = []

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request, unless the endpoint has been given up."""
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
        """The reply; waits for it.

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
                    self._row.append(outcome)
                elif len(self._row) < self._limit:
                    self._row.clear()
            if outcome.failure is not None:
                outcome = self._down() or outcome
        resolve(future, outcome)

    def _down(self) -> EndpointDown | None:
        with self._lock:
            if len(self._row) < self._limit:
                return None
            last = self._row[-1]
        return EndpointDown(
            f"{self._limit} calls in a row have failed, the last one with {last.failure}"
            f"{f' ({last.error})' if last.error else ''}; the run stops here instead of deciding HOLD from now on."
            " Check the endpoint (llm.base_url) and run the same command again to continue"
            " (risk.max_failures_in_a_row sets how many are borne)"
        )
