"""The cache as a layer: answers from the store, sends what is missing once, and keeps a reply before handing it on.

1. A request that is in flight already is joined: both callers get the one reply.
2. A stored reply is returned at once, marked `cached`.
3. Anything else goes to the layer behind; its answer is durable in the store before any caller sees it. A transport
   failure is handed on and not stored.
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
from agent_bt.llm.speculation import Urgency, current_urgency, urged

logger = logging.getLogger(__name__)


class _Flight:
    """One call under way and those who wait for its reply."""

    __slots__ = ("guessed", "inner", "leaving", "request", "urgency", "waiters")

    def __init__(self, request: Request, urgency: Urgency) -> None:
        self.request = request
        self.urgency = urgency
        self.guessed = urgency.speculative
        self.waiters: list[_Waiter] = []
        self.leaving: _Waiter | None = None
        self.inner: Future[Reply] | None = None


class _Waiter(Future[Reply]):
    """One caller's future; cancelling it fails when it is the last one waiting for a call that has been sent."""

    def __init__(self, withdraw: Callable[[_Waiter], bool]) -> None:
        super().__init__()
        self._withdraw = withdraw

    def cancel(self) -> bool:
        return super().cancel() if self._withdraw(self) else False


class CachedLLM:
    """An LLM whose replies come from `store` where they can.

    Two callers of one request share one call; the first to be served gets the reply, the others get it marked
    `cached`. Cancelling a future succeeds when the call has not been sent, or others wait for it too. A call that was
    sent is paid for, so its reply is stored whoever waits.

    Args:
        inner: answers what the store does not have. Closed with this one.
        store: stays open; it belongs to whoever opened it.
        ledger: told what each hit of a demand has saved. (Hits of calls sent ahead are counted where they are used.)
    """

    def __init__(self, inner: LLM, store: ReplyStore, ledger: Ledger | None = None) -> None:
        self._inner = inner
        self._ledger = ledger
        self._store = store
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}

    def submit(self, request: Request) -> Future[Reply]:
        """The stored reply, the one that is under way, or a new call."""
        urgency = current_urgency()
        with self._lock:
            flight = self._flights.get(request.address)
            # Read under the lock: between two looks a reply could land in the store, and be asked for once more.
            entry = None if flight is not None else self._store.get(request)
            if entry is not None:
                logger.debug("cache hit %.12s", request.address)
                if self._ledger is not None and not urgency.speculative:
                    self._ledger.save(entry.reply)
                return completed(entry.reply)
            new = flight is None
            flight = flight or self._flights.setdefault(request.address, _Flight(request, urgency))
            if not urgency.speculative:
                flight.urgency.speculative = False
            waiter = _Waiter(partial(self._withdraw, flight))
            flight.waiters.append(waiter)
        if new:
            logger.debug("cache miss %.12s%s", request.address, ", sent ahead" if urgency.speculative else "")
            self._send(flight)
        return waiter

    def complete(self, request: Request) -> Reply:
        """The reply; waits for it."""
        return result_of(self.submit(request))

    def close(self) -> None:
        """Close the layers behind; the store stays open."""
        self._inner.close()

    def _send(self, flight: _Flight) -> None:
        try:
            with urged(flight.urgency):
                inner = self._inner.submit(flight.request)
        except Exception as error:
            self._land(flight, error)
            return
        with self._lock:
            flight.inner = inner
        inner.add_done_callback(partial(self._arrived, flight))

    def _withdraw(self, flight: _Flight, waiter: _Waiter) -> bool:
        """Take one caller off a flight, the flight with the last one; False when its call can't be taken back."""
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
            self._called_off(flight)
            return
        outcome = outcome_of(inner)
        if isinstance(outcome, BaseException) or outcome.failure is not None:
            if flight.guessed and not flight.urgency.speculative and isinstance(outcome, Reply):
                # Sent ahead on a guess, needed by now: its failure must not become a decision.
                flight.guessed = False
                self._send(flight)
                return
            self._land(flight, outcome)
            return
        entry = Entry(request=flight.request, reply=outcome, obtained_at=time.time_ns() // 1000)
        try:
            stored = self._store.put(entry)
        except Exception as error:  # this runs as a callback, where nobody would see it
            self._land(flight, error)
        else:
            stored.add_done_callback(partial(self._stored, flight))

    def _called_off(self, flight: _Flight) -> None:
        with self._lock:
            if flight.leaving in flight.waiters:
                flight.waiters.remove(flight.leaving)
            flight.inner = flight.leaving = None
            if not flight.waiters:
                del self._flights[flight.request.address]
                return
        # Somebody joined while the last one was leaving.
        self._send(flight)

    def _stored(self, flight: _Flight, stored: Future[Entry]) -> None:
        error = stored.exception()
        self._land(flight, stored.result().reply if error is None else error)

    def _land(self, flight: _Flight, outcome: Reply | BaseException) -> None:
        with self._lock:
            del self._flights[flight.request.address]
            waiters, flight.waiters = flight.waiters, []
        for waiter in waiters:
            if resolve(waiter, outcome) and isinstance(outcome, Reply) and outcome.failure is None:
                outcome = replace(outcome, cached=True)
