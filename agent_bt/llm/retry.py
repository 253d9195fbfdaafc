"""Repeat failed attempts as a layer, after an exponential wait with jitter, or as long as the server asks.

The layer lies above the budget, so that each attempt is one call there: reserved before it is sent, and settled with
what it cost.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

from agent_bt.core.errors import EndpointDown
from agent_bt.core.futures import result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.futures import LinkedFuture, outcome_of, resolve
from agent_bt.llm.priority import Priority, current_priority, use_priority
from agent_bt.llm.rate_headers import reset_s

logger = logging.getLogger(__name__)

BACKOFF_S = 0.5
"""Scale of the wait before the first retry, in seconds; doubled for each further one."""

MAX_WAIT_S = 60.0
"""Longest wait before one attempt; a server that asks for more is asked again after this."""

LONG_WAIT_S = 10.0
"""A wait longer than this is logged as a warning, which the command line shows."""

_FINAL = ("budget", "offline_miss")
"""Failures of requests that were not sent on purpose."""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `Retry-After` ask to wait (RFC 9110, section 10.2.3).

    Args:
        headers: of the response; lookups must ignore the case of names. Besides seconds and dates, `7s`, `1m30s`, an
            instant since 1970 and ISO 8601 are read.

    Returns:
        Seconds; None: nothing was asked, or it cannot be read.
    """
    try:
        wait_s = float(headers["retry-after-ms"]) * 0.001
        if 0 <= wait_s < float("inf"):
            return wait_s
    except (KeyError, ValueError):
        pass
    text = headers.get("retry-after", "")
    wait = reset_s(text)
    if wait is not None:
        return wait
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            when = parse(text)
        except (ValueError, TypeError):
            continue
        # A date without a zone, or with `-0000`, is UTC, not the time of this machine.
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time())
    return None


def compute_wait_s(attempts: int, asked_s: float | None, backoff_s: float = BACKOFF_S) -> float:
    """Return how long to wait before the next attempt.

    A random time between one half of `backoff_s` x 2^(attempts - 1) and all of it, or what the server asked for and up
    to a tenth more, so that waiting callers do not return all at once; never more than `MAX_WAIT_S`.

    Args:
        attempts: how many have failed.
        asked_s: what the server asked for, in seconds; None: it did not ask.
        backoff_s: scale of the wait, in seconds.

    Returns:
        Seconds.
    """
    if asked_s is not None:
        return min(asked_s * random.uniform(1.0, 1.1), MAX_WAIT_S)
    return min(backoff_s * 2.0 ** min(attempts - 1, 60), MAX_WAIT_S) * random.uniform(0.5, 1.0)


class _Call:
    """A request with the attempts made so far; `sent` are those that reached the endpoint."""

    __slots__ = ("attempts", "future", "priority", "request", "sent", "timer")

    def __init__(self, request: Request, priority: Priority) -> None:
        self.request = request
        self.priority = priority
        self.future = LinkedFuture()
        self.attempts = self.sent = 0
        self.timer: threading.Timer | None = None


class RetryLLM:
    """An LLM that repeats an attempt with a transport failure; the last one is returned, failed or not.

    `attempts` of a reply counts those that were sent. A future can be cancelled until an attempt is sent.

    Args:
        inner: makes single attempts. Closed with this one.
        retries: attempts after the first, by request.
        backoff_s: scale of the wait, in seconds; see `compute_wait_s`.
    """

    def __init__(self, inner: LLM, retries: Callable[[Request], int], backoff_s: float = BACKOFF_S) -> None:
        self._inner = inner
        self._retries = retries
        self._backoff_s = backoff_s
        self._lock = threading.Lock()
        self._waiting: set[_Call] = set()
        self._stopped = False
        self._shown_until = 0.0

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request and return its future at once."""
        call = _Call(request, current_priority())
        self._send(call)
        return call.future

    def complete(self, request: Request) -> Reply:
        """Send the request and wait for its reply."""
        return result_of(self.submit(request))

    def stop(self) -> None:
        """Give up the calls that wait for their next attempt: they end with `EndpointDown`. Idempotent."""
        with self._lock:
            self._stopped = True
            waiting, self._waiting = self._waiting, set()
        for call in waiting:
            assert call.timer is not None
            call.timer.cancel()
            resolve(call.future, _closed(call.request))

    def close(self) -> None:
        """Give up waiting calls, and close the layers behind; idempotent."""
        self.stop()
        self._inner.close()

    def _send(self, call: _Call) -> None:
        def send() -> Future[Reply]:
            with use_priority(call.priority):
                return self._inner.submit(call.request)

        inner = call.future.attach(send)
        if inner is not None:
            inner.add_done_callback(partial(self._arrived, call))

    def _arrived(self, call: _Call, inner: Future[Reply]) -> None:
        if inner.cancelled():
            call.future.cancel()
            return
        outcome = outcome_of(inner)
        if isinstance(outcome, Reply):
            call.attempts += 1
            call.sent += outcome.attempts
            if outcome.failure not in (None, *_FINAL) and call.attempts <= self._retries(call.request):
                self._wait(call, outcome)
                return
            outcome = replace(outcome, attempts=call.sent)
        resolve(call.future, outcome)

    def _wait(self, call: _Call, failed: Reply) -> None:
        wait_s = compute_wait_s(call.attempts, failed.retry_after_s, self._backoff_s)
        logger.log(
            logging.WARNING if self._is_worth_showing(wait_s) else logging.INFO,
            "attempt %d at %s failed (%s: %s); the next in %.3g s",
            *(call.attempts, call.request.endpoint_id, failed.failure, failed.error, wait_s),
        )
        call.timer = threading.Timer(wait_s, self._again, (call,))
        call.timer.daemon = True
        with self._lock:
            if not self._stopped:
                self._waiting.add(call)
                call.timer.start()
                return
        resolve(call.future, _closed(call.request))

    def _is_worth_showing(self, wait_s: float) -> bool:
        """Return whether a wait is long, and no other call waits that long already."""
        now = time.monotonic()
        with self._lock:
            if wait_s <= LONG_WAIT_S or now < self._shown_until:
                return False
            self._shown_until = now + wait_s
        return True

    def _again(self, call: _Call) -> None:
        with self._lock:
            if call not in self._waiting:
                return
            self._waiting.remove(call)
        try:
            self._send(call)
        except Exception as error:  # any exception belongs to the caller who waits for the future
            resolve(call.future, error)


def _closed(request: Request) -> EndpointDown:
    return EndpointDown(f"the client of {request.endpoint_id} was closed while a call waited for its next attempt")
