"""Read the `x-ratelimit-*` headers: how many calls an endpoint still accepts, and until when."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|d|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH_S = 1e9
_EPOCH_MS = 1e11
_LONGEST_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What an endpoint still accepts until its limit is reset.

    Attributes:
        left: calls or tokens.
        reset_s: seconds until the reset.
    """

    left: float
    reset_s: float


def requests_left(headers: Mapping[str, str]) -> Quota | None:
    """Return the calls that are left, or None where the headers don't say."""
    return _quota(headers, "-requests") or _quota(headers, "")


def tokens_left(headers: Mapping[str, str]) -> Quota | None:
    """Return the tokens that are left, or None where the headers don't say."""
    return _quota(headers, "-tokens")


def reset_s(text: str) -> float | None:
    """Return the seconds of a reset time: `6m0s`, `20ms`, `1.5` (seconds), or an instant since 1970, in s or ms."""
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or "".join(f"{value}{unit}" for value, unit in parts) != text.replace(" ", ""):
            return None
        return sum(float(value) * _SECONDS[unit] for value, unit in parts)
    if number >= _EPOCH_S:
        number = number / (1000 if number >= _EPOCH_MS else 1) - time.time()
    return number if 0 <= number < float("inf") else None


def _quota(headers: Mapping[str, str], kind: str) -> Quota | None:
    left, reset = headers.get(f"x-ratelimit-remaining{kind}"), headers.get(f"x-ratelimit-reset{kind}")
    if left is None or reset is None:
        return None
    try:
        count = float(left)
    except ValueError:
        return None
    seconds = reset_s(reset)
    return None if seconds is None or not count >= 0 else Quota(left=count, reset_s=seconds)


class RemainingQuota:
    """The number of calls that the headers of the latest call still allow, and until when that holds."""

    def __init__(self) -> None:
        self._calls = float("inf")
        self._until = 0.0
        self._number = -1
        self._tokens: float | None = None
        self._tokens_per_call = 0.0

    def next_start(self, now: float) -> float:
        """Return when the next call may start; `now` and the result in seconds of the event loop's clock."""
        return self._until if self._calls < 1 and now < self._until else now

    def use(self) -> None:
        """Count one call that starts."""
        self._calls -= 1

    def update(self, headers: Mapping[str, str], *, number: int, now: float, later: int) -> None:
        """Read the headers of a response.

        Args:
            headers: of the response.
            number: of the call, counted from the first one; headers of earlier calls than the latest are ignored.
            now: the current time, in seconds of the event loop's clock.
            later: calls in flight that have started after this one.
        """
        calls, tokens = requests_left(headers), tokens_left(headers)
        if number < self._number or (calls is None and tokens is None):
            return
        self._number = number
        bounds = [] if calls is None else [(calls.left - later, calls.reset_s)]
        if tokens is not None:
            if self._tokens is not None and self._tokens > tokens.left:
                self._tokens_per_call = max(self._tokens - tokens.left, 0.9 * self._tokens_per_call)
            self._tokens = tokens.left
            bounds.append((tokens.left / max(self._tokens_per_call, 1.0) - later, tokens.reset_s))
        self._calls, reset = min(bounds)
        self._until = now + min(reset, _LONGEST_S)
