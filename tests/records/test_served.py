"""Who answered, and prompts that a server has cut, are in the summary, with the bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import HOLD, ChatServer
from small_run import cli, small_config

from agent_bt.records.served import ServedModels

HOUR = 3_600_000_000
JULY = 1_719_792_000_000_000  # 2024-07-01T00:00Z


def call(model: str = "m-1", fingerprint: str | None = "fp", tokens: int | None = 100) -> dict[str, Any]:
    body = {"model": model, "system_fingerprint": fingerprint, "choices": []}
    return {"body": json.dumps(body), "prompt_tokens": tokens}


def watch(*calls: dict[str, Any], length: int = 300) -> ServedModels:
    seen = ServedModels()
    for at, each in enumerate(calls):
        seen.add(JULY + at * HOUR, [{"role": "user", "content": "x" * length}], each)
    return seen


def test_a_change_of_the_model_is_told_with_the_bar() -> None:
    seen = watch(call(), call(), call("m-2"), call("m-2"), call("m-1"))
    assert [(one.model, one.since) for one in seen.served] == [
        ("m-1", JULY), ("m-2", JULY + 2 * HOUR), ("m-1", JULY + 4 * HOUR)
    ]  # fmt: skip
    (warning,) = seen.warnings()
    assert "m-1 at first, m-2 from 2024-07-01T02:00Z, m-1 from 2024-07-01T04:00Z" in warning


def test_a_change_of_the_fingerprint_is_told_once() -> None:
    seen = watch(*(call(fingerprint=f"fp-{at % 3}") for at in range(200)))
    assert len(seen.served) == 50  # bounded
    (warning,) = seen.warnings()
    assert "199 times within the run, first at 2024-07-01T01:00Z" in warning


def test_a_change_of_the_model_is_told_after_many_fingerprints() -> None:
    seen = watch(*(call(fingerprint=f"fp-{at % 3}") for at in range(200)), *(call(f"m-{at % 7}") for at in range(400)))
    assert [seen.served[50].model, seen.served[50].since] == ["m-0", JULY + 200 * HOUR]
    assert len(seen.served) == 100  # bounded
    (warning,) = seen.warnings()
    assert "m-1 at first, m-0 from 2024-07-09T08:00Z" in warning


@pytest.mark.parametrize("body", ["", "<html>", "[]", "null", '{"model": 5}', '{"model": ""}', '{"choices": []}'])
def test_a_body_that_names_no_model_says_nothing(body: str) -> None:
    seen = watch({"body": body, "prompt_tokens": 100}, {"body": None, "prompt_tokens": None})
    assert (seen.served, seen.warnings()) == ([], [])


@pytest.mark.parametrize(
    ("tokens", "length", "cut"),
    [(257, 3_150, True), (2_048, 40_000, True), (10, 81, True), (1_000, 3_150, False), (630, 3_150, False),
     (10, 80, False), (None, 3_150, False), (0, 3_150, False)],
)  # fmt: skip
def test_a_prompt_that_came_out_far_shorter_than_it_is_was_cut(tokens: int | None, length: int, cut: bool) -> None:
    seen = watch(call(tokens=tokens), length=length)
    assert seen.cut == cut
    assert any(f"{length:,} characters at 2024-07-01T00:00Z" in warning for warning in seen.warnings()) == cut


def test_a_run_records_who_answered_and_warns_of_a_change(tmp_path: Path) -> None:
    with ChatServer(lambda _: HOLD) as server:

        def answer(body: dict[str, Any]) -> str:
            server.members = {"model": "m-2026" if server.calls > 4 else "m-2025", "system_fingerprint": "fp"}
            return HOLD

        server.answer = answer
        server.usage = {"prompt_tokens": 20, "completion_tokens": 5}
        done = cli("run", small_config(tmp_path, server.url, prefetch__depth=0), "--json", "--limit", 6)
        assert done.code == 0, done.err
    served = done.json["llm"]["served"]
    assert [one["model"] for one in served] == ["m-2025", "m-2026"]
    warnings = " ".join(done.json["warnings"])
    assert f"m-2025 at first, m-2026 from {served[1]['since']}" in warnings
    assert "6 prompts were cut by the server, the first with 20 prompt tokens for" in warnings
