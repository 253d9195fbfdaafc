"""An adaptive gate before an endpoint whose limits are not known: as many calls as it takes, hardly one more.

Endpoints limit how many calls may be under way (here: the window) or how many may start per second (the pace), and a
429 does not say which. Both are found out from what is answered and what is refused:

1. The window starts modest and grows with every answer while callers wait for it, until the first 429.
2. Of a first 429 the window is suspected, unless calls were waiting for their turn: it becomes one less than what was
   under way (`Window.narrow`). If the next call is taken, that was it.
3. If the next call is refused as well, it was the pace: the window is given back, and calls start no faster than they
   have been taken lately (`Pace.slow_down`); until one is answered they test the endpoint one by one, after pauses
   that double.
4. Where a limit is known, a little more is tried now and then: ever more rarely while that is refused (`Patience`).
5. `Retry-After`, and an allowance that `x-ratelimit-*` headers call used up, hold everybody back.

5xx and time-outs say nothing about limits. What never reaches the network never meets the gate.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_bt.llm.limits import Pace, Window
from agent_bt.llm.rate_headers import Spare
from agent_bt.llm.retry import retry_after_s
from agent_bt.llm.speculation import Urgency, current_urgency

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 15.0
_LONGEST_ORDER_S = 900.0


@dataclass(slots=True, eq=False)
class _Caller:
    """Somebody who waits, or was let through: when, as the how-many-th under way, and after how many 429s."""

    task: asyncio.Task[Any] | None
    place: asyncio.Future[None]
    urgency: Urgency
    number: int = 0
    started: float = 0.0
    level: int = 0
    epoch: int = 0


class AdaptiveGate:
    """Lets calls through as fast as an endpoint takes them; for callers on one event loop.

    Demands go before speculative calls; a speculative call that is needed by now is a demand.

    Args:
        max_in_flight: most calls under way, whatever the endpoint takes.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._window = Window(max_in_flight)
        self._pace = Pace()
        self._spare = Spare()
        self._waiting: list[_Caller] = []
        self._under_way: list[_Caller] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._hold_until = 0.0
        self._spread_until = 0.0
        self._held_by_pace = False
        self._latency_s = 0.0
        self._refusal_s = 0.0
        self._epoch = 0
        self._refused_from: float | None = None
        self._testing = False
        self._pause_s = _FIRST_PAUSE_S

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._under_way)

    @property
    def window(self) -> int:
        """Most calls that are let be under way together at present."""
        return int(self._window.size)

    @property
    def pace(self) -> float:
        """Most calls per second that are let start at present; infinite where no such limit was met."""
        return self._pace.per_s

    async def acquire(self) -> None:
        """Wait for leave to send one call; `release` follows in the same task."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        caller = _Caller(asyncio.current_task(), place, current_urgency())
        self._waiting.append(caller)
        self._dispatch()
        try:
            await place
        except asyncio.CancelledError:
            (self._waiting if caller in self._waiting else self._under_way).remove(caller)
            self._dispatch()
            raise

    def release(self, status: int | None, headers: Mapping[str, str]) -> None:
        """Report how a call ended: its HTTP status (None: no response came) and the response's headers."""
        now = _now()
        caller = self._leave(refused=status == 429)
        asked_s = retry_after_s(headers)
        if asked_s is not None:
            self._hold_until = max(self._hold_until, now + min(asked_s, _LONGEST_ORDER_S))
        later = sum(one.number > caller.number for one in self._under_way)
        self._spare.update(headers, number=caller.number, now=now, later=later)
        if status == 429:
            self._refused(caller, now)
            logger.info(
                "HTTP 429: from now on at most %d calls in flight and %.3g calls/s%s",
                *(self.window, self.pace, "" if asked_s is None else f"; the server asks to wait {asked_s:.3g} s"),
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
        """Let through whoever may go now; if only time is in the way, look again when it has passed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            now = _now()
            if len(self._under_way) >= self.window:
                self._held_by_pace = False
                return
            start_at = max(self._hold_until, self._spread_until, self._pace.next_start, self._spare.next_start(now))
            if start_at > now:
                self._held_by_pace = start_at == self._pace.next_start
                self._timer = asyncio.get_running_loop().call_at(start_at, self._dispatch)
                return
            caller = next((one for one in self._waiting if not one.urgency.speculative), self._waiting[0])
            self._waiting.remove(caller)
            self._start(caller, now)

    def _start(self, caller: _Caller, now: float) -> None:
        if self._testing:
            self._testing = False
            self._pace.slow_down(since=self._refused_from or now, now=now)
            # Nobody follows before a refusal would have come back.
            self._hold_until = now + 2 * self._refusal_s + 0.005
        self._under_way.append(caller)
        self._pace.started(now)
        if self._window.limited:
            # Calls that end together would start together again, and a small bucket of tokens runs over.
            self._spread_until = now + 0.5 * self._latency_s / self._window.size
        self._spare.take()
        caller.number, caller.started = next(self._numbers), now
        caller.level, caller.epoch = len(self._under_way), self._epoch
        if not caller.place.done():
            caller.place.set_result(None)

    def _answered(self, caller: _Caller, now: float) -> None:
        self._latency_s += 0.1 * (now - caller.started - self._latency_s)
        if self._refused_from is not None and caller.epoch == self._epoch:
            self._recovered(caller, self._refused_from)
        if not self._waiting or self._refused_from is not None:
            return
        if self._held_by_pace:
            self._pace.try_more(now)
        else:
            self._window.try_more()

    def _recovered(self, caller: _Caller, refused_from: float) -> None:
        limit = self._window if self._window.settle() else self._pace
        calls_per_s = min(self._window.size / max(self._latency_s, 0.001), self._pace.per_s)
        limit.patience.cost((caller.started - refused_from) * calls_per_s)
        self._refused_from = None
        self._pause_s = _FIRST_PAUSE_S

    def _refused(self, caller: _Caller, now: float) -> None:
        self._refusal_s = max(now - caller.started, 0.5 * self._refusal_s)
        self._pace.not_taken(caller.started)
        if caller.epoch != self._epoch:
            return  # sent before the last refusal was known: it says nothing new
        self._epoch += 1
        if self._refused_from is None:
            self._refused_from = now
            self._pace.begin_episode()
            if not self._held_by_pace:
                self._window.narrow(caller.level)
                return
        else:
            self._window.restore()
        self._testing = True
        self._hold_until = max(self._hold_until, now + self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _now() -> float:
    return asyncio.get_running_loop().time()
