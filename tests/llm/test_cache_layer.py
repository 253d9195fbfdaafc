"""The cache as a layer: one call for many callers, durable before used, cancelling, speculative calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_bt.core.errors import AuthenticationFailed, RecordError
from agent_bt.core.types import Reply, Request
from agent_bt.llm.cache import CachedLLM
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.ledger import Ledger
from agent_bt.llm.priority import Priority, current_priority, use_priority


def make_request(content: str = "bars") -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    return Request(provider="openai", endpoint_id="host", body=body)


class Manual:
    """An LLM whose calls are answered by the test; `send` makes a call uncancellable, as the provider does."""

    def __init__(self) -> None:
        self.calls: list[tuple[Request, Future[Reply], bool]] = []
        self.closed = False

    def submit(self, request: Request) -> Future[Reply]:
        future: Future[Reply] = Future()
        self.calls.append((request, future, current_priority().speculative))
        return future

    def complete(self, request: Request) -> Reply:
        return self.submit(request).result()

    def close(self) -> None:
        self.closed = True

    def send(self, at: int = -1) -> None:
        assert self.calls[at][1].set_running_or_notify_cancel()

    def answer(self, at: int = -1, reply: Reply | None = None) -> None:
        self.calls[at][1].set_result(reply or Reply(text="ok", finish_reason="stop", cost_usd=0.5))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        yield store


def test_a_reply_is_stored_and_answers_the_next_time(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    future = llm.submit(make_request())
    inner.answer()
    assert (future.result(300).text, future.result(300).cached) == ("ok", False)
    again = llm.complete(make_request())
    assert (again.text, again.cached, len(inner.calls)) == ("ok", True, 1)
    llm.close()
    assert inner.closed


def test_a_reply_is_durable_before_a_caller_gets_it(store: ReplyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    written: Future[object] = Future()
    entries = []

    def slow_put(entry: object) -> Future[object]:
        entries.append(entry)
        return written

    monkeypatch.setattr(store, "put", slow_put)
    future = llm.submit(make_request())
    inner.answer()
    assert not future.done()
    written.set_result(entries[0])
    assert future.result(300).text == "ok"


def test_a_reply_that_cannot_be_stored_is_not_used(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    future = llm.submit(make_request())
    store.close()
    inner.answer()
    with pytest.raises(RecordError):
        future.result(300)


def test_two_callers_share_one_call(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    first, second = llm.submit(make_request()), llm.submit(make_request())
    other = llm.submit(make_request("other"))
    assert len(inner.calls) == 2
    inner.answer(0)
    assert [first.result(300).cached, second.result(300).cached] == [False, True]
    assert not other.done()


def test_a_failed_call_is_returned_and_not_stored(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    future = llm.submit(make_request())
    inner.answer(reply=Reply(failure="timeout", error="slow"))
    assert future.result(300).failure == "timeout"
    assert len(store) == 0
    future = llm.submit(make_request())
    inner.calls[-1][1].set_exception(AuthenticationFailed("no key"))
    with pytest.raises(AuthenticationFailed):
        future.result(300)
    assert len(inner.calls) == 2


def test_cancelling_works_only_before_the_call_is_sent(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    future = llm.submit(make_request("unsent"))
    assert future.cancel() and future.cancelled() and inner.calls[-1][1].cancelled()
    sent = llm.submit(make_request("sent"))
    inner.send()
    assert not sent.cancel()
    inner.answer()
    assert sent.result(300).text == "ok"
    assert store.get(make_request("sent")) is not None
    assert not sent.cancel()
    again = llm.submit(make_request("unsent"))
    inner.answer()
    assert again.result(300).text == "ok"


def test_one_of_two_callers_can_cancel(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    first, second = llm.submit(make_request()), llm.submit(make_request())
    inner.send()
    assert first.cancel()
    assert not second.cancel()
    inner.answer()
    assert second.result(300).cached is False


def test_a_needed_call_that_joins_a_speculative_one_makes_it_needed(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    seen = []

    class Watching(Manual):
        def submit(self, request: Request) -> Future[Reply]:
            seen.append(current_priority())
            return inner.submit(request)

    llm = CachedLLM(Watching(), store)
    with use_priority(Priority(speculative=True)):
        llm.submit(make_request())
    assert seen[0].speculative
    llm.submit(make_request())
    assert not seen[0].speculative
    assert len(seen) == 1


def test_a_failed_speculative_call_that_is_needed_by_now_is_sent_again(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    with use_priority(Priority(speculative=True)):
        llm.submit(make_request())
    needed = llm.submit(make_request())
    inner.answer(reply=Reply(failure="timeout"))
    assert [speculative for _, _, speculative in inner.calls] == [True, False]
    inner.answer()
    assert needed.result(300).text == "ok"


def test_a_failed_speculative_call_that_is_not_needed_is_not_sent_again(store: ReplyStore) -> None:
    inner = Manual()
    llm = CachedLLM(inner, store)
    with use_priority(Priority(speculative=True)):
        guess = llm.submit(make_request())
    inner.answer(reply=Reply(failure="timeout"))
    assert guess.result(300).failure == "timeout"
    assert len(inner.calls) == 1


def test_cache_hits_of_needed_calls_count_as_saved(store: ReplyStore) -> None:
    inner, ledger = Manual(), Ledger()
    llm = CachedLLM(inner, store, ledger)
    llm.submit(make_request()).add_done_callback(lambda _: None)
    inner.answer()
    _wait(lambda: len(store) == 1)
    llm.complete(make_request())
    with use_priority(Priority(speculative=True)):
        llm.complete(make_request())
    assert (ledger.saved.calls, ledger.saved.usd, ledger.spent.calls) == (1, 0.5, 0)


def test_many_threads_send_each_request_once(store: ReplyStore) -> None:
    asked: list[str] = []

    class Slow(Manual):
        def submit(self, request: Request) -> Future[Reply]:
            asked.append(request.address)
            future: Future[Reply] = Future()
            text = request.body["messages"][0]["content"]
            threading.Timer(0.005, lambda: future.set_result(Reply(text=text))).start()
            return future

    llm = CachedLLM(Slow(), store)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: llm.complete(make_request(str(n % 10))).text, range(400)))
    assert replies == [str(n % 10) for n in range(400)]
    assert len(asked) == len(set(asked)) == 10


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()
