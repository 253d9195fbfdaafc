"""Valid replies, declared repairs, provenance, and the plain-code check against a JSON Schema validator."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.agents.reply import MAX_REPLY_CHARS, REPLY_SCHEMA, Strip, check, parse_reply, plain_sizes, reply_schema
from agent_bt.core.types import Provenance, Reply

VALIDATOR = jsonschema.Draft202012Validator(REPLY_SCHEMA)

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(),
    st.floats(-0.5, 1.5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["BUY", "SELL", "HOLD", "buy", "", "0.5", "x" * 2000, "x" * 2001, "é" * 2001]),
    st.text(max_size=5),
)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
NEAR_REPLIES = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["BUY", "SELL", "HOLD"]) | JSON_VALUES,
        "size_pct": st.floats(0, 1) | JSON_VALUES,
        "note": st.text(max_size=5) | JSON_VALUES,
        "other": JSON_VALUES,
    },
)


def parse(text: str, strip: Strip = "none") -> Any:
    return parse_reply(Reply(text=text, finish_reason="stop"), strip=strip)


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(REPLY_SCHEMA)


@settings(max_examples=200)
@given(NEAR_REPLIES | JSON_VALUES)
def test_the_plain_check_agrees_with_the_json_schema_validator(value: Any) -> None:
    assert (check(value) is None) == VALIDATOR.is_valid(value)


SIZES = (0.25, 0.5, 1.0)
SIZED = jsonschema.Draft202012Validator(reply_schema(SIZES))


def test_sizes_are_an_enumeration_of_plain_numbers() -> None:
    jsonschema.Draft202012Validator.check_schema(reply_schema(SIZES))
    size = reply_schema(SIZES)["properties"]["size_pct"]
    assert json.dumps(size["enum"]) == "[0.25, 0.5, 1]"
    assert "minimum" not in size and "maximum" not in size
    assert reply_schema() is REPLY_SCHEMA
    assert plain_sizes((0.1, 1.0)) == [0.1, 1]


@settings(max_examples=200)
@given(NEAR_REPLIES | JSON_VALUES, st.none() | st.sampled_from([0.25, 0.5, 1, 1.0, 0.75, 100, True]))
def test_with_sizes_the_plain_check_agrees_with_the_json_schema_validator(value: Any, size: Any) -> None:
    if isinstance(value, dict) and size is not None:
        value = {**value, "size_pct": size}
    assert (check(value, SIZES) is None) == SIZED.is_valid(value)


@pytest.mark.parametrize("size", ["100", "0.3", "0", "-0.25", "true", '"0.5"', "null"])
@pytest.mark.parametrize("action", ["BUY", "SELL", "HOLD"])
def test_a_size_that_is_not_listed_is_invalid_and_repaired_to_none(size: str, action: str) -> None:
    reply = Reply(text=f'{{"action": "{action}", "size_pct": {size}}}', finish_reason="stop")
    parsed = parse_reply(reply, sizes=SIZES)
    assert (parsed.action, parsed.size, parsed.provenance.reason) == ("HOLD", None, "schema")
    assert parsed.detail.startswith("size_pct must be one of 0.25, 0.5, 1, got ")


def test_a_listed_size_is_accepted() -> None:
    parsed = parse_reply(Reply(text='{"action": "BUY", "size_pct": 1}', finish_reason="stop"), sizes=SIZES)
    assert (parsed.action, parsed.size, parsed.valid) == ("BUY", 1.0, True)
    held = parse_reply(Reply(text='{"action": "HOLD"}', finish_reason="stop"), sizes=SIZES)
    assert (held.action, held.size, held.valid) == ("HOLD", None, True)


@settings(max_examples=100)
@given(NEAR_REPLIES)
def test_a_reply_is_accepted_exactly_when_the_validator_accepts_it(value: Any) -> None:
    text = json.dumps(value)
    if len(text) > MAX_REPLY_CHARS:
        return
    parsed = parse(text)
    assert parsed.valid == VALIDATOR.is_valid(json.loads(text))
    if parsed.valid:
        assert (parsed.action, parsed.size, parsed.note) == (
            value["action"],
            value.get("size_pct"),
            value.get("note", ""),
        )


@settings(max_examples=50)
@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_no_text_raises(text: str) -> None:
    for strip in ("none", "code_fence", "think", "both"):
        assert parse(text, strip).provenance.kind == "invalid"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "action", "size", "note"),
    [
        ('{"action":"HOLD"}', "HOLD", None, ""),
        ('{"action":"HOLD","size_pct":0}', "HOLD", 0.0, ""),
        ('{"action":"HOLD","size_pct":0.5,"note":"flat"}', "HOLD", 0.5, "flat"),
        ('{"action":"BUY","size_pct":1}', "BUY", 1.0, ""),
        ('{"action":"BUY","size_pct":0}', "BUY", 0.0, ""),
        ('{"action":"SELL","size_pct":1.0}', "SELL", 1.0, ""),
        ('{"action":"SELL","size_pct":5e-1}', "SELL", 0.5, ""),
        ('{"action":"SELL","size_pct":1e-999}', "SELL", 0.0, ""),
        ('\n\t {"note":"a\\nb","size_pct":0.25,"action":"BUY"} \r\n', "BUY", 0.25, "a\nb"),
        ('{"\\u0061ction":"BUY","size_pct":0.25}', "BUY", 0.25, ""),
        ('{"action":"HOLD","note":"\\ud83d\\ude00 {[ </think> ``` }"}', "HOLD", None, "😀 {[ </think> ``` }"),
        ('{"action":"HOLD","note":"' + "[" * 2000 + '"}', "HOLD", None, "[" * 2000),
        ('{"action":"HOLD","note":"' + "\\u00e9" * 2000 + '"}', "HOLD", None, "é" * 2000),
    ],
)
def test_valid_replies_are_accepted_unchanged(text: str, action: str, size: float | None, note: str) -> None:
    for strip in ("none", "code_fence", "think", "both"):
        parsed = parse(text, strip)  # type: ignore[arg-type]
        assert (parsed.action, parsed.size, parsed.note, parsed.detail) == (action, size, note, "")
        assert parsed.provenance == Provenance(kind="model", reason="", repaired="")


def test_minus_zero_is_zero() -> None:
    assert str(parse('{"action":"BUY","size_pct":-0.0}').size) == "0.0"
    assert str(parse('{"action":"BUY","size_pct":-0}').size) == "0.0"


@pytest.mark.parametrize("finish", [None, "stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence"])
def test_a_finished_reply_is_read(finish: str | None) -> None:
    assert parse_reply(Reply(text='{"action":"HOLD"}', finish_reason=finish)).valid


GOOD = '{"action":"BUY","size_pct":0.5}'


@pytest.mark.parametrize(
    ("text", "strip", "repaired"),
    [
        (f"```json\n{GOOD}\n```", "code_fence", "code_fence"),
        (f"```JSON\n{GOOD}\n```\n", "code_fence", "code_fence"),
        (f"```\n{GOOD}\n```", "both", "code_fence"),
        (f"```json {GOOD}```", "both", "code_fence"),
        (f"<think>low rsi {{}}</think>\n\n{GOOD}", "think", "think"),
        (f"low rsi</think>{GOOD}", "both", "think"),
        (f"<think>{'a' * 200_000}</think>{GOOD}", "think", "think"),
        (f"<think>```json\n{{}}\n```</think>\n```json\n{GOOD}\n```", "both", "both"),
    ],
)
def test_a_declared_repair_is_applied_and_recorded(text: str, strip: Strip, repaired: str) -> None:
    parsed = parse(text, strip)
    assert (parsed.action, parsed.size) == ("BUY", 0.5)
    assert parsed.provenance == Provenance(kind="model", repaired=repaired)
    undeclared = parse(text)
    assert undeclared.action == "HOLD" and undeclared.provenance.kind == "invalid"


def test_a_repaired_reply_that_is_still_invalid_records_the_repair() -> None:
    parsed = parse('```json\n{"action":"buy"}\n```', "code_fence")
    assert parsed.provenance == Provenance(kind="invalid", reason="schema", repaired="code_fence")


@pytest.mark.parametrize("failure", ["timeout", "connection", "rate_limit", "server_error", "bad_response"])
def test_a_transport_failure_is_a_hold_of_its_own_kind(failure: str) -> None:
    parsed = parse_reply(Reply(text=GOOD, finish_reason="stop", failure=failure, error="after 4 attempts"))
    assert (parsed.action, parsed.size) == ("HOLD", None)
    assert parsed.provenance == Provenance(kind="transport", reason=failure)
    assert parsed.detail == "after 4 attempts"


def test_a_reply_withheld_by_the_budget_is_a_hold_of_its_own_kind() -> None:
    parsed = parse_reply(Reply(failure="budget"))
    assert parsed.action == "HOLD" and parsed.provenance == Provenance(kind="budget", reason="budget")


def test_the_detail_says_what_to_do_about_fences_and_think_blocks() -> None:
    assert "llm.strip: code_fence" in parse(f"```json\n{GOOD}\n```").detail
    assert "llm.strip: think" in parse(f"<think>a</think>{GOOD}").detail
    assert "llm.max_tokens" in parse_reply(Reply(text="{", finish_reason="length")).detail
