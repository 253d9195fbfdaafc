"""Failed attempts are repeated, above everything that counts them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from agent_bt.core.errors import AuthenticationFailed, BudgetReached, EndpointDown
from agent_bt.core.types import Reply, Request
from agent_bt.llm.priority import Priority, current_priority, use_priority
from agent_bt.llm.retry import RetryLLM

REQUEST = Request(provider="p", endpoint_id="e", body={"model": "m", "messages": []})


class Scripted:
    """An LLM that gives the outcomes of a list, one after another, and keeps how urgent each request was."""

    def __init__(self, *outcomes: Reply | Exception) -> None:
        self.outcomes = list(outcomes)
        self.speculative: list[bool] = []
        self.closed = 0

    def submit(self, request: Request) -> Future[Reply]:
        self.speculative.append(current_priority().speculative)
        future: Future[Reply] = Future()
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Reply):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
        return future

    def complete(self, request: Request) -> Reply:
        return self.submit(request).result()

    def close(self) -> None:
        self.closed += 1


def retrying(inner: Any, retries: int = 3) -> RetryLLM:
    return RetryLLM(inner, lambda _: retries, backoff_s=0.0)


def failed(failure: str = "timeout", attempts: int = 1, **reply: Any) -> Reply:
    return Reply(failure=failure, attempts=attempts, **reply)


def test_attempts_are_those_that_were_sent() -> None:
    inner = Scripted(failed(), failed("connection", 0), failed("server_error"), Reply(text="ok"))
    reply = retrying(inner).submit(REQUEST).result(300)
    assert (reply.text, reply.attempts) == ("ok", 3)


def test_the_last_failure_is_the_reply() -> None:
    inner = Scripted(failed("rate_limit"), failed("server_error"), failed(error="the last"))
    reply = retrying(inner, retries=2).submit(REQUEST).result(300)
    assert (reply.failure, reply.error, reply.attempts) == ("timeout", "the last", 3)


@pytest.mark.parametrize("final", ["budget", "offline_miss"])
def test_what_was_not_sent_on_purpose_is_not_repeated(final: str) -> None:
    inner = Scripted(failed(final, 0), Reply(text="ok"))
    assert retrying(inner).submit(REQUEST).result(300).failure == final
    assert len(inner.outcomes) == 1


@pytest.mark.parametrize("error", [AuthenticationFailed("no"), EndpointDown("closed"), BudgetReached("spent")])
def test_an_exception_is_not_repeated(error: Exception) -> None:
    inner = Scripted(failed(), error, Reply(text="ok"))
    with pytest.raises(type(error)):
        retrying(inner).submit(REQUEST).result(300)
    assert len(inner.outcomes) == 1


def test_a_prefetched_request_that_is_needed_by_now_is_repeated_as_needed() -> None:
    class Waiting(Scripted):
        def submit(self, request: Request) -> Future[Reply]:
            if not self.speculative:
                self.speculative.append(current_priority().speculative)
                return first
            return super().submit(request)

    first: Future[Reply] = Future()
    inner = Waiting(Reply(text="ok"))
    priority = Priority(speculative=True)
    with use_priority(priority):
        future = retrying(inner).submit(REQUEST)
    priority.speculative = False
    first.set_result(failed())
    assert future.result(300).text == "ok"
    assert inner.speculative == [True, False]


def test_the_wait_is_the_one_that_the_endpoint_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Timer:
        def __init__(self, wait_s: float, work: Any, arguments: Any) -> None:
            waits.append(wait_s)
            self._run = lambda: work(*arguments)

        def start(self) -> None:
            self._run()

    def asked(request: Request) -> int:
        return 3

    monkeypatch.setattr(threading, "Timer", Timer)
    inner = Scripted(failed("rate_limit", retry_after_s=7.0), failed(), Reply(text="ok"))
    # The second wait is the one of an endpoint that does not ask: from 1 to 2 s.
    llm = RetryLLM(inner, asked, backoff_s=1.0)
    lock = threading.RLock()
    monkeypatch.setattr(llm, "_lock", lock)
    assert llm.submit(REQUEST).result(300).text == "ok"
    assert 7.0 <= waits[0] <= 7.7 and 1.0 <= waits[1] <= 2.0


@pytest.mark.parametrize(("asked_s", "shown"), [(34.0, True), (10.5, True), (9.0, False), (None, False)])
def test_a_wait_of_more_than_ten_seconds_is_shown_once(
    asked_s: float | None, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [failed("rate_limit", error="slow down", retry_after_s=asked_s) for _ in range(5)]
    llm = RetryLLM(Scripted(*failures), lambda _: 3)
    with caplog.at_level("WARNING", logger="agent_bt"):
        futures = [llm.submit(REQUEST) for _ in range(5)]
    llm.close()
    assert all(future.exception() for future in futures)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == shown
    assert all("rate_limit: slow down); the next in " in line for line in lines)


def test_closing_ends_calls_that_wait_for_their_next_attempt() -> None:
    inner = Scripted(failed(retry_after_s=50.0), failed(retry_after_s=50.0))
    llm = RetryLLM(inner, lambda _: 3)
    futures = [llm.submit(REQUEST) for _ in range(2)]
    assert not any(future.done() or future.cancel() for future in futures)
    llm.close()
    for future in futures:
        with pytest.raises(EndpointDown, match="waited for its next attempt"):
            future.result(300)
    llm.close()
    assert inner.closed == 2
    # What fails after that is not repeated.
    inner.outcomes.append(failed())
    with pytest.raises(EndpointDown):
        llm.submit(REQUEST).result(300)
