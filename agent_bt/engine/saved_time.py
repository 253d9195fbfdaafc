"""Estimates the waiting time that prefetch saves, against the same calls one after another."""

from __future__ import annotations

import threading
from array import array
from concurrent.futures import Future
from statistics import median
from typing import Any


class SavedTime:
    """Measures calls and waits, and compares them with calls one after another.

    The latency of a call that was sent beside others is no measure of that: a server that queues, or shares its
    processors, holds each of them up. So a call counts what calls take that were under way alone; while there was none,
    what the fastest take that were sent together, and those that nothing was under way before.

    Attributes:
        waited_ms: for how long the run has waited for replies.
    """

    def __init__(self) -> None:
        self.waited_ms = 0.0
        self._used = array("d")
        self._alone = array("d")
        self._first = array("d")
        self._lock = threading.Lock()
        self._under_way: set[int] = set()
        self._lonely: int | None = None
        self._head: int | None = None
        self._sent = 0
        self._peak = 1

    def follow(self, future: Future[Any]) -> int:
        """Count a call as under way until its future is done.

        Args:
            future: of the call that was just sent.

        Returns:
            A number for `use`.
        """
        with self._lock:
            number = self._sent
            self._sent += 1
            self._lonely = None if self._under_way else number
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
        if self._lonely == number:  # nothing was sent since
            self._alone.append(latency_ms)

    def saved_ms(self) -> float:
        """Return the waiting time saved so far, ms; 0 where one after another would have been as fast."""
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
