"""A server for a run: started when it is needed, on this machine alone, and gone whatever happens to the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_bt.core.errors import ConfigError, EndpointDown, RequestRejected
from agent_bt.core.types import Request
from agent_bt.llm.llama_cpp.client import LlamaCppLLM
from agent_bt.llm.llama_cpp.process import LlamaServer, ServerSettings, usable_threads
from agent_bt.llm.openai_client import OpenAILLM

FAKE = Path(__file__).parents[1] / "support" / "fake_llama"
DEADLINE_S = 30.0
"""Ends a hang; what is waited for comes much sooner."""

REQUEST = Request(
    provider="llama_cpp", endpoint_id="e", body={"model": "m", "messages": [{"role": "user", "content": "x"}]}
)


@pytest.fixture(autouse=True)
def _fake_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(FAKE))


def write_model(folder: Path, **script: Any) -> Path:
    path = folder / "fake.gguf"
    path.write_bytes(b"GGUF" + json.dumps(script).encode())
    return path


def settings(model: Path, **changes: Any) -> ServerSettings:
    return ServerSettings(**{"model": str(model), "name": "fake.gguf", "context": 4096, "threads": 1, **changes})


def started(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/started") as answer:
        data: dict[str, Any] = json.load(answer)
        return data


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@contextmanager
def running(what: ServerSettings) -> Iterator[LlamaServer]:
    server = LlamaServer(what)
    try:
        yield server
    finally:
        server.stop()


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def over(server: Callable[[], Any], **client: Any) -> LlamaCppLLM:
    return LlamaCppLLM(
        name="fake.gguf",
        start=server,
        connect=lambda url: OpenAILLM(base_url=url, **{"timeout_s": 10, **client}),
    )


def test_the_server_is_started_as_configured_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "not for a server")
    with running(settings(write_model(tmp_path), context=1234, threads=3)) as server:
        assert server.address.startswith("http://127.0.0.1:") and server.death() is None
        seen = started(server.address)
    assert (seen["pid"], seen["n_ctx"], seen["threads"]) == (server.pid, 1234, [3, 3])
    # One slot without a cache of prompts answers the same to the same.
    assert (seen["n_parallel"], seen["cache_prompt"], seen["ui"]) == (1, False, False)
    assert seen["model_alias"] == "fake.gguf" and seen["secrets"] == []
    assert is_gone(server.pid)
    server.stop()


def test_a_port_of_ones_own_and_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"llm\.server\.port: {port} on 127\.0\.0\.1 cannot be used"):
            LlamaServer(settings(write_model(tmp_path), port=port))
    with running(settings(write_model(tmp_path), port=port)) as server:
        assert server.address == f"http://127.0.0.1:{port}"


def test_a_model_that_does_not_load_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(EndpointDown, match=r"did not start .*error loading model: unknown architecture 'toy'"):
        LlamaServer(settings(write_model(tmp_path, fails="error loading model: unknown architecture 'toy'")))


def test_without_llama_cpp_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_bt.llm.llama_cpp.process.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'agent-bt\[local\]'"):
        LlamaServer(settings(write_model(tmp_path)))


def test_nothing_is_started_before_the_first_request(tmp_path: Path) -> None:
    starts: list[LlamaServer] = []

    def start() -> LlamaServer:
        starts.append(LlamaServer(settings(write_model(tmp_path))))
        return starts[-1]

    with closing(over(start)) as llm:
        assert starts == []
        replies = [llm.complete(REQUEST) for _ in range(3)]
        assert all(reply.text and "fake" in reply.text for reply in replies)
        assert len(starts) == 1 and started(starts[0].address)["calls"] == 3
    assert is_gone(starts[0].pid)
    with pytest.raises(EndpointDown, match="is closed"):
        llm.submit(REQUEST)


def test_a_server_that_dies_stops_the_run_and_says_how(tmp_path: Path) -> None:
    model = write_model(tmp_path, dies_after=1)
    with closing(over(lambda: LlamaServer(settings(model)))) as llm:
        assert llm.complete(REQUEST).failure is None
        with pytest.raises(
            EndpointDown, match=r"has ended \(killed by signal 9: ggml: out of memory\); the same command"
        ):
            llm.complete(REQUEST)


def test_a_prompt_that_does_not_fit_names_the_setting(tmp_path: Path) -> None:
    model = write_model(tmp_path, context=1)
    words = r"raise llm\.server\.context, or show less: features\.window"
    with closing(over(lambda: LlamaServer(settings(model)))) as llm, pytest.raises(RequestRejected, match=words):
        llm.complete(REQUEST)


def test_threads_leave_a_core_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert usable_threads() == threads


PARENT = """
import sys, os, json, time
from agent_bt.llm.llama_cpp.process import LlamaServer, ServerSettings
server = LlamaServer(ServerSettings(model=sys.argv[1], name="fake", context=64, threads=1))
if sys.argv[2] == "forked" and os.fork() == 0:
    time.sleep(3600)  # holds a copy of the pipe to the server
print(server.pid, server.address, flush=True)
if sys.argv[2] == "raises":
    raise SystemExit(3)
time.sleep(3600)
"""


@pytest.mark.parametrize("how", ["raises", "SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "forked"])
def test_the_server_goes_with_its_parent(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", PARENT, str(write_model(tmp_path)), how]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(FAKE)])}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert parent.stdout is not None
    pid, address = parent.stdout.readline().split()
    try:
        if how != "raises":
            assert started(address)["pid"] == int(pid)
            parent.send_signal(signal.SIGKILL if how == "forked" else getattr(signal, how))
        wait_until(lambda: is_gone(int(pid)))
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
