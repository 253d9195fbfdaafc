"""Offline: no socket is opened, and a miss shows how the prompt differs from the nearest stored one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_bt.core.errors import ReplayError
from agent_bt.core.types import Reply, Request
from agent_bt.llm.cache_entry import Entry
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.offline import OfflineLLM, difference, find_nearest
from agent_bt.llm.priority import Priority, use_priority

SYSTEM = "You trade BTCUSDT.\nAnswer in JSON."


def rows(bar: int) -> str:
    return "\n".join(f"t{n} {100 + n}.5 {200 + 7 * n}" for n in range(bar, bar + 30))


def make_request(
    bar: int = 0, system: str = SYSTEM, replicate: int = 0, endpoint: str = "host", **body: Any
) -> Request:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": rows(bar)}]
    whole = {"model": "m", "temperature": 0, "messages": messages, **body}
    return Request(provider="openai", endpoint_id=endpoint, body=whole, replicate=replicate)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        for bar in range(0, 50, 10):
            store.put(Entry(request=make_request(bar), reply=Reply(text=str(bar)), obtained_at=bar)).result(300)
        yield store


def test_stored_replies_are_found_without_a_socket(store: ReplyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    llm = OfflineLLM(store)
    reply = llm.complete(make_request(20))
    assert (reply.text, reply.cached) == ("20", True)
    with pytest.raises(ReplayError):
        llm.complete(make_request(21))
    llm.close()


def test_a_miss_shows_the_edited_line_of_the_prompt(store: ReplyStore) -> None:
    with pytest.raises(ReplayError) as error:
        OfflineLLM(store).complete(make_request(30, system=SYSTEM.replace("JSON", "one word")))
    lines = str(error.value).splitlines()
    assert make_request(30).address[:12] in lines[0]
    assert lines[1:] == ["  message 1 (system):", "  - Answer in JSON.", "  + Answer in one word."]
    assert error.value.exit_code == 5


def test_a_miss_shows_the_bars_that_differ(store: ReplyStore) -> None:
    with pytest.raises(ReplayError) as error:
        OfflineLLM(store).complete(make_request(21))
    lines = str(error.value).splitlines()
    assert make_request(20).address[:12] in lines[0]
    assert lines[1:] == ["  message 2 (user):", "  - t20 120.5 340", "  + t50 150.5 550"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (make_request(0, temperature=0.7), ["- temperature: 0", "+ temperature: 0.7"]),
        (make_request(0, replicate=2), ["- replicate: 0", "+ replicate: 2"]),
        (make_request(0, endpoint="other"), ['- endpoint_id: "host"', '+ endpoint_id: "other"']),
        (make_request(0, model="n"), ['- model: "m"', '+ model: "n"']),
        (make_request(0, seed=4), ["- seed: (none)", "+ seed: 4"]),
    ],
)
def test_a_miss_names_the_parameter_that_differs(store: ReplyStore, asked: Request, expected: list[str]) -> None:
    nearest = find_nearest(asked, store)
    assert nearest is not None
    assert difference(nearest.request, asked) == expected


def test_a_long_difference_is_cut(store: ReplyStore) -> None:
    asked = make_request(0, system="\n".join(f"{n} {'x' * 300}" for n in range(100)))
    with pytest.raises(ReplayError) as error:
        OfflineLLM(store).complete(asked)
    message = str(error.value)
    assert "more lines" in message
    assert max(len(line) for line in message.splitlines()[1:]) < 180
    assert len(message.splitlines()) < 60


def test_a_miss_without_a_similar_entry_lists_the_stored_models(store: ReplyStore, tmp_path: Path) -> None:
    alien = Request(provider="p", endpoint_id="e", body={"model": "n", "messages": [{"role": "user", "content": "hi"}]})
    with pytest.raises(ReplayError, match=r"replies of m\)"):
        OfflineLLM(store).complete(alien)
    with ReplyStore(tmp_path / "empty.sqlite") as empty, pytest.raises(ReplayError, match="it is empty"):
        OfflineLLM(empty).complete(alien)


def test_on_miss_hold(store: ReplyStore) -> None:
    reply = OfflineLLM(store, on_miss="hold").complete(make_request(7))
    assert (reply.failure, reply.text) == ("offline_miss", None)


def test_a_speculative_miss_does_not_search_for_the_nearest(store: ReplyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "candidates", None)
    with use_priority(Priority(speculative=True)):
        future = OfflineLLM(store).submit(make_request(7))
    assert isinstance(future.exception(1), ReplayError)
