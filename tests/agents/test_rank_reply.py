"""The ranker's reply contract, compared with JSON Schema itself; no invalid reply trades."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_cases import FLAT, SYMBOLS, panel_view, ranker

from agent_bt.agents.rank_reply import RANK_SCHEMA, check_shape, parse_weights
from agent_bt.core.types import ModelCall, Reply, Request
from agent_bt.llm.negotiation import strict_schema

VALIDATOR = jsonschema.Draft202012Validator(RANK_SCHEMA)
VIEW = panel_view(return_24=[0.1, 0.2, 0.3, 0.4], eligible=(True, True, True, False))
SHOWN = SYMBOLS[:3]
ASKED = Request(provider="scripted", endpoint_id="local", body={"messages": []})

scalars = st.one_of(
    st.none(), st.booleans(), st.text(max_size=4), st.floats(-2, 2), st.sampled_from([0, 1, -1, 0.5, 2]),
    st.sampled_from(SYMBOLS),
)  # fmt: skip
entries = st.one_of(
    scalars,
    st.dictionaries(st.sampled_from(["symbol", "weight", "side"]), scalars, max_size=3),
    st.fixed_dictionaries({"symbol": st.sampled_from([*SYMBOLS, "X"]), "weight": st.floats(-1.2, 1.2)}),
)
values = st.one_of(
    scalars,
    st.dictionaries(st.sampled_from(["weights", "note", "action"]), st.one_of(scalars, st.lists(entries, max_size=4))),
    st.fixed_dictionaries({"weights": st.lists(entries, max_size=4)}, optional={"note": st.text(max_size=3)}),
)


def as_read(value: Any) -> Any:
    """Return the value as the decoder does: every number a float."""
    return json.loads(json.dumps(value), parse_int=float)


@given(value=values)
@settings(max_examples=300)
def test_the_plain_check_agrees_with_the_schema(value: Any) -> None:
    read = as_read(value)
    assert (check_shape(read) is None) == VALIDATOR.is_valid(read)


def told_slowly(text: str, *, short: bool) -> dict[str, float] | None:
    """Return the result of a text by json, jsonschema and the rules of the contract."""
    try:
        value = json.loads(text.strip(" \t\r\n"))
    except ValueError:
        return None
    if not VALIDATOR.is_valid(value) or text.count('"weights"') != 1 or text.count('"note"') > 1:
        return None
    names = [each["symbol"] for each in value["weights"]]
    weights = [each["weight"] for each in value["weights"]]
    if len(set(names)) < len(names) or not set(names) <= set(SHOWN) or not all(map(math.isfinite, weights)):
        return None
    if math.fsum(map(abs, weights)) > 1 + 1e-9 or (not short and min(weights, default=0.0) < 0):
        return None
    return dict(zip(names, weights, strict=True))


VALID = '{"weights": [{"symbol": "AUSDT", "weight": 0.5}, {"symbol": "CUSDT", "weight": 0.25}], "note": "up"}'
texts = st.one_of(
    st.text(max_size=30),
    values.map(json.dumps),
    st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), st.text(max_size=3)).map(
        lambda cut: VALID[: cut[0]] + cut[2] + VALID[cut[0] + cut[1] :]
    ),
)


@given(text=texts, short=st.booleans())
@settings(max_examples=300)
def test_a_reply_trades_if_and_only_if_it_is_valid(text: str, short: bool) -> None:
    agent = ranker(allow_short=short)
    exchange = ModelCall(request=ASKED, reply=Reply(text=text, finish_reason="stop"))
    decision = agent.interpret(VIEW, FLAT, [exchange])
    wanted = told_slowly(text, short=short)
    if wanted is None:
        assert (decision.action, decision.targets, decision.trades) == ("HOLD", None, None)
        assert decision.provenance.kind == "invalid" and decision.provenance.reason and decision.detail
    else:
        assert decision.provenance.kind == "model"
        assert decision.targets == {symbol: wanted.get(symbol, 0.0) for symbol in SYMBOLS}
        assert not decision.on_change


def one(symbol: str, weight: Any) -> str:
    return json.dumps({"weights": [{"symbol": symbol, "weight": weight}]})


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        (one("DUSDT", 0.5), "schema", '"DUSDT" is not a symbol of the table'),
        (one("ausdt", 0.5), "schema", "not a symbol of the table"),
        (one("AUSDT", 50), "schema", "a number from -1 to 1, got 50"),
        (one("AUSDT", "50%"), "schema", "a number from -1 to 1"),
        (one("AUSDT", True), "schema", "a number from -1 to 1"),
        (one("AUSDT", -0.5), "schema", "short positions are not allowed"),
        (VALID.replace("0.25", "0.6"), "schema", "add up to 1.1, at most 1"),
        (VALID.replace("CUSDT", "AUSDT"), "schema", "AUSDT is given twice"),
        (VALID.replace('"note"', '"weights": [], "note"'), "duplicate_key", "given twice"),
        (VALID.replace("0.25", "NaN"), "not_finite", "NaN is not a number"),
        (VALID.replace("0.25", "1e999"), "not_finite", "too large"),
        (VALID.replace('"note"', '"why"'), "schema", 'the key "why" is not allowed'),
        (VALID[:-20], "not_json", ""),
        ('{"weights": {"AUSDT": 0.5}}', "schema", "weights must be a list"),
        ('{"note": "nothing"}', "schema", "weights must be a list, got none"),
        ('{"action": "HOLD"}', "schema", "weights must be a list"),
        (f"```json\n{VALID}\n```", "not_json", "code_fence"),
        ("", "empty", ""),
    ],
)
def test_what_is_wrong_is_named(text: str, reason: str, words: str) -> None:
    parsed = parse_weights(Reply(text=text, finish_reason="stop"), symbols=SHOWN)
    assert parsed.weights is None
    assert (parsed.provenance.kind, parsed.provenance.reason) == ("invalid", reason)
    assert words in parsed.detail


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (Reply(text=VALID, finish_reason="length"), "invalid", "truncated"),
        (Reply(refusal="no", finish_reason="stop"), "invalid", "refused"),
        (Reply(failure="timeout", error="30 s"), "transport", "timeout"),
        (Reply(failure="budget"), "budget", "budget"),
    ],
)
def test_an_incomplete_reply_has_no_weights(reply: Reply, kind: str, reason: str) -> None:
    parsed = parse_weights(reply, symbols=SHOWN)
    assert (parsed.weights, parsed.provenance.kind, parsed.provenance.reason) == (None, kind, reason)


def test_declared_repairs_are_made_and_recorded() -> None:
    parsed = parse_weights(Reply(text=f"```json\n{VALID}\n```", finish_reason="stop"), symbols=SHOWN, strip="both")
    assert parsed.weights == {"AUSDT": 0.5, "CUSDT": 0.25}
    assert parsed.provenance.repaired == "code_fence"


def test_tenths_that_add_up_to_one_are_one() -> None:
    text = json.dumps({"weights": [{"symbol": f"S{at}", "weight": 0.1} for at in range(10)]})
    parsed = parse_weights(Reply(text=text, finish_reason="stop"), symbols=[f"S{at}" for at in range(10)])
    assert parsed.weights is not None and len(parsed.weights) == 10


def test_the_strict_schema_closes_every_object() -> None:
    def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
        inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
        return [schema] * (schema["type"] == "object") + [found for each in inner for found in objects(each)]

    found = objects(strict_schema(RANK_SCHEMA))
    assert len(found) == 2
    for each in found:
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    assert "minimum" not in json.dumps(found)
    jsonschema.Draft202012Validator(strict_schema(RANK_SCHEMA)).validate(json.loads(VALID))
