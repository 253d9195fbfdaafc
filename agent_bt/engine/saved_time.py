"""Estimates the waiting time that prefetch saves, compared with the same calls in sequence."""

from __future__ import annotations

import threading
from array import array
from concurrent.futures import Future
from statistics import median
from typing import Any


class SavedTime:
    """Measures calls and waits, and compares them with calls in sequence.

    The latency of concurrent calls overestimates that of sequential ones: a server that queues requests, or divides its
    processors between them, delays each. A call therefore counts the latency of calls in flight alone; as long
    as there is none, that of the fastest concurrent calls and of calls sent while no other was in flight.

    Attributes:
        waited_ms: time that the run has waited for replies, ms.
    """

    def __init__(self) -> None:
        self.waited_ms = 0.0
        self._used = array("d")
        self._alone = array("d")
        self._first = array("d")
        self._lock = threading.Lock()
        self._under_way: set[int] = set()
        self._sole: int | None = None
        self._head: int | None = None
        self._sent = 0
        self._peak = 1

    def follow(self, future: Future[Any]) -> int:
        """Count a call as in flight until its future is done.

        Args:
            future: the future of the call that was just sent.

        Returns:
            A number for `use`.
        """
        with self._lock:
            number = self._sent
            self._sent += 1
            self._sole = None if self._under_way else number
            if not self._under_way:
                self._head = number
            self._under_way.add(number)
            self._peak = max(self._peak, len(self._under_way))
        future.add_done_callback(lambda _: self._end(number))
        return number

    def use(self, number: int, latency_ms: float) -> None:
        """Count a call whose reply became a decision.

        Args:
            number: as returned by `follow`.
            latency_ms: from sending to the reply, ms.
        """
        self._used.append(latency_ms)
        if self._head == number:
            self._first.append(latency_ms)
        if self._sole == number:  # no other call was sent since
            self._alone.append(latency_ms)

    def saved_ms(self) -> float:
        """Return the waiting time saved so far, ms; 0 where sequential calls would have been as fast."""
        if not self._used:
            return 0.0
        if self._alone:
            each = min(median(self._alone), median(self._used))
        else:
            each = sorted(self._used)[len(self._used) // (2 * self._peak)]
            if self._first:
                each = min(each, median(self._first))
        return max(0.0, each * len(self._used) - self.waited_ms)

    def _end(self, number: int) -> None:
        with self._lock:
            self._under_way.discard(number)
