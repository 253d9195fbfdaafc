"""What an endpoint accepted in an earlier run is used again, until the endpoint refuses it or it is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer
from small_run import cli, small_config

HOLD = '{"action": "HOLD"}'


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda _: HOLD) as running:
        yield running


def write(folder: Path, server: ChatServer, **settings: object) -> Path:
    return small_config(folder, server.url, prefetch__depth=0, **settings)


def formats(server: ChatServer) -> list[str]:
    return [body.get("response_format", {}).get("type", "text") for body in server.record.bodies]


def run(config: Path, *options: object) -> tuple[int, str]:
    done = cli("run", config, "--progress", "plain", "--fresh", *options)
    return done.code, done.err


@pytest.mark.parametrize(
    ("refuse", "now"), [(("json_schema",), "json_object"), (("json_schema", "json_object"), "text")]
)
def test_what_the_endpoint_refuses_by_now_is_negotiated_again_once(
    tmp_path: Path, server: ChatServer, refuse: tuple[str, ...], now: str
) -> None:
    config = write(tmp_path, server)
    assert run(config, "--limit", 3)[0] == 0
    assert set(formats(server)) == {"json_schema"}
    server.refuse = refuse
    # Another prompt, so that nothing is in the cache.
    code, said = run(config, "--limit", 3, "--set", "strategy.prompt=btcusdt_trader/v2")
    assert code == 0
    assert "the endpoint refuses what it accepted before" in said
    # One refused request, the steps of the negotiation, and the decisions.
    assert formats(server)[4:] == [
        "json_schema",
        *["json_schema", "json_object", "text"][: len(refuse) + 1],
        *[now] * 3,
    ]
    # It is remembered anew.
    before = server.calls
    code, said = run(config, "--limit", 2, "--set", "llm.replicate=1")
    assert (code, server.calls - before) == (0, 2)
    assert "refuses what" not in said


def test_a_parameter_that_is_refused_by_now_is_left_out(tmp_path: Path, server: ChatServer) -> None:
    config = write(tmp_path, server, llm__temperature=0)
    assert run(config, "--limit", 1)[0] == 0
    server.refuse = ("temperature",)
    assert run(config, "--limit", 2, "--set", "llm.replicate=1")[0] == 0
    assert "temperature" not in server.record.bodies[-1]


def test_what_the_endpoint_refuses_altogether_is_an_error_after_one_more_try(
    tmp_path: Path, server: ChatServer
) -> None:
    config = write(tmp_path, server)
    assert run(config, "--limit", 3)[0] == 0
    before = server.calls
    server.refuse = ("messages",)
    code, said = run(config, "--limit", 3, "--set", "llm.replicate=1")
    assert (code, server.calls - before) == (1, 2)
    assert "rejects the request" in said
    assert len(list(tmp_path.glob("runs/2*"))) == 1


def test_a_refusal_of_what_was_found_out_just_now_is_an_error(tmp_path: Path, server: ChatServer) -> None:
    server.script = [None]
    config = write(tmp_path, server)

    def refuse_after_the_probe(body: dict[str, object]) -> str:
        server.refuse = ("messages",)
        return HOLD

    server.answer = refuse_after_the_probe
    code, said = run(config, "--limit", 3)
    assert (code, server.calls) == (1, 2)
    assert "refuses what it accepted before" not in said


def test_forget_endpoint_makes_the_next_run_ask_again(tmp_path: Path, server: ChatServer) -> None:
    config = write(tmp_path, server)
    assert run(config, "--limit", 2)[0] == 0
    assert run(config, "--limit", 2, "--set", "llm.replicate=1")[0] == 0
    assert server.calls == 1 + 2 + 2
    name = "local"  # llm.endpoint_id
    unknown = cli("cache", "forget-endpoint", "api.example.com", "--config", config)
    assert unknown.code == 2
    assert f"remembered are: {name}" in unknown.err
    assert cli("cache", "forget-endpoint", name, "--model", "another", "--config", config).code == 2
    done = cli("cache", "forget-endpoint", name, "--config", config, "--json")
    assert done.json["forgotten"] == 1
    assert run(config, "--limit", 2, "--set", "llm.replicate=2")[0] == 0
    assert server.calls == 5 + 1 + 2
    # Its replies are kept.
    assert run(config, "--limit", 2)[0] == 0
    assert server.calls == 8
