"""The local test server itself: concurrency, latency, and faults that do not depend on the order of arrival."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chat_server
import httpx
from chat_server import HOLD, ChatServer, FaultPlan

BODY = {"model": "m", "messages": [{"role": "user", "content": "json?"}]}


def test_64_requests_are_answered_at_once_and_take_the_fixed_latency() -> None:
    with ChatServer(lambda _: HOLD, latency_ms=300, together=64) as server, httpx.Client(trust_env=False) as client:
        url = f"{server.url}/chat/completions"
        begun = time.perf_counter()
        with ThreadPoolExecutor(64) as pool:
            replies = list(pool.map(lambda i: client.post(url, json={**BODY, "seed": i}), range(64)))
        elapsed = time.perf_counter() - begun
        assert {reply.status_code for reply in replies} == {200}
        assert server.calls == server.peak == 64
        assert elapsed >= 0.3


def test_held_calls_are_answered_after_the_release() -> None:
    with ChatServer(lambda _: HOLD) as server, httpx.Client(trust_env=False) as client, ThreadPoolExecutor(2) as pool:
        server.hold(after=1)
        replies = [pool.submit(client.post, f"{server.url}/chat/completions", json=BODY) for _ in range(2)]
        server.wait_for_calls(2)
        assert [reply.done() for reply in replies].count(False) >= 1
        assert server.record.statuses[200] <= 1
        server.release()
        assert [reply.result().status_code for reply in replies] == [200, 200]


def test_the_faults_of_a_body_do_not_depend_on_the_order_of_arrival() -> None:
    plan = FaultPlan(rates={"500": 0.3, "429": 0.2}, seed=3)
    bodies = [str(i).encode() for i in range(400)]
    forwards = {body: plan.draw(body, 0) for body in bodies}
    assert forwards == {body: plan.draw(body, 0) for body in reversed(bodies)}
    assert 80 <= sum(fault == "500" for fault in forwards.values()) <= 160
    assert 50 <= sum(fault == "429" for fault in forwards.values()) <= 110
    assert any(plan.draw(body, 1) != fault for body, fault in forwards.items())


def test_models_and_unknown_paths() -> None:
    with ChatServer(lambda _: HOLD, models=["a", "b"]) as server, httpx.Client(trust_env=False) as client:
        listed = client.get(f"{server.url}/models").json()
        assert [model["id"] for model in listed["data"]] == ["a", "b"]
        assert client.get(f"{server.url}/nothing").status_code == 404
        assert client.post(f"{server.url}/nothing", json={}).status_code == 404
        assert client.post(f"{server.url}/chat/completions", json=BODY).status_code == 404


def test_it_runs_as_a_command() -> None:
    command = [sys.executable, str(Path(chat_server.__file__)), "--port", "0", "--latency-ms", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with httpx.Client(trust_env=False) as client:
                reply = client.post(f"{url}/chat/completions", json=BODY).json()
            assert reply["choices"][0]["finish_reason"] == "stop"
        finally:
            process.kill()
