"""Estimates of an endpoint's limits: how many calls it accepts at once, and how many per second."""

from __future__ import annotations

from collections import deque

_INFINITE = float("inf")
_FIRST_WINDOW = 4
_NEAR = 0.9
_MARGIN = 0.97
_SMALL_STEP = 1.05
_LARGE_STEP = 1.2
_HORIZON_S = 2.0
_CATCH_UP_S = 0.02


class IncreaseBackoff:
    """How many answers to wait for before a limit is raised again; grows with every increase that was refused."""

    def __init__(self) -> None:
        self._answers = 16
        self._seen = 0
        self._failures = 0

    def record_failure(self) -> None:
        """Double the wait: an increase was refused."""
        self._answers, self._seen = min(2 * self._answers, 1024), 0
        self._failures += 1

    def record_cost(self, calls: float) -> None:
        """Wait at least ten times as long as the last refused increase has cost, in `calls` that were not made.

        So refused increases cost a few per cent of the throughput at most.
        """
        if self._failures > 1:
            self._answers = int(min(max(self._answers, 10 * calls), 4096))

    def count_answer(self, *, near: bool) -> bool:
        """Count one answer; return whether it is time for an increase.

        Args:
            near: whether the limit is near the value that was refused; far from it, increases come faster and faster.
        """
        self._seen += 1
        if self._seen < self._answers:
            return False
        self._seen = 0
        if not near:
            self._answers = max(self._answers // 2, 4)
        return True


class ConcurrencyWindow:
    """The number of calls that may be in flight together.

    Args:
        most: upper limit of the window.

    Attributes:
        size: the number; its fraction is the progress towards the next whole call.
        backoff: how long to wait for the next increase.
    """

    def __init__(self, most: int) -> None:
        self.size = float(min(_FIRST_WINDOW, most))
        self.backoff = IncreaseBackoff()
        self._most = float(most)
        self._refused_at = _INFINITE
        self._before: tuple[float, float] | None = None

    @property
    def limited(self) -> bool:
        """Whether a limit has been met."""
        return self._refused_at < _INFINITE

    def narrow(self, level: int) -> None:
        """Reduce the window below `level`: the call that was the `level`-th in flight was refused."""
        self._before = self.size, self._refused_at
        self._refused_at = min(float(level), self.size)
        self.size = max(1.0, self._refused_at - 1)

    def restore(self) -> None:
        """Undo the last `narrow`: the endpoint refuses calls in the smaller window too."""
        if self._before is not None:
            self.size, self._refused_at = self._before
            self._before = None

    def confirm(self) -> bool:
        """Keep the last `narrow`: a call in the smaller window was accepted. Return False if there was none."""
        if self._before is None:
            return False
        self._before = None
        self.backoff.record_failure()
        return True

    def grow(self) -> None:
        """Count one answer that came while callers waited for a larger window, and widen it when it is time."""
        if self._refused_at == _INFINITE:
            self._widen(0.5)
        elif self.backoff.count_answer(near=_NEAR * self._refused_at - 1 <= self.size <= self._refused_at):
            self._widen(1.0)

    def _widen(self, by: float) -> None:
        self.size = min(self.size + by, self._most)


class RequestRate:
    """The number of calls that may start per second, spread evenly.

    Attributes:
        per_s: the number; infinite where no such limit was met.
        next_start: when the next call may start, on the clock of the event loop, in seconds.
        backoff: how long to wait for the next increase.
    """

    def __init__(self) -> None:
        self.per_s = _INFINITE
        self.next_start = 0.0
        self.backoff = IncreaseBackoff()
        self._before = _INFINITE
        self._refused_at = _INFINITE
        self._failed = False
        self._changed = 0.0
        self._starts: deque[float] = deque(maxlen=8192)

    def record_start(self, now: float) -> None:
        """Count a call that starts."""
        self._starts.append(now)
        if self.per_s < _INFINITE:
            self.next_start = max(self.next_start, now - _CATCH_UP_S) + 1 / self.per_s

    def record_refusal(self, started: float) -> None:
        """Remove the call that started then from the accepted ones: it was refused."""
        if started in self._starts:
            self._starts.remove(started)

    def begin_episode(self) -> None:
        """Remember the rate at a first refusal; others may follow before the next answer."""
        self._before = self.per_s
        self._failed = False

    def slow_down(self, *, since: float, now: float) -> None:
        """Reduce the rate to what was accepted from shortly before the refusals began until now.

        Args:
            since: when the refusals began, in seconds.
            now: the current time, in seconds.
        """
        while self._starts and self._starts[0] < since - _HORIZON_S:
            self._starts.popleft()
        span_s = now - self._starts[0] if self._starts else 0.0
        accepted_per_s = len(self._starts) / span_s if span_s > 0 else 1 / _HORIZON_S
        if not self._failed:
            self._failed = True
            self.backoff.record_failure()
            if self._is_near(self._before):
                # A small step too far: what was accepted is measured less exactly than that.
                accepted_per_s = max(accepted_per_s, 0.98 * self._before)
        self._refused_at = min(self._before, accepted_per_s)
        self.per_s = _MARGIN * self._refused_at
        self._changed = now

    def grow(self, now: float) -> None:
        """Count one answer that came while callers waited for the rate, and raise it when it is time."""
        near = self._is_near(self.per_s)
        # A limit per second does not show sooner than after a second.
        if self.backoff.count_answer(near=near) and now - self._changed >= 1.0:
            self.per_s *= _SMALL_STEP if near else _LARGE_STEP
            self._changed = now

    def _is_near(self, per_s: float) -> bool:
        return _NEAR * self._refused_at <= per_s <= 1.1 * self._refused_at < _INFINITE
