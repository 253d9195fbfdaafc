"""How far ahead to ask: the deepest window whose expected waste stays within what is allowed.

With k requests under way (the needed one and k - 1 ahead) and a share h of guesses that prove right, a round trip
yields (1 - h^k) / (1 - h) decisions: the sum of the chances that the first 0, 1, ... k - 1 guesses hold.
"""

from __future__ import annotations


def decisions_per_round_trip(hit_rate: float, calls: int) -> float:
    """Expected decisions of one round trip with `calls` requests under way, each guess right with `hit_rate`."""
    if hit_rate >= 1.0:
        return float(calls)
    return float((1.0 - hit_rate**calls) / (1.0 - hit_rate))


class DepthControl:
    """Follows the hit rate and sets the window.

    Attributes:
        used: calls whose reply became a decision.
        free: nothing is ever wasted (a prompt without the account), or every state met is kept warm: the window is
            filled at every decision, and the hit rate does not matter.
    """

    _PRIOR_RATE, _PRIOR_WEIGHT, _MEMORY = 0.9, 10.0, 0.99

    def __init__(self, *, depth: int, max_waste: float, free: bool = False, lossless: bool = False) -> None:
        """`depth`: most requests ahead; `max_waste`: wasted calls per used one; `lossless`: no guess can be wrong."""
        self.used = 0
        self.free = free or lossless
        self._depth = depth
        self._max_waste = max_waste
        self._lossless = lossless
        self._hits = self._PRIOR_RATE * self._PRIOR_WEIGHT
        self._seen = self._PRIOR_WEIGHT

    @property
    def hit_rate(self) -> float:
        """The recent share of guesses that proved right."""
        return self._hits / self._seen

    def observe(self, *, hit: bool) -> None:
        """A request was needed that a guess had been made for; did the guess hold?"""
        self._hits = self._MEMORY * self._hits + hit
        self._seen = self._MEMORY * self._seen + 1.0

    def ahead(self, tracks: int) -> int:
        """Requests to have under way ahead of the needed one, on each of so many tracks."""
        if self.free:
            return max(1, self._depth // max(1, tracks))
        calls = self._depth + 1
        while calls > 1 and calls / decisions_per_round_trip(self.hit_rate, calls) - 1.0 > self._max_waste:
            calls -= 1
        return calls - 1

    def affords(self, *, outstanding: int, wasted: int) -> bool:
        """Whether one more call may be sent: were all that is out wasted, `max_waste` would still be kept.

        One window of calls is allowed beyond that, or nothing could ever start.
        """
        if self._lossless:
            return True
        slack = self._depth * min(1.0, self._max_waste)
        return wasted + outstanding < self._max_waste * self.used + slack
