"""The budget is never exceeded, whatever the calls do; the ledger; the guard against repeated failure."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.config.model import BudgetConfig, PricesConfig
from agent_bt.core.canonical import canonical
from agent_bt.core.errors import (
    AuthenticationFailed,
    BudgetReached,
    ConfigError,
    EndpointDown,
    ModelError,
    RecordError,
    UnknownModel,
)
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.llm.address import OPENAI_BASE_URL
from agent_bt.llm.budget import BudgetLLM
from agent_bt.llm.chat_response import ParameterRefused
from agent_bt.llm.guard import FailureGuard
from agent_bt.llm.ledger import NOTHING, Ledger, Spend
from agent_bt.llm.prices import PriceTable
from agent_bt.llm.priority import Priority, use_priority
from agent_bt.llm.retry import RetryLLM

PRICES = PriceTable(model="m", prices=PricesConfig(input=10.0, output=100.0))
UNPRICED = PriceTable(model="no-such-model")


def make_request(content: str = "x", max_tokens: int = 50) -> Request:
    body = {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": content}]}
    return Request(provider="openai", endpoint_id="host", body=body)


def worst_tokens(request: Request) -> int:
    return len(canonical(request.body)) + request.body["max_tokens"]


class Manual:
    """An LLM whose calls wait for the test to answer them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Request, Future[Reply]]] = []

    def submit(self, request: Request) -> Future[Reply]:
        future: Future[Reply] = Future()
        self.calls.append((request, future))
        return future

    def complete(self, request: Request) -> Reply:
        return self.submit(request).result()

    def close(self) -> None:
        pass

    def answer(self, at: int, prompt: int = 10, completion: int = 5, **reply: Any) -> None:
        usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
        self.calls[at][1].set_result(Reply(**{"text": "ok", "usage": usage, **reply}))


def make_budget(inner: Any, prices: PriceTable = PRICES, ledger: Ledger | None = None, **limits: Any) -> BudgetLLM:
    return BudgetLLM(inner, BudgetConfig(**limits), ledger or Ledger(), prices)


def test_without_limits_it_only_keeps_the_ledger() -> None:
    inner, ledger = Manual(), Ledger()
    llm = make_budget(inner, ledger=ledger)
    future = llm.submit(make_request())
    assert ledger.reserved.calls == 1
    inner.answer(0, prompt=1000, completion=100)
    assert future.result(300).cost_usd == pytest.approx(1000 * 10e-6 + 100 * 100e-6)
    assert (ledger.spent.calls, ledger.spent.tokens, ledger.reserved) == (1, 1100, NOTHING)
    assert ledger.spent.usd == pytest.approx(0.02)


def test_calls_in_flight_count() -> None:
    inner = Manual()
    llm = make_budget(inner, calls=2)
    futures = [llm.submit(make_request(str(n))) for n in range(3)]
    assert len(inner.calls) == 2
    inner.answer(0)
    assert not futures[2].done()  # one is still in flight, and may turn out never to have been sent
    inner.answer(1)
    with pytest.raises(BudgetReached, match=r"budget\.calls 2; spent: 2 calls.*run the same command again"):
        futures[2].result(300)
    assert BudgetReached.exit_code == 4


def test_a_needed_call_waits_for_calls_that_settle_below_their_worst_case() -> None:
    inner = Manual()
    request = make_request()
    llm = make_budget(inner, tokens=2 * worst_tokens(request) - 10)
    first, second = llm.submit(request), llm.submit(request)
    assert len(inner.calls) == 1
    inner.answer(0, prompt=10, completion=5)
    assert len(inner.calls) == 2
    inner.answer(1)
    assert first.result(300).text == second.result(300).text == "ok"


WORST_TOKENS = worst_tokens(make_request())


@pytest.mark.parametrize(
    ("outcome", "calls", "tokens"),
    [
        # It never left this machine.
        (Reply(failure="connection", attempts=0), 0, 0),
        (Reply(failure="timeout", attempts=0), 0, 0),
        # It was refused before anything was computed.
        (Reply(failure="rate_limit"), 1, 0),
        (AuthenticationFailed("no"), 1, 0),
        (UnknownModel("no"), 1, 0),
        (ParameterRefused("no"), 1, 0),
        # It may have been computed, and billed.
        (Reply(failure="timeout"), 1, WORST_TOKENS),
        (Reply(failure="connection"), 1, WORST_TOKENS),
        (Reply(failure="server_error"), 1, WORST_TOKENS),
        (Reply(failure="bad_response"), 1, WORST_TOKENS),
        (EndpointDown("closed while the call was in flight"), 1, WORST_TOKENS),
        (Reply(text="ok"), 1, WORST_TOKENS),
        # Its usage is known, whatever became of the answer.
        (Reply(failure="server_error", usage=Usage(prompt_tokens=7, completion_tokens=2)), 1, 9),
    ],
)
def test_every_attempt_that_was_sent_counts_and_what_may_be_billed_with_its_worst_case(
    outcome: Reply | ModelError, calls: int, tokens: int
) -> None:
    inner, ledger = Manual(), Ledger()
    future = make_budget(inner, ledger=ledger).submit(make_request())
    if isinstance(outcome, Reply):
        inner.calls[0][1].set_result(outcome)
    else:
        inner.calls[0][1].set_exception(outcome)
    assert future.done() and ledger.reserved == NOTHING
    assert (ledger.spent.calls, ledger.spent.tokens) == (calls, tokens)
    prompt = tokens and WORST_TOKENS - 50
    worst_usd = prompt * 10e-6 + 50 * 100e-6
    known = {0: 0.0, 9: 7 * 10e-6 + 2 * 100e-6}
    assert (ledger.spent.usd or 0.0) == pytest.approx(known.get(tokens, worst_usd))


def test_an_attempt_that_was_never_sent_releases_its_reservation() -> None:
    inner = Manual()
    llm = make_budget(inner, calls=1)
    for _ in range(3):
        llm.submit(make_request())
        inner.calls[-1][1].set_result(Reply(failure="connection", attempts=0))
    llm.submit(make_request())
    inner.answer(-1)
    with pytest.raises(BudgetReached):
        llm.complete(make_request())


def test_retries_are_calls_and_end_at_the_budget() -> None:
    inner, ledger = Manual(), Ledger()
    llm = RetryLLM(make_budget(inner, calls=4, ledger=ledger), lambda _: 20, backoff_s=0.0)
    future = llm.submit(make_request())
    deadline = time.monotonic() + 300
    at = 0
    while not future.done() and time.monotonic() < deadline:
        if at < len(inner.calls):
            inner.calls[at][1].set_result(Reply(failure="timeout"))
            at += 1
        time.sleep(0.001)
    with pytest.raises(BudgetReached, match="spent: 4 calls"):
        future.result(0)
    assert len(inner.calls) == ledger.spent.calls == 4
    assert ledger.spent.tokens == 4 * WORST_TOKENS


def test_cancelling_a_waiting_call_prevents_it_and_releases_its_reservation() -> None:
    inner, ledger = Manual(), Ledger()
    llm = make_budget(inner, calls=1, ledger=ledger)
    first, waiting = llm.submit(make_request("1")), llm.submit(make_request("2"))
    assert waiting.cancel() and waiting.cancelled()
    assert first.cancel() and ledger.reserved == NOTHING
    third = llm.submit(make_request("3"))
    assert inner.calls[-1][1].set_running_or_notify_cancel()
    assert not third.cancel()
    inner.answer(-1)
    assert third.result(300).text == "ok"
    assert [request.messages[0]["content"] for request, _ in inner.calls] == ["1", "3"]


def test_hold_instead_of_stop() -> None:
    llm = make_budget(Manual(), calls=0, on_limit="hold")
    reply = llm.complete(make_request())
    assert (reply.failure, reply.attempts) == ("budget", 0)
    assert reply.error is not None and "budget.calls 0" in reply.error


def test_speculative_calls_leave_the_last_tenth_of_the_budget_to_needed_calls() -> None:
    inner = Manual()
    llm = make_budget(inner, calls=10)
    with use_priority(Priority(speculative=True)):
        guesses = [llm.submit(make_request(str(n))) for n in range(10)]
    assert len(inner.calls) == 9
    assert guesses[9].result(300).failure == "budget"
    demand = llm.submit(make_request("demand"))
    assert len(inner.calls) == 10
    inner.answer(9)
    assert demand.result(300).text == "ok"


def test_a_speculative_call_does_not_overtake_a_waiting_needed_call() -> None:
    inner = Manual()
    request = make_request()
    llm = make_budget(inner, tokens=3 * worst_tokens(request))
    for _ in range(3):
        llm.submit(request)
    demand = llm.submit(request)
    with use_priority(Priority(speculative=True)):
        assert llm.submit(make_request("g", max_tokens=1)).result(300).failure == "budget"
    assert not demand.done()


def test_a_budget_in_dollars_needs_a_price() -> None:
    with pytest.raises(ConfigError, match=r"llm\.prices"):
        make_budget(Manual(), prices=UNPRICED, usd=1.0)
    make_budget(Manual(), prices=UNPRICED, calls=1, tokens=5)


def test_a_token_budget_needs_max_tokens() -> None:
    request = Request(provider="p", endpoint_id="e", body={"model": "m", "messages": []})
    with pytest.raises(ConfigError, match="max_tokens"):
        make_budget(Manual(), tokens=1000).submit(request)
    make_budget(Manual(), calls=1).submit(request)


def test_unpriced_is_never_zero() -> None:
    inner, ledger = Manual(), Ledger()
    llm = make_budget(inner, prices=UNPRICED, ledger=ledger, calls=1)
    llm.submit(make_request())
    inner.answer(0)
    assert (ledger.spent.usd, ledger.spent.unpriced, ledger.spent.tokens) == (None, 1, 15)
    with pytest.raises(BudgetReached, match="unpriced"):
        llm.complete(make_request())
    assert (Spend(calls=1, unpriced=1) + Spend(calls=1, usd=0.5)) == Spend(calls=2, usd=0.5, unpriced=1)


def test_an_answer_of_an_unpriced_tier_ends_a_budget_in_dollars() -> None:
    class Endpoint(Manual):
        def tier(self, at: int, name: str) -> None:
            usage = {"prompt_tokens": 10, "completion_tokens": 5}
            self.calls[at][1].set_result(Reply(text="ok", body=json.dumps({"service_tier": name, "usage": usage})))

    prices = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL)
    for limits, goes_on in (({"usd": 1.0}, False), ({"calls": 9}, True)):
        inner, ledger = Endpoint(), Ledger()
        llm = make_budget(inner, prices=prices, ledger=ledger, **limits)
        first, second = llm.submit(make_request()), llm.submit(make_request("2"))
        inner.tier(0, "default")
        inner.tier(1, "priority")
        assert first.result(300).cost_usd == pytest.approx(10 * 0.15e-6 + 5 * 0.6e-6)
        # The answer is paid for, and not lost.
        assert (second.result(300).text, second.result(300).cost_usd) == ("ok", None)
        assert ledger.spent.unpriced == 1
        third = llm.submit(make_request("3"))
        assert len(inner.calls) == 2 + goes_on
        if not goes_on:
            with pytest.raises(BudgetReached, match=r"budget\.usd cannot be kept; give llm\.prices"):
                third.result(300)


def test_a_long_queue_of_ready_replies_does_not_recurse() -> None:
    class Ready(Manual):
        def submit(self, request: Request) -> Future[Reply]:
            future = super().submit(request)
            if len(self.calls) > 1:
                future.set_result(Reply(text="ok", usage=Usage(prompt_tokens=1, completion_tokens=1)))
            return future

    inner = Ready()
    llm = make_budget(inner, tokens=worst_tokens(make_request()) + 6000)
    futures = [llm.submit(make_request(max_tokens=5990)) for _ in range(2000)]
    inner.answer(0, prompt=1, completion=1)
    assert all(future.done() for future in futures)


class Unreliable:
    """An LLM that answers late, in any order, sometimes with a failure, and records what it has actually charged."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.charged_calls = self.charged_tokens = 0
        self.charged_usd = 0.0

    def submit(self, request: Request) -> Future[Reply]:
        future: Future[Reply] = Future()
        with self.lock:
            delay, kind = self.random.uniform(0, 0.004), self.random.random()
            prompt = self.random.randint(1, len(canonical(request.body)))
            completion = self.random.randint(0, request.body["max_tokens"])
        threading.Timer(delay, self._finish, (future, kind, prompt, completion)).start()
        return future

    def _finish(self, future: Future[Reply], kind: float, prompt: int, completion: int) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if kind < 0.05:
            future.set_result(Reply(failure="connection", attempts=0))
            return
        if kind < 0.1:
            with self.lock:
                self.charged_calls += 1
            future.set_result(Reply(failure="rate_limit"))
            return
        with self.lock:
            self.charged_calls += 1
            self.charged_tokens += prompt + completion
            self.charged_usd += prompt * 10e-6 + completion * 100e-6
        if kind < 0.2:
            future.set_result(Reply(failure="timeout"))  # answered, and billed, but too late
        elif kind < 0.25:
            future.set_exception(EndpointDown("closed"))
        else:
            future.set_result(Reply(text="ok", usage=Usage(prompt_tokens=prompt, completion_tokens=completion)))

    def close(self) -> None:
        pass


def check_never_exceeded(seed: int, limits: dict[str, Any], calls: int, threads: int) -> None:
    inner, ledger, chance = Unreliable(seed), Ledger(), random.Random(seed)
    llm = RetryLLM(make_budget(inner, ledger=ledger, **limits), lambda _: seed % 3, backoff_s=0.001)

    def work(n: int) -> str:
        request = make_request("y" * chance.randint(0, 50), max_tokens=chance.randint(1, 60))
        if chance.random() < 0.3:
            with use_priority(Priority(speculative=True)):
                future = llm.submit(request)
            if chance.random() < 0.5:
                future.cancel()
            return "guess"
        try:
            return llm.submit(request).result(300).failure or "ok"
        except (BudgetReached, EndpointDown) as error:
            return type(error).__name__

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(calls)))
    deadline = time.monotonic() + 300
    while ledger.reserved.calls and time.monotonic() < deadline:
        time.sleep(0.002)
    assert ledger.reserved == NOTHING
    spent = ledger.spent
    for name, limit in limits.items():
        charged = getattr(inner, f"charged_{name}")
        counted = getattr(spent, name) or 0
        assert charged <= counted + 1e-9 <= limit + 2e-9, (name, charged, counted, limit)


LIMITS = st.fixed_dictionaries(
    {},
    optional={"calls": st.integers(0, 40), "tokens": st.integers(0, 5000), "usd": st.floats(0, 0.2, allow_nan=False)},
)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), limits=LIMITS, threads=st.integers(1, 8))
def test_a_budget_is_never_exceeded(seed: int, limits: dict[str, Any], threads: int) -> None:
    check_never_exceeded(seed, limits, calls=60, threads=threads)


@pytest.mark.verify
@settings(max_examples=400)
@given(seed=st.integers(0, 2**32), limits=LIMITS, threads=st.integers(1, 16))
def test_a_budget_is_never_exceeded_long(seed: int, limits: dict[str, Any], threads: int) -> None:
    check_never_exceeded(seed, limits, calls=200, threads=threads)


def test_a_ledger_continues_where_a_killed_run_stopped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    settled = ledger.reserve(Spend(calls=1, prompt_tokens=100, completion_tokens=50, usd=1.0))
    ledger.settle(settled, Spend(calls=1, prompt_tokens=80, completion_tokens=5, usd=0.25))
    ledger.reserve(Spend(calls=1, prompt_tokens=100, completion_tokens=50, usd=1.0))
    # Killed here: nothing is closed, and the next line was being written.
    with path.open("a") as file:
        file.write('["settle", 1, 1,')
    with Ledger(path) as again:
        assert again.spent == Spend(calls=2, prompt_tokens=180, completion_tokens=55, usd=1.25)
        again.settle(again.reserve(Spend(calls=1)), Spend(calls=1, prompt_tokens=1))
    with Ledger(path) as third:
        assert third.spent.calls == 3
    ledger.close()


def test_a_raised_budget_continues(tmp_path: Path) -> None:
    inner = Manual()
    with Ledger(tmp_path / "l") as ledger:
        llm = make_budget(inner, calls=1, ledger=ledger)
        llm.submit(make_request())
        inner.answer(0)
        with pytest.raises(BudgetReached):
            llm.complete(make_request())
    with Ledger(tmp_path / "l") as ledger, pytest.raises(BudgetReached):
        make_budget(inner, calls=1, ledger=ledger).complete(make_request())
    with Ledger(tmp_path / "l") as ledger:
        raised = make_budget(inner, calls=2, ledger=ledger).submit(make_request())
        inner.answer(1)
        assert raised.result(300).text == "ok"


def test_a_file_that_is_not_a_ledger_is_an_error(tmp_path: Path) -> None:
    for text in ("hello\n", "[1, 2]\n", json.dumps(["pay", 0, 1, 1, 1, None, 0]) + "\n"):
        (tmp_path / "l").write_text(text)
        with pytest.raises(RecordError, match="line 1: not a line of a ledger"):
            Ledger(tmp_path / "l")
    with pytest.raises(RecordError, match="cannot be used"):
        Ledger(tmp_path)


def test_many_failures_in_a_row_stop_the_run() -> None:
    inner = Manual()
    llm = FailureGuard(inner, 3)
    for n in range(2):
        future = llm.submit(make_request())
        inner.calls[n][1].set_result(Reply(failure="timeout"))
        assert future.result(300).failure == "timeout"
    future = llm.submit(make_request())
    inner.calls[2][1].set_result(Reply(failure="server_error", error="HTTP 503"))
    with pytest.raises(EndpointDown, match=r"3 calls in a row.*server_error \(HTTP 503\)"):
        future.result(300)
    with pytest.raises(EndpointDown):
        llm.complete(make_request())
    assert len(inner.calls) == 3


def test_an_answer_resets_the_count_and_a_budget_refusal_does_not_count() -> None:
    inner = Manual()
    llm = FailureGuard(inner, 2)
    for n, reply in enumerate(
        [Reply(failure="timeout"), Reply(failure="budget"), Reply(text="ok"), Reply(failure="timeout")]
    ):
        future = llm.submit(make_request())
        inner.calls[n][1].set_result(reply)
        assert future.result(300) == reply


def test_the_guard_forwards_cancelling() -> None:
    inner = Manual()
    llm = FailureGuard(inner, 2)
    future = llm.submit(make_request())
    assert future.cancel() and inner.calls[0][1].cancelled()
    sent = llm.submit(make_request())
    inner.calls[1][1].set_running_or_notify_cancel()
    assert not sent.cancel()
