"""How far ahead to ask: the deepest window whose expected waste stays within what is allowed.

With k requests under way (the needed one and k - 1 ahead) and a share h of guesses that prove right, a round trip
yields D = (1 - h^k) / (1 - h) decisions: the sum of the chances that the first 0, 1, ... k - 1 guesses hold. The other
k - D calls are abandoned; a share r of them fits again later, when the account is back where they were asked for. So a
used call costs (k - D)(1 - r) / (D + (k - D) r) wasted ones.
"""

from __future__ import annotations


def decisions_per_round_trip(hit_rate: float, calls: int) -> float:
    """Expected decisions of one round trip with `calls` requests under way, each guess right with `hit_rate`."""
    if hit_rate >= 1.0:
        return float(calls)
    return float((1.0 - hit_rate**calls) / (1.0 - hit_rate))


def wasted_per_used(hit_rate: float, calls: int, reused: float = 0.0) -> float:
    """Expected wasted calls per used one; `reused`: the share of abandoned calls that fit again later."""
    decisions = decisions_per_round_trip(hit_rate, calls)
    abandoned = calls - decisions
    return abandoned * (1.0 - reused) / (decisions + abandoned * reused)


class HitRate:
    """A share that is observed one case at a time; old cases fade."""

    _MEMORY = 0.998

    def __init__(self, prior: float, weight: float) -> None:
        self._hits, self._seen = prior * weight, weight

    def observe(self, *, hit: bool) -> None:
        """Count one case."""
        self._hits = self._MEMORY * self._hits + hit
        self._seen = self._MEMORY * self._seen + 1.0

    @property
    def value(self) -> float:
        """The share, mostly of the last few hundred cases."""
        return self._hits / self._seen


class DepthControl:
    """Follows how guesses go, and sets the window.

    Attributes:
        hits: share of guesses that proved right.
        reuse: share of calls abandoned with a wrong guess whose reply was needed after all.
        used: calls whose reply became a decision.
        free: nothing is ever wasted (a prompt without the account), or every state met is kept warm: the window is
            filled at every decision, and the hit rate does not matter.
    """

    _WINDOWS = 8
    """Over how many windows of calls that are used a surplus of the allowed waste is spent, or a debt paid back."""

    def __init__(self, *, depth: int, max_waste: float, free: bool = False, lossless: bool = False) -> None:
        """`depth`: most requests ahead; `max_waste`: wasted calls per used one; `lossless`: no guess can be wrong.

        `free` asks for every state to be kept warm; a `max_waste` below 1 has no room for a second one.
        """
        self.hits = HitRate(prior=0.9, weight=10.0)
        self.reuse = HitRate(prior=0.0, weight=30.0)
        self.used = 0
        self.free = lossless or (free and max_waste >= 1.0)
        self._depth = depth
        self._max_waste = max_waste
        self._slack = depth * min(1.0, max_waste)
        self._lossless = lossless

    def tracks(self, most: int) -> int:
        """How many account states to keep warm: each beside the real one costs about one wasted call per used one."""
        return max(1, min(most, 1 + int(self._max_waste)))

    def ahead(self, *, tracks: int, wasted: int) -> int:
        """Requests to have under way ahead of the needed one, on each of so many tracks.

        What chance has saved of the allowed waste is spent later, all but one window's worth.
        """
        if self.free or not self._depth:
            return max(1, self._depth // tracks) if self._depth else 0
        saved = self._max_waste * self.used - wasted - self._slack
        aim = self._max_waste + saved / (self._WINDOWS * self._depth)
        hit_rate, reused = self.hits.value, self.reuse.value
        calls = self._depth + 1
        while calls > 1 and wasted_per_used(hit_rate, calls, reused) > aim:
            calls -= 1
        return calls - 1

    def affords(self, *, outstanding: int, wasted: int, tracks: int = 1, parked: bool = False) -> bool:
        """Whether one more call may be sent and `max_waste` is still kept, whatever becomes of those that are out.

        Of so many tracks that are kept warm, one is the real one: its share of the calls is used. One window of calls
        is allowed beyond the limit, or nothing could ever start; half of that is kept for the real track when a
        `parked` one asks.
        """
        if self._lossless:
            return True
        at_risk = outstanding if tracks == 1 else outstanding * (tracks - 1) / tracks
        slack = 0.5 * self._slack if parked else self._slack
        return wasted + at_risk < self._max_waste * self.used + slack
