"""The cache as a layer: answers from the store, sends a missing request once, and stores a reply before returning it.

1. A request that is in flight already is joined: both callers get the same reply.
2. A stored reply is returned at once, marked `cached`.
3. Any other request goes to the layer behind; its reply is durable in the store before a caller gets it. A transport
   failure is returned and not stored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from agent_bt.core.futures import completed, result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.cache_entry import Entry
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.futures import outcome_of, resolve
from agent_bt.llm.ledger import Ledger
from agent_bt.llm.priority import Priority, current_priority, use_priority

logger = logging.getLogger(__name__)


class _Flight:
    """A call in flight and the callers that wait for its reply."""

    __slots__ = ("guessed", "inner", "leaving", "priority", "request", "waiters")

    def __init__(self, request: Request, priority: Priority) -> None:
        self.request = request
        self.priority = priority
        self.guessed = priority.speculative
        self.waiters: list[_Waiter] = []
        self.leaving: _Waiter | None = None
        self.inner: Future[Reply] | None = None


class _Waiter(Future[Reply]):
    """The future of one caller; it cannot be cancelled where it is the last one of a call that has been sent."""

    def __init__(self, withdraw: Callable[[_Waiter], bool]) -> None:
        super().__init__()
        self._withdraw = withdraw

    def cancel(self) -> bool:
        return super().cancel() if self._withdraw(self) else False


class CachedLLM:
    """An LLM whose replies come from `store` where it has them.

    Callers of the same request share one call; the first one gets the reply, the others get it marked `cached`. A
    future can be cancelled while the call has not been sent, or while others wait for it too. A call that was sent is
    paid for, so its reply is stored whether or not a caller still waits.

    Args:
        inner: gets the requests that the store has no reply to. Closed with this one.
        store: stays open; its opener closes it.
        ledger: records what each cache hit of a needed call has saved. (Hits of prefetched calls are counted where
            they are used.)
    """

    def __init__(self, inner: LLM, store: ReplyStore, ledger: Ledger | None = None) -> None:
        self._inner = inner
        self._ledger = ledger
        self._store = store
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}

    def submit(self, request: Request) -> Future[Reply]:
        """Return the future of the stored reply, of the call in flight, or of a new call."""
        priority = current_priority()
        with self._lock:
            flight = self._flights.get(request.address)
            # Read under the lock: else a reply could be stored between the two checks, and be requested once more.
            entry = None if flight is not None else self._store.get(request)
            if entry is not None:
                logger.debug("cache hit %.12s", request.address)
                if self._ledger is not None and not priority.speculative:
                    self._ledger.save(entry.reply)
                return completed(entry.reply)
            new = flight is None
            flight = flight or self._flights.setdefault(request.address, _Flight(request, priority))
            if not priority.speculative:
                flight.priority.speculative = False
            waiter = _Waiter(partial(self._withdraw, flight))
            flight.waiters.append(waiter)
        if new:
            logger.debug("cache miss %.12s%s", request.address, ", prefetch" if priority.speculative else "")
            self._send(flight)
        return waiter

    def complete(self, request: Request) -> Reply:
        """Wait for the reply and return it."""
        return result_of(self.submit(request))

    def close(self) -> None:
        """Close the layers behind; the store stays open."""
        self._inner.close()

    def _send(self, flight: _Flight) -> None:
        try:
            with use_priority(flight.priority):
                inner = self._inner.submit(flight.request)
        except Exception as error:
            self._deliver(flight, error)
            return
        with self._lock:
            flight.inner = inner
        inner.add_done_callback(partial(self._arrived, flight))

    def _withdraw(self, flight: _Flight, waiter: _Waiter) -> bool:
        """Remove a caller from a flight, and cancel the call with the last one; return False where that fails."""
        with self._lock:
            if waiter not in flight.waiters:
                return waiter.cancelled()
            if len(flight.waiters) > 1:
                flight.waiters.remove(waiter)
                return True
            if flight.inner is None:
                return False
            inner, flight.leaving = flight.inner, waiter
        if inner.cancel():
            return True
        with self._lock:
            flight.leaving = None
        return False

    def _arrived(self, flight: _Flight, inner: Future[Reply]) -> None:
        if inner.cancelled():
            self._cancelled(flight)
            return
        outcome = outcome_of(inner)
        if isinstance(outcome, BaseException) or outcome.failure is not None:
            if flight.guessed and not flight.priority.speculative and isinstance(outcome, Reply):
                # Prefetched on a guess, needed by now: its failure must not become a decision.
                flight.guessed = False
                self._send(flight)
                return
            self._deliver(flight, outcome)
            return
        entry = Entry(request=flight.request, reply=outcome, obtained_at=time.time_ns() // 1000)
        try:
            stored = self._store.put(entry)
        except Exception as error:  # this runs as a callback, which would hide it
            self._deliver(flight, error)
        else:
            stored.add_done_callback(partial(self._stored, flight))

    def _cancelled(self, flight: _Flight) -> None:
        with self._lock:
            if flight.leaving in flight.waiters:
                flight.waiters.remove(flight.leaving)
            flight.inner = flight.leaving = None
            if not flight.waiters:
                del self._flights[flight.request.address]
                return
        # A caller joined while the last one was leaving.
        self._send(flight)

    def _stored(self, flight: _Flight, stored: Future[Entry]) -> None:
        error = stored.exception()
        self._deliver(flight, stored.result().reply if error is None else error)

    def _deliver(self, flight: _Flight, outcome: Reply | BaseException) -> None:
        with self._lock:
            del self._flights[flight.request.address]
            waiters, flight.waiters = flight.waiters, []
        for waiter in waiters:
            if resolve(waiter, outcome) and isinstance(outcome, Reply) and outcome.failure is None:
                outcome = replace(outcome, cached=True)
