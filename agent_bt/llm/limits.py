"""What is believed of an endpoint's limits: how many calls it takes at once, and how many per second."""

from __future__ import annotations

from collections import deque

_INFINITE = float("inf")
_MODEST = 4
_NEAR = 0.9
_SLACK = 0.97
_STEP = 1.05
_HORIZON_S = 2.0
_CATCH_UP_S = 0.02


class Patience:
    """How many answers to wait for before a little more is tried; learns from how trials go."""

    def __init__(self) -> None:
        self._answers = 16
        self._seen = 0

    def failed(self) -> None:
        """A trial was refused: wait twice as long for the next."""
        self._answers, self._seen = min(2 * self._answers, 1024), 0

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
        self._most = float(most)
        self._proven = 1
        self._refused_at = _INFINITE
        self._before: tuple[float, float] | None = None
        self._patience = Patience()

    def taken(self, level: int) -> None:
        """A call was answered that was the `level`-th under way."""
        self._proven = max(self._proven, level)
        self._before = None

    def blames(self, level: int) -> bool:
        """Whether the refusal of the `level`-th call under way is about the window: nothing as wide was ever taken.

        If something as wide was, it is believed a little less from now on, in case the limit has come down.
        """
        if level > self._proven:
            return True
        self._proven = max(1, level - 1)
        return False

    def narrow(self, level: int) -> None:
        """The `level`-th call under way was one too many."""
        self._before = self.size, self._refused_at
        self.size, self._refused_at = float(level - 1), float(level)
        self._patience.failed()

    def restore(self) -> None:
        """The window was blamed wrongly just now: the endpoint refuses narrower ones as well."""
        if self._before is not None:
            self.size, self._refused_at = self._before
            self._before = None

    def try_more(self) -> None:
        """Count one answer that came while callers waited for a wider window."""
        if self._refused_at == _INFINITE:
            self._widen(0.5)
        elif self._patience.ended(near=self.size >= _NEAR * self._refused_at - 1):
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
        self._starts: deque[float] = deque(maxlen=8192)
        self._patience = Patience()

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
        if not self._failed:
            self._failed = True
            self._patience.failed()
        while self._starts and self._starts[0] < since - _HORIZON_S:
            self._starts.popleft()
        span_s = now - self._starts[0] if self._starts else 0.0
        taken_per_s = len(self._starts) / span_s if span_s > 0 else 1 / _HORIZON_S
        self._refused_at = min(self._before, taken_per_s)
        self.per_s = _SLACK * self._refused_at

    def try_more(self) -> None:
        """Count one answer that came while callers waited for their turn."""
        if self._patience.ended(near=_NEAR * self._refused_at <= self.per_s <= 1.2 * self._refused_at):
            self.per_s *= _STEP
