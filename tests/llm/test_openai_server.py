"""The client against a real local server: concurrency, network faults, cancelling, closing, Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from chat_server import FAULTS, HANG_S, HOLD, ChatServer, FaultPlan

import agent_bt
from agent_bt.agents.reply import parse_reply
from agent_bt.core.errors import AuthenticationFailed, EndpointDown, ModelError, UnknownModel
from agent_bt.core.types import Request
from agent_bt.llm.openai_client import FixedLimiter, OpenAILLM
from agent_bt.llm.retry import RetryLLM


def ask(seed: int) -> Request:
    messages = [{"role": "user", "content": f"json, please: {seed}"}]
    return Request(provider="openai", endpoint_id="local", body={"model": "m", "messages": messages, "seed": seed})


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda _: HOLD) as running:
        yield running


def client(server: ChatServer, *, retries: int = 0, **settings: Any) -> RetryLLM:
    single = OpenAILLM(**{"base_url": server.url, "timeout_s": HANG_S, **settings})
    return RetryLLM(single, lambda _: retries, backoff_s=0.001)


def test_many_calls_run_at_once_but_never_more_than_allowed(server: ChatServer) -> None:
    server.latency_ms, server.together = 20, 20
    with closing(client(server, max_in_flight=20)) as llm:
        replies = [future.result() for future in [llm.submit(ask(i)) for i in range(60)]]
    assert [reply.text for reply in replies] == [HOLD] * 60
    assert server.peak == 20 and server.calls == 60
    assert all(reply.latency_ms >= 19 for reply in replies)


EXPECTED = {
    "429": "rate_limit",
    "500": "server_error",
    "503": "server_error",
    "stall": "timeout",
    "cut": "connection",
    "drop": "connection",
    "html": "bad_response",
    "truncated_json": "bad_response",
    "empty_choices": "bad_response",
    "no_message": "bad_response",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_network_fault_is_a_failure_of_its_kind_or_a_reply_that_does_not_trade(
    server: ChatServer, fault: str
) -> None:
    server.script, server.stall_s = [fault], HANG_S
    with closing(client(server, timeout_s=2 if fault == "stall" else HANG_S)) as llm:
        reply = llm.complete(ask(1))
        assert reply.failure == EXPECTED.get(fault)
        assert parse_reply(reply).action == "HOLD"
        assert llm.complete(ask(2)).failure is None, "the client goes on working after the fault"


@pytest.mark.parametrize("fault", sorted(EXPECTED.keys() - {"stall"}))
def test_a_retry_recovers_from_a_transient_fault(server: ChatServer, fault: str) -> None:
    server.script = [fault, fault]
    with closing(client(server, retries=2)) as llm:
        reply = llm.complete(ask(1))
    assert (reply.failure, reply.attempts, reply.text, server.calls) == (None, 3, HOLD, 3)


def test_the_timeout_covers_the_whole_answer_of_a_slow_server() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    thread = threading.Thread(target=trickle)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with closing(listener), closing(OpenAILLM(base_url=url, timeout_s=0.5)) as llm:
        # Every byte comes in time, but not all of them together.
        assert llm.complete(ask(1)).failure == "timeout"
        stop.set()
        thread.join()


def test_a_closed_port_is_a_connection_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with closing(OpenAILLM(base_url=f"http://127.0.0.1:{port}/v1")) as llm:
        reply = llm.complete(ask(1))
    assert (reply.failure, reply.attempts) == ("connection", 0)


def test_a_wrong_key_and_an_unknown_model_are_raised_by_submit_and_complete() -> None:
    with ChatServer(lambda _: HOLD, api_key="sk-right-key", models=["m"]) as server:
        with closing(client(server, api_key="sk-wrong-key")) as llm:
            with pytest.raises(AuthenticationFailed) as caught:
                llm.complete(ask(1))
            assert "sk-wrong-key" not in str(caught.value)
            with pytest.raises(AuthenticationFailed):
                llm.submit(ask(1)).result()
        with closing(client(server, api_key="sk-right-key")) as llm:
            assert llm.complete(ask(1)).failure is None
            server.models = ["other"]
            with pytest.raises(UnknownModel, match="'m'"):
                llm.complete(ask(1))


def test_a_call_cancelled_before_it_is_sent_is_never_sent(server: ChatServer) -> None:
    server.hold()
    with closing(client(server, max_in_flight=1)) as llm:
        first = llm.submit(ask(0))
        server.wait_for_calls(1)
        waiting = [llm.submit(ask(i)) for i in range(1, 30)]
        assert all(future.cancel() for future in waiting[:-1])
        server.release()
        assert first.result().text == waiting[-1].result().text == HOLD
    assert sorted(body["seed"] for body in server.bodies) == [0, 29]


def test_cancelling_at_once_wins_or_loses_but_is_never_both(server: ChatServer) -> None:
    server.hold()
    with closing(client(server, max_in_flight=64)) as llm:
        futures = {i: llm.submit(ask(i)) for i in range(300)}
        cancelled = {i for i, future in futures.items() if future.cancel()}
        server.release()
        for i in futures.keys() - cancelled:
            assert futures[i].result().text == HOLD
    assert {body["seed"] for body in server.bodies} == futures.keys() - cancelled
    assert cancelled


def test_a_call_that_was_sent_cannot_be_cancelled_and_its_reply_arrives(server: ChatServer) -> None:
    server.hold()
    with closing(client(server)) as llm:
        future = llm.submit(ask(1))
        server.wait_for_calls(1)
        assert not future.cancel()
        server.release()
        assert future.result().text == HOLD


def test_closing_aborts_calls_in_flight_and_leaves_no_thread(server: ChatServer) -> None:
    server.hold()
    llm = client(server, max_in_flight=2, timeout_s=HANG_S)
    futures = [llm.submit(ask(i)) for i in range(6)]
    server.wait_for_calls(2)
    llm.close()
    assert server.record.in_flight == 2, "it did not wait for an answer"
    for future in futures:
        assert future.done()
        with pytest.raises((EndpointDown, CancelledError)):
            future.result()
    assert not any(thread.name == "agent-bt-llm" for thread in threading.enumerate())


def test_complete_raises_a_model_error_when_the_client_is_closed_meanwhile(server: ChatServer) -> None:
    server.hold()
    llm = client(server)

    def close() -> None:
        server.wait_for_calls(1)
        llm.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(ModelError, match="closed"):
        llm.complete(ask(1))
    closer.join()


class RecordingLimiter:
    def __init__(self) -> None:
        self.slots = FixedLimiter(4)
        self.events: list[Any] = []

    async def acquire(self) -> None:
        await self.slots.acquire()
        self.events.append("acquire")

    def release(self, status: int | None, headers: Mapping[str, str]) -> None:
        self.events.append((status, headers.get("Retry-After")))
        self.slots.release(status, headers)


def test_every_attempt_passes_the_limiter_once_with_its_status_and_headers(server: ChatServer) -> None:
    limiter = RecordingLimiter()
    server.script = ["429", "drop", None]
    with closing(client(server, limiter=limiter, retries=2)) as llm:
        assert llm.complete(ask(1)).attempts == 3
    assert limiter.events == ["acquire", (429, "0.02"), "acquire", (None, None), "acquire", (200, None)]


def test_a_limiter_that_fails_fails_the_call(server: ChatServer) -> None:
    class Broken(RecordingLimiter):
        async def acquire(self) -> None:
            raise EndpointDown("the limiter is broken")

    with closing(client(server, limiter=Broken())) as llm, pytest.raises(EndpointDown, match="limiter"):
        llm.complete(ask(1))
    assert server.calls == 0


def test_hundreds_of_calls_through_an_unreliable_network_all_end(server: ChatServer) -> None:
    rates = {fault: 0.03 for fault in FAULTS if fault != "stall"}
    server.faults = FaultPlan(rates=rates, seed=11)
    with closing(client(server, max_in_flight=32, retries=3)) as llm:
        replies = [future.result(timeout=HANG_S) for future in [llm.submit(ask(i)) for i in range(300)]]
    assert all(reply.failure in {None, *EXPECTED.values()} for reply in replies)
    assert sum(reply.failure is not None for reply in replies) < 15
    assert any(reply.attempts > 1 for reply in replies)
    assert all(parse_reply(reply).action == "HOLD" for reply in replies)


SCRIPT = """
import sys
from agent_bt.core.types import Request
from agent_bt.llm.openai_client import OpenAILLM
llm = OpenAILLM(base_url=sys.argv[1])
body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
print("ready", flush=True)
try:
    reply = llm.complete(Request(provider="openai", endpoint_id="e", body=body))
    print(reply.text, flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_process_ends_cleanly_without_close_and_after_ctrl_c(server: ChatServer, interrupt: bool) -> None:
    if interrupt:
        server.hold()
    environment = {**os.environ, "PYTHONPATH": str(Path(agent_bt.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    process.stdout.readline()
    if interrupt:
        server.wait_for_calls(1)
        process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=HANG_S)
    assert (process.returncode, complaints) == (130 if interrupt else 0, b"")
