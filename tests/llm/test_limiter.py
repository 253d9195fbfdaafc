"""The adaptive limiter against endpoints with hidden limits, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from agent_bt.llm.limiter import AdaptiveLimiter
from agent_bt.llm.priority import Priority, use_priority
from agent_bt.llm.rate_headers import requests_left, reset_s, tokens_left


class _Selector(selectors.SelectSelector):
    """A selector that advances the virtual clock instead of sleeping."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a virtual clock that advances only by waiting."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now


def run(work: Awaitable[Any]) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


class Endpoint:
    """Accepts `at_once` calls at a time and `per_s` in any second, and answers after about `latency_s`."""

    def __init__(
        self,
        at_once: float = float("inf"),
        per_s: float = float("inf"),
        latency_s: float = 0.2,
        jitter: float = 0.5,
        refusal_headers: Mapping[str, str] | None = None,
        errors: float = 0.0,
    ) -> None:
        self.at_once, self.per_s, self.latency_s, self.jitter = at_once, per_s, latency_s, jitter
        self.refusal_headers = refusal_headers or {}
        self.errors = errors
        self.random = random.Random(5)
        self.inside = self.peak = self.taken = self.refused = 0
        self.starts: deque[float] = deque()
        self.refused_at: list[float] = []

    async def call(self) -> tuple[int, Mapping[str, str]]:
        await asyncio.sleep(0.001)
        while self.starts and self.starts[0] <= now() - 1:
            self.starts.popleft()
        if self.inside >= self.at_once or len(self.starts) >= self.per_s:
            self.refused += 1
            self.refused_at.append(now())
            await asyncio.sleep(0.001)
            return 429, self.refusal_headers
        self.starts.append(now())
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        await asyncio.sleep(self.latency_s * self.random.uniform(1 - self.jitter, 1 + self.jitter))
        self.inside -= 1
        self.taken += 1
        return (500 if self.random.random() < self.errors else 200), {}


async def send_all(limiter: Any, call: Callable[[], Awaitable[tuple[int, Mapping[str, str]]]], calls: int) -> float:
    """Return the seconds that `calls` answers take, with 200 callers at a time; refused ones retry."""
    chance = random.Random(1)
    callers = asyncio.Semaphore(200)

    async def one() -> None:
        async with callers:
            for attempt in range(50):
                await limiter.acquire()
                status, headers = await call()
                limiter.release(status, headers)
                if status != 429:
                    return
                await asyncio.sleep(0.5 * 2 ** min(attempt, 6) * chance.uniform(0.5, 1))
            raise AssertionError("refused 50 times")

    began = now()
    await asyncio.gather(*(one() for _ in range(calls)))
    return now() - began


@pytest.mark.parametrize(
    "limits",
    [
        {"at_once": 2},
        {"at_once": 10},
        {"at_once": 40},
        {"at_once": 10, "latency_s": 0.02},
        {"at_once": 10, "latency_s": 1.0},
        {"per_s": 20},
        {"per_s": 50, "latency_s": 0.5},
        {"per_s": 50, "latency_s": 0.05},
        {"per_s": 200, "latency_s": 0.1},
        {"at_once": 10, "per_s": 30},
        {"at_once": 10, "jitter": 0.0},
    ],
    ids=str,
)
def test_hidden_limits_are_found(limits: dict[str, float]) -> None:
    endpoint = Endpoint(**limits)  # type: ignore[arg-type]
    best_per_s = min(endpoint.at_once / endpoint.latency_s, endpoint.per_s)
    calls = int(min(max(1500, 60 * best_per_s), 6000))
    seconds = run(send_all(AdaptiveLimiter(64), endpoint.call, calls))
    assert calls / seconds >= 0.85 * best_per_s
    assert endpoint.refused < 0.02 * (endpoint.taken + endpoint.refused)


def test_without_limits_all_of_max_in_flight_is_used() -> None:
    endpoint = Endpoint()
    seconds = run(send_all(AdaptiveLimiter(32), endpoint.call, 5000))
    assert endpoint.peak == 32
    assert 5000 / seconds > 0.95 * 32 / endpoint.latency_s


def test_the_window_starts_small() -> None:
    endpoint = Endpoint()
    run(send_all(AdaptiveLimiter(64), endpoint.call, 4))
    assert endpoint.peak == 4
    again = Endpoint()
    run(send_all(AdaptiveLimiter(2), again.call, 50))
    assert again.peak == 2


def test_server_errors_do_not_narrow_the_window() -> None:
    endpoint = Endpoint(errors=0.3)
    limiter = AdaptiveLimiter(16)
    run(send_all(limiter, endpoint.call, 500))
    assert (limiter.window, limiter.rate) == (16, float("inf"))


def test_timeouts_do_not_narrow_the_window() -> None:
    async def work() -> AdaptiveLimiter:
        limiter = AdaptiveLimiter(8)
        for _ in range(20):
            await limiter.acquire()
            limiter.release(None, {})
        return limiter

    assert run(work()).window == 4


@pytest.mark.parametrize("headers", [{"retry-after": "3"}, {"retry-after-ms": "3000"}])
def test_retry_after_pauses_all_callers(headers: dict[str, str]) -> None:
    starts = []

    async def work() -> None:
        limiter = AdaptiveLimiter(8)

        async def caller(status: int) -> None:
            await limiter.acquire()
            starts.append(now())
            await asyncio.sleep(0.01)
            limiter.release(status, headers if status == 429 else {})

        await caller(429)
        await asyncio.gather(*(caller(200) for _ in range(5)))

    run(work())
    assert starts[1] - starts[0] >= 3
    assert starts[-1] - starts[0] < 4


def test_calls_wait_for_the_reset_of_a_used_up_quota() -> None:
    starts: list[float] = []

    async def work() -> None:
        limiter = AdaptiveLimiter(8)

        async def caller() -> None:
            await limiter.acquire()
            starts.append(now())
            left = max(0, 9 - len(starts))
            await asyncio.sleep(0.01)
            limiter.release(200, {"x-ratelimit-remaining-requests": str(left), "x-ratelimit-reset-requests": "6s"})

        await asyncio.gather(*(caller() for _ in range(12)))

    run(work())
    assert starts[8] - starts[0] < 1
    assert starts[9] - starts[8] >= 5.9


def test_calls_wait_for_the_reset_of_used_up_tokens() -> None:
    starts: list[float] = []

    async def work() -> None:
        limiter = AdaptiveLimiter(1)
        for _ in range(8):
            await limiter.acquire()
            starts.append(now())
            left = 5000 - 1000 * min(len(starts), 5)
            limiter.release(200, {"x-ratelimit-remaining-tokens": str(left), "x-ratelimit-reset-tokens": "1m0s"})

    run(work())
    assert starts[4] - starts[0] < 1
    assert starts[5] - starts[4] >= 59


def test_needed_calls_go_first_and_a_speculative_call_can_become_needed() -> None:
    order = []

    async def work() -> None:
        limiter = AdaptiveLimiter(1)
        await limiter.acquire()

        async def caller(name: str, priority: Priority) -> None:
            with use_priority(priority):
                await limiter.acquire()
            order.append(name)
            limiter.release(200, {})

        joined = Priority(speculative=True)
        priorities = {"guess": Priority(speculative=True), "joined": joined, "needed": Priority()}
        tasks = [asyncio.ensure_future(caller(name, priority)) for name, priority in priorities.items()]
        await asyncio.sleep(0)
        joined.speculative = False
        limiter.release(200, {})
        await asyncio.gather(*tasks)

    run(work())
    assert order == ["joined", "needed", "guess"]


def test_cancelled_callers_free_their_places() -> None:
    async def work() -> None:
        limiter = AdaptiveLimiter(1)
        await limiter.acquire()
        waiting = asyncio.ensure_future(limiter.acquire())
        granted = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        limiter.release(200, {})
        granted.cancel()  # admitted already, but not resumed yet
        await asyncio.gather(waiting, granted, return_exceptions=True)
        assert limiter.in_flight == 0
        await asyncio.wait_for(limiter.acquire(), 1)

    run(work())


def test_the_window_follows_a_limit_down_and_up() -> None:
    async def work() -> tuple[int, int]:
        endpoint, limiter = Endpoint(at_once=20), AdaptiveLimiter(64)
        await send_all(limiter, endpoint.call, 1000)
        endpoint.at_once = 5
        await send_all(limiter, endpoint.call, 500)
        before = endpoint.refused
        await send_all(limiter, endpoint.call, 1000)
        refused = endpoint.refused - before
        endpoint.at_once = 40
        endpoint.peak = 0
        await send_all(limiter, endpoint.call, 10000)
        return refused, endpoint.peak

    refused, peak = run(work())
    assert refused < 20
    assert peak >= 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1m30.5s", 90.5), ("2h1m", 7260.0), ("1.5", 1.5), ("0", 0.0)],
)
def test_reset_times(text: str, seconds: float) -> None:
    assert reset_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-3", "nan", "inf", "5 apples", "1x2s"])
def test_invalid_reset_times(text: str) -> None:
    assert reset_s(text) is None


def test_quotas_in_headers() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    calls, tokens = requests_left(headers), tokens_left(headers)
    assert calls is not None and (calls.left, calls.reset_s) == (59, 1.0)
    assert tokens is not None and (tokens.left, tokens.reset_s) == (149984, 360.0)
    assert requests_left({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "2"}) is not None
    assert requests_left({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "1s"}) is None
    assert requests_left({}) is None
