"""The same question alone and together: are the answers the same, and are calls together queued?"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from agent_bt.core.types import Reply, Request
from agent_bt.llm import repeatability
from agent_bt.llm.repeatability import Repeatability, measure_repeatability
from agent_bt.llm.scripted import ScriptedLLM


def request(number: int) -> Request:
    return Request(
        provider="p", endpoint_id="e", replicate=number, body={"messages": [{"role": "user", "content": "?"}]}
    )


class Timed:
    """An LLM in simulated time: calls that are submitted are answered when the first of them is waited for."""

    def __init__(self, *, queues: bool) -> None:
        self.now_s = 0.0
        self._queues = queues
        self._waiting: list[Future[Reply]] = []

    def submit(self, _: Request) -> Future[Reply]:
        future = _Waiting(self)
        self._waiting.append(future)
        return future

    def complete(self, request: Request) -> Reply:
        return self.submit(request).result()

    def close(self) -> None: ...

    def answer(self) -> None:
        self.now_s += len(self._waiting) if self._queues else bool(self._waiting)
        for future in self._waiting:
            future.set_result(Reply(text="same", finish_reason="stop"))
        self._waiting.clear()


class _Waiting(Future[Reply]):
    def __init__(self, llm: Timed) -> None:
        super().__init__()
        self._llm = llm

    def result(self, timeout: float | None = None) -> Reply:
        if not self.done():
            self._llm.answer()
        return super().result(timeout)


@pytest.mark.parametrize(("queues", "together_ms"), [(True, 4_000.0), (False, 1_000.0)])
def test_a_queue_is_told_from_calls_in_parallel(
    queues: bool, together_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = Timed(queues=queues)
    monkeypatch.setattr(repeatability.time, "perf_counter", lambda: llm.now_s)
    found = measure_repeatability(llm, request)
    assert found is not None
    assert (found.alone_ms, found.together_ms, found.queues) == (1_000.0, together_ms, queues)
    assert found.same_alone and found.same_together


def test_every_question_has_an_address_of_its_own() -> None:
    llm = ScriptedLLM(lambda _: "same")
    measure_repeatability(llm, request)
    assert len({each.address for each in llm.requests}) == len(llm.requests) == 7
    assert all(each.body == llm.requests[0].body for each in llm.requests)


@pytest.mark.parametrize(
    ("texts", "alone", "together"),
    [
        ("aaaaaaa", True, True),
        ("aaaaaba", True, False),
        ("abaaabb", False, True),
        ("abaaabc", False, False),
    ],
)
def test_answers_are_compared(texts: str, alone: bool, together: bool) -> None:
    found = measure_repeatability(ScriptedLLM(list(texts)), request)
    assert found is not None
    assert (found.same_alone, found.same_together) == (alone, together)


def test_failures_are_left_out_and_counted() -> None:
    replies: list[Any] = ["a", Reply(failure="timeout"), "a", "a", Reply(failure="timeout"), "a", "a"]
    found = measure_repeatability(ScriptedLLM(replies), request)
    assert found is not None
    assert (found.alone, found.together, found.failed) == (("a", "a"), ("a", "a", "a"), 2)
    down = ScriptedLLM(lambda _: Reply(failure="connection"))
    assert measure_repeatability(down, request) is None


def test_one_call_is_not_together() -> None:
    found = measure_repeatability(ScriptedLLM(lambda _: "a"), request, together=1)
    assert isinstance(found, Repeatability) and found.together == () and not found.queues
