"""An adaptive limiter in front of an endpoint with unknown rate limits: as many calls as it accepts, few refused.

Endpoints limit how many calls may be in flight (here: the window) or how many may start per second (the rate), and a
429 does not say which. Both are estimated from what is answered and what is refused:

1. The window starts small and grows with every answer while callers wait for it, until the first 429.
2. A first 429 is put down to the window, unless calls were waiting for the rate: the window becomes one less than the
   number of calls in flight (`ConcurrencyWindow.narrow`). If the next call is accepted, that was the cause.
3. If the next call is refused as well, the cause was the rate: the window is restored, and calls start no faster than
   they were accepted recently (`RequestRate.slow_down`); until one is answered the endpoint is tested with single
   calls, after pauses that double.
4. A known limit is raised a little from time to time, and less often while that is refused (`IncreaseBackoff`).
5. `Retry-After`, and a quota that `x-ratelimit-*` headers report as used up, delay all calls.

5xx and timeouts say nothing about limits. Replies that do not come from the network do not pass the limiter.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_bt.llm.limits import ConcurrencyWindow, RequestRate
from agent_bt.llm.priority import Priority, current_priority
from agent_bt.llm.rate_headers import RemainingQuota
from agent_bt.llm.retry import LONG_WAIT_S, retry_after_s

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 15.0
_LONGEST_RETRY_AFTER_S = 900.0


@dataclass(slots=True, eq=False)
class _Caller:
    """A caller that waits or is in flight: its start, its position among the calls in flight, the 429s before it."""

    task: asyncio.Task[Any] | None
    admitted: asyncio.Future[None]
    priority: Priority
    number: int = 0
    started: float = 0.0
    level: int = 0
    epoch: int = 0


class AdaptiveLimiter:
    """Admits calls as fast as an endpoint accepts them; for callers on one event loop.

    Needed calls go before speculative ones; a speculative call that is needed by now counts as needed.

    Args:
        max_in_flight: upper limit of calls in flight, whatever the endpoint accepts.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._window = ConcurrencyWindow(max_in_flight)
        self._rate = RequestRate()
        self._quota = RemainingQuota()
        self._waiting: list[_Caller] = []
        self._under_way: list[_Caller] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._hold_until = 0.0
        self._spread_until = 0.0
        self._held_by_rate = False
        self._latency_s = 0.0
        self._refusal_s = 0.0
        self._epoch = 0
        self._refused_from: float | None = None
        self._testing = False
        self._pause_s = _FIRST_PAUSE_S

    @property
    def in_flight(self) -> int:
        """Calls in flight."""
        return len(self._under_way)

    @property
    def window(self) -> int:
        """The number of calls that may be in flight together at present."""
        return int(self._window.size)

    @property
    def rate(self) -> float:
        """The number of calls that may start per second at present; infinite where no such limit was met."""
        return self._rate.per_s

    async def acquire(self) -> None:
        """Wait until one call may be sent; `release` follows in the same task."""
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        caller = _Caller(asyncio.current_task(), admitted, current_priority())
        self._waiting.append(caller)
        self._dispatch()
        try:
            await admitted
        except asyncio.CancelledError:
            (self._waiting if caller in self._waiting else self._under_way).remove(caller)
            self._dispatch()
            raise

    def release(self, status: int | None, headers: Mapping[str, str]) -> None:
        """Report how a call ended.

        Args:
            status: its HTTP status; None: no response came.
            headers: of the response; lookups must ignore the case of names.
        """
        now = _now()
        caller = self._leave(refused=status == 429)
        asked_s = retry_after_s(headers)
        if asked_s is not None:
            if status != 429 and asked_s > LONG_WAIT_S and now + asked_s > self._hold_until:
                logger.warning("the endpoint asks to wait %.3g s; no call is sent until then", asked_s)
            self._hold_until = max(self._hold_until, now + min(asked_s, _LONGEST_RETRY_AFTER_S))
        later = sum(one.number > caller.number for one in self._under_way)
        self._quota.update(headers, number=caller.number, now=now, later=later)
        if status == 429:
            self._refused(caller, now)
            logger.log(
                logging.WARNING if asked_s is not None and asked_s > LONG_WAIT_S else logging.INFO,
                "HTTP 429: from now on at most %d calls in flight and %.3g calls/s%s",
                *(self.window, self.rate, "" if asked_s is None else f"; the server asks to wait {asked_s:.3g} s"),
            )
        elif status is not None and status < 500:
            self._answered(caller, now)
        self._dispatch()

    def _leave(self, *, refused: bool) -> _Caller:
        task = asyncio.current_task()
        caller = next((one for one in self._under_way if one.task is task), self._under_way[0])
        self._under_way.remove(caller)
        if refused:
            for one in self._under_way:
                one.level -= one.number > caller.number
        return caller

    def _dispatch(self) -> None:
        """Admit the callers that may go now; if only time is missing, look again when it has passed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            now = _now()
            if len(self._under_way) >= self.window:
                self._held_by_rate = False
                return
            start_at = max(self._hold_until, self._spread_until, self._rate.next_start, self._quota.next_start(now))
            if start_at > now:
                self._held_by_rate = start_at == self._rate.next_start
                self._timer = asyncio.get_running_loop().call_at(start_at, self._dispatch)
                return
            caller = next((one for one in self._waiting if not one.priority.speculative), self._waiting[0])
            self._waiting.remove(caller)
            self._start(caller, now)

    def _start(self, caller: _Caller, now: float) -> None:
        if self._testing:
            self._testing = False
            self._rate.slow_down(since=self._refused_from or now, now=now)
            # The next call waits until a refusal would have come back.
            self._hold_until = now + 2 * self._refusal_s + 0.005
        self._under_way.append(caller)
        self._rate.record_start(now)
        if self._window.limited:
            # Calls that end together would start together again, and overflow a small token bucket.
            self._spread_until = now + 0.5 * self._latency_s / self._window.size
        self._quota.use()
        caller.number, caller.started = next(self._numbers), now
        caller.level, caller.epoch = len(self._under_way), self._epoch
        if not caller.admitted.done():
            caller.admitted.set_result(None)

    def _answered(self, caller: _Caller, now: float) -> None:
        self._latency_s += 0.1 * (now - caller.started - self._latency_s)
        if self._refused_from is not None and caller.epoch == self._epoch:
            self._recovered(caller, self._refused_from)
        if not self._waiting or self._refused_from is not None:
            return
        if self._held_by_rate:
            self._rate.grow(now)
        else:
            self._window.grow()

    def _recovered(self, caller: _Caller, refused_from: float) -> None:
        limit = self._window if self._window.confirm() else self._rate
        calls_per_s = min(self._window.size / max(self._latency_s, 0.001), self._rate.per_s)
        limit.backoff.record_cost((caller.started - refused_from) * calls_per_s)
        self._refused_from = None
        self._pause_s = _FIRST_PAUSE_S

    def _refused(self, caller: _Caller, now: float) -> None:
        self._refusal_s = max(now - caller.started, 0.5 * self._refusal_s)
        self._rate.record_refusal(caller.started)
        if caller.epoch != self._epoch:
            return  # sent before the last refusal was known: it says nothing new
        self._epoch += 1
        if self._refused_from is None:
            self._refused_from = now
            self._rate.begin_episode()
            if not self._held_by_rate:
                self._window.narrow(caller.level)
                return
        else:
            self._window.restore()
        self._testing = True
        self._hold_until = max(self._hold_until, now + self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _now() -> float:
    return asyncio.get_running_loop().time()
