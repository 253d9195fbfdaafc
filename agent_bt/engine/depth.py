"""The prefetch depth: the largest number of requests ahead whose expected waste stays within its limit.

With k requests in flight (the needed one and k - 1 ahead) and a fraction h of correct guesses, a round trip yields
D = (1 - h^k) / (1 - h) decisions: the sum of the probabilities that the first 0, 1, ... k - 1 guesses are correct. The
other k - D calls are abandoned; a fraction r of them is used later, when the account returns to the state for which
they were sent. So each used call costs (k - D)(1 - r) / (D + (k - D) r) wasted ones.
"""

from __future__ import annotations


def decisions_per_round_trip(hit_rate: float, calls: int) -> float:
    """Return the expected number of decisions of one round trip.

    Args:
        hit_rate: probability that a guess is correct.
        calls: requests in flight, the needed one included.
    """
    if hit_rate >= 1.0:
        return float(calls)
    return float((1.0 - hit_rate**calls) / (1.0 - hit_rate))


def wasted_per_used(hit_rate: float, calls: int, reused: float = 0.0) -> float:
    """Return the expected number of wasted calls per used one.

    Args:
        hit_rate: probability that a guess is correct.
        calls: requests in flight, the needed one included.
        reused: fraction of the abandoned calls that are used later.
    """
    decisions = decisions_per_round_trip(hit_rate, calls)
    abandoned = calls - decisions
    return abandoned * (1.0 - reused) / (decisions + abandoned * reused)


class HitRate:
    """A hit rate observed one case at a time, weighted to the recent ones."""

    _MEMORY = 0.998

    def __init__(self, prior: float, weight: float) -> None:
        self._hits, self._seen = prior * weight, weight

    def observe(self, *, hit: bool) -> None:
        """Count one case."""
        self._hits = self._MEMORY * self._hits + hit
        self._seen = self._MEMORY * self._seen + 1.0

    @property
    def value(self) -> float:
        """Return the hit rate, mostly of the last few hundred cases."""
        return self._hits / self._seen


class DepthControl:
    """The control of the prefetch depth, from the hit rate of the guesses so far.

    Attributes:
        hits: hit rate of the guesses.
        reuse: fraction of the calls abandoned after a wrong guess whose reply was needed later.
        used: calls whose reply became a decision.
        free: nothing is ever wasted (a prompt without the account), or the requests of every account state are kept
            ready: the full depth is used at every decision, whatever the hit rate.
    """

    _WINDOWS = 8
    """Number of full depths of used calls over which unused allowed waste is spent, or excess waste made up for."""

    def __init__(self, *, depth: int, max_waste: float, free: bool = False, lossless: bool = False) -> None:
        """Start with the prior hit rate.

        Args:
            depth: most requests ahead.
            max_waste: most wasted calls per used one.
            free: keep the requests of every account state ready; needs a `max_waste` of at least 1.
            lossless: no guess can be wrong.
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
        """Return the number of account states, at most `most`, to keep requests ready for.

        Each state beside the real one costs about one wasted call per used one.
        """
        return max(1, min(most, 1 + int(self._max_waste)))

    def ahead(self, *, tracks: int, wasted: int) -> int:
        """Return the number of requests to have in flight ahead of the needed one, on each track.

        Allowed waste that was not used is spent later, all but that of one full depth.

        Args:
            tracks: account states that are followed.
            wasted: calls wasted so far.
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
        """Return whether one more call may be sent without passing `max_waste`, even if all calls in flight are wasted.

        Calls of the real account's track are used, so only those of the others are at risk. One full depth beyond the
        limit is allowed, or nothing could ever start; half of it is reserved for the real track.

        Args:
            outstanding: calls in flight.
            wasted: calls wasted so far.
            tracks: account states that are followed.
            parked: whether the call is for a track other than the real account's.
        """
        if self._lossless:
            return True
        at_risk = outstanding if tracks == 1 else outstanding * (tracks - 1) / tracks
        slack = 0.5 * self._slack if parked else self._slack
        return wasted + at_risk < self._max_waste * self.used + slack
