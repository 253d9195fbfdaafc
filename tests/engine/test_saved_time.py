"""Time saved by prefetch, compared with calls in sequence: none where the server queues or divides its processors."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from agent_bt.engine.saved_time import SavedTime

ALONE_MS = 100.0


def batch(time: SavedTime, latencies: list[float], *, wasted: int = 0, behind: list[Future[Any]] | None = None) -> None:
    """Calls that are sent together; the run waits for one after another, and does not use the last `wasted`.

    Those stay under way, in `behind`, until the next batch is sent.
    """
    futures: list[Future[Any]] = [Future() for _ in latencies]
    numbers = [time.follow(future) for future in futures]
    for before in behind or ():
        before.set_result(None)
    arrived = 0.0
    used = len(latencies) - wasted
    for future, number, latency in zip(futures[:used], numbers, latencies, strict=False):
        future.set_result(None)
        time.waited_ms += max(0.0, latency - arrived)
        arrived = max(arrived, latency)
        time.use(number, latency)
    if behind is not None:
        behind[:] = futures[used:]


def parallel(count: int) -> list[float]:
    return [ALONE_MS] * count


def queueing(count: int) -> list[float]:
    return [ALONE_MS * (at + 1) for at in range(count)]


def sharing(count: int) -> list[float]:
    """A server that computes all at once, each as much slower."""
    return [ALONE_MS * count] * count


@pytest.mark.parametrize("measured", [False, True])
def test_a_server_that_answers_in_parallel_saves_all_but_one_latency_of_each_batch(measured: bool) -> None:
    time = SavedTime()
    if measured:
        batch(time, parallel(1))
    for _ in range(10):
        batch(time, parallel(8))
    assert time.saved_ms() == pytest.approx(10 * 7 * ALONE_MS)


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("wasted", [0, 3])
@pytest.mark.parametrize("size", [2, 8, 16])
def test_a_server_that_queues_saves_nothing(size: int, wasted: int, measured: bool) -> None:
    time, behind = SavedTime(), []
    if measured:
        batch(time, queueing(1))
    wasted = min(wasted, size - 1)
    for at in range(20):
        # What is wasted stands in the queue too: the next batch waits behind it.
        queued = wasted * ALONE_MS if at else 0.0
        batch(time, [queued + latency for latency in queueing(size)], wasted=wasted, behind=behind)
    assert time.saved_ms() == 0.0


def test_a_server_with_divided_processors_saves_nothing_once_a_call_was_alone() -> None:
    time = SavedTime()
    batch(time, sharing(1))
    for _ in range(20):
        batch(time, sharing(8))
    assert time.saved_ms() == 0.0


def test_one_slow_call_that_was_alone_claims_nothing_for_the_others() -> None:
    time = SavedTime()
    batch(time, [100 * ALONE_MS])
    for _ in range(20):
        batch(time, parallel(1))
    assert time.saved_ms() == 0.0


def test_a_call_beside_another_is_not_alone() -> None:
    """Alone it takes 100 ms, beside another 150: the ten used ones would have taken 1,000 one after another."""
    time = SavedTime()
    for _ in range(5):
        batch(time, [150.0, 150.0])
    batch(time, [100.0])
    assert time.saved_ms() == pytest.approx(11 * 100.0 - (5 * 150.0 + 100.0))


def test_calls_that_were_taken_back_are_not_under_way() -> None:
    time, taken_back = SavedTime(), Future[None]()
    batch(time, parallel(4))
    time.follow(taken_back)
    assert taken_back.cancel()
    batch(time, [50.0])
    assert time.saved_ms() == pytest.approx(5 * 50.0 - (ALONE_MS + 50.0))


def test_nothing_is_saved_before_anything_was_used() -> None:
    assert SavedTime().saved_ms() == 0.0
