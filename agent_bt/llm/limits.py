"""What is believed of an endpoint's limits: how many calls it takes at once, and how many per second."""

from __future__ import annotations

from collections import deque

_INFINITE = float("inf")
_MODEST = 4
_NEAR = 0.9
_SLACK = 0.97
_STEP = 1.05
_STRIDE = 1.2
_HORIZON_S = 2.0
_CATCH_UP_S = 0.02


class Patience:
    """How many answers to wait for before a little more is tried; learns from how trials go."""

    def __init__(self) -> None:
        self._answers = 16
        self._seen = 0
        self._failures = 0

    def failed(self) -> None:
        """A trial was refused: wait twice as long for the next."""
        self._answers, self._seen = min(2 * self._answers, 1024), 0
        self._failures += 1

    def cost(self, calls: float) -> None:
        """What the last refused trial has cost, in calls that were not made. Trials may cost a few per cent in all."""
        if self._failures > 1:
            self._answers = int(min(max(self._answers, 10 * calls), 4096))

    def ended(self, *, near: bool) -> bool:
        """Count one answer; True when it is time for a trial. Not near what was refused they come ever faster."""
        self._seen += 1
        if self._seen < self._answers:
            return False
        self._seen = 0
        if not near:
            self._answers = max(self._answers // 2, 4)
        return True


class Window:
    """How many calls are let be under way together, up to `most`.

    Attributes:
        size: the number, whole calls and the part of the next one that growth has come to.
    """

    def __init__(self, most: int) -> None:
        self.size = float(min(_MODEST, most))
        self.patience = Patience()
        self._most = float(most)
        self._refused_at = _INFINITE
        self._before: tuple[float, float] | None = None

    @property
    def limited(self) -> bool:
        """Whether a limit has been met."""
        return self._refused_at < _INFINITE

    def narrow(self, level: int) -> None:
        """The `level`-th call under way was one too many."""
        self._before = self.size, self._refused_at
        self._refused_at = min(float(level), self.size)
        self.size = max(1.0, self._refused_at - 1)

    def restore(self) -> None:
        """The window was blamed wrongly just now: the endpoint refuses narrower ones as well."""
        if self._before is not None:
            self.size, self._refused_at = self._before
            self._before = None

    def settle(self) -> bool:
        """A narrower window is taken: that was it. False when the window was not in question."""
        if self._before is None:
            return False
        self._before = None
        self.patience.failed()
        return True

    def try_more(self) -> None:
        """Count one answer that came while callers waited for a wider window."""
        if self._refused_at == _INFINITE:
            self._widen(0.5)
        elif self.patience.ended(near=_NEAR * self._refused_at - 1 <= self.size <= self._refused_at):
            self._widen(1.0)

    def _widen(self, by: float) -> None:
        self.size = min(self.size + by, self._most)


class Pace:
    """How many calls may start per second, spread evenly.

    Attributes:
        per_s: the number; infinite where no such limit was met.
        next_start: when the next call may start.
    """

    def __init__(self) -> None:
        self.per_s = _INFINITE
        self.next_start = 0.0
        self._before = _INFINITE
        self._refused_at = _INFINITE
        self._failed = False
        self._changed = 0.0
        self._starts: deque[float] = deque(maxlen=8192)
        self.patience = Patience()

    def started(self, now: float) -> None:
        """A call starts."""
        self._starts.append(now)
        if self.per_s < _INFINITE:
            self.next_start = max(self.next_start, now - _CATCH_UP_S) + 1 / self.per_s

    def not_taken(self, started: float) -> None:
        """The call that started then was refused."""
        if started in self._starts:
            self._starts.remove(started)

    def begin_episode(self) -> None:
        """A first refusal has come; others may follow before the next answer."""
        self._before = self.per_s
        self._failed = False

    def slow_down(self, *, since: float, now: float) -> None:
        """Go back to what was taken from shortly before the refusals began (`since`) until now."""
        while self._starts and self._starts[0] < since - _HORIZON_S:
            self._starts.popleft()
        span_s = now - self._starts[0] if self._starts else 0.0
        taken_per_s = len(self._starts) / span_s if span_s > 0 else 1 / _HORIZON_S
        if not self._failed:
            self._failed = True
            self.patience.failed()
            if self._near(self._before):
                # A small step too far: what was taken is measured less exactly than that.
                taken_per_s = max(taken_per_s, 0.98 * self._before)
        self._refused_at = min(self._before, taken_per_s)
        self.per_s = _SLACK * self._refused_at
        self._changed = now

    def try_more(self, now: float) -> None:
        """Count one answer that came while callers waited for their turn."""
        near = self._near(self.per_s)
        # A limit per second does not show sooner than after a second.
        if self.patience.ended(near=near) and now - self._changed >= 1.0:
            self.per_s *= _STEP if near else _STRIDE
            self._changed = now

    def _near(self, per_s: float) -> bool:
        return _NEAR * self._refused_at <= per_s <= 1.1 * self._refused_at < _INFINITE
