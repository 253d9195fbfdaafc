"""The grammar of a reply: what it allows is valid, and a model that repeats itself comes to an end."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_bt.agents.rank_reply import RANK_SCHEMA
from agent_bt.agents.reply import check, reply_schema
from agent_bt.core.types import Reply, Request
from agent_bt.llm.grammar import MAX_TEXT_CHARS, gbnf
from agent_bt.llm.negotiation import NegotiationResult, apply, negotiate
from agent_bt.llm.scripted import ScriptedLLM

SIZES = (0.25, 0.5, 1.0)


def as_pattern(grammar: str) -> re.Pattern[str]:
    """The grammar as a regular expression: its rules do not refer to themselves."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())

    def translate(expression: str) -> str:
        out, at = "", 0
        token = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|[a-z]+|\{\d+(?:,\d+)?\}|[()|*?]|\s+')
        while at < len(expression):
            match = token.match(expression, at)
            assert match is not None, expression[at:]
            word, at = match.group(), match.end()
            if word.startswith('"'):
                out += "(?:" + re.escape(word[1:-1].replace('\\"', '"').replace("\\\\", "\\")) + ")"
            elif word[0].isalpha():
                out += f"(?:{translate(rules[word])})"
            elif not word.isspace():
                out += word
        return out

    return re.compile(translate(rules["root"]))


SIZED, FREE = as_pattern(gbnf(reply_schema(SIZES))), as_pattern(gbnf(reply_schema()))


@given(
    st.sampled_from(["BUY", "SELL", "HOLD"]),
    st.sampled_from([0.25, 0.5, 1]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60),
)
def test_every_full_reply_of_a_listed_size_is_allowed(action: str, size: float, note: str) -> None:
    value = {"action": action, "size_pct": size, "note": note}
    assert SIZED.fullmatch(json.dumps(value, ensure_ascii=False))
    assert FREE.fullmatch(json.dumps(value, ensure_ascii=False))
    assert check(value, SIZES) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"action": "BUY", "size_pct": 100, "note": ""}',
        '{"action": "BUY", "size_pct": 0.3, "note": ""}',
        '{"action": "BUY", "size_pct": "0.5", "note": ""}',
        '{"action": "buy", "size_pct": 0.5, "note": ""}',
        '{"action": "BUY", "size_pct": 0.5}',
        '{"action": "BUY", "size_pct": 0.5, "note": "", "confidence": 1}',
        '{"action": "BUY",  "size_pct": 0.5, "note": ""}',
        '{\n"action": "BUY", "size_pct": 0.5, "note": ""}',
        '{"action": "BUY", "size_pct": 0.5, "note": "a\nb"}',
        '{"action": "BUY", "size_pct": 0.5, "note": "' + "x" * (MAX_TEXT_CHARS + 1) + '"}',
        '{"action": "BUY", "size_pct": 0.5, "note": ""} ',
    ],
)
def test_nothing_else_is_allowed(text: str) -> None:
    assert SIZED.fullmatch(text) is None


def test_a_number_without_sizes_is_any_number() -> None:
    """Limits are not held, as in the grammars that servers make of a schema: the check of the reply finds them."""
    for number in ("0", "0.5", "100", "-3.25"):
        assert FREE.fullmatch(f'{{"action": "BUY", "size_pct": {number}, "note": "x"}}')
    for number in ("007", "1.", ".5", "1e999"):
        assert FREE.fullmatch(f'{{"action": "BUY", "size_pct": {number}, "note": "x"}}') is None


def test_weights_have_a_grammar_too() -> None:
    allowed = as_pattern(gbnf(RANK_SCHEMA)).fullmatch
    assert allowed('{"weights": [], "note": "all cash"}')
    assert allowed('{"weights": [{"symbol": "S1", "weight": 0.5}, {"symbol": "S2", "weight": -0.25}], "note": ""}')
    assert not allowed('{"weights": [{"symbol": "S1"}], "note": ""}')


def test_rules_that_are_not_used_are_left_out() -> None:
    grammar = gbnf({"type": "object", "properties": {"number": {"type": "string", "enum": ["char"]}}})
    assert grammar == r'root ::= "{\"number\": " ("\"char\"") "}"'


def test_a_schema_it_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="no grammar for the schema"):
        gbnf({"anyOf": [{"type": "string"}]})


def test_the_body_carries_the_grammar_and_no_response_format() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 64}
    sent = apply(NegotiationResult(response_format="grammar"), body, reply_schema(SIZES))
    assert sent == {**body, "grammar": gbnf(reply_schema(SIZES))}


def test_a_grammar_is_sent_only_where_the_config_names_it() -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return Reply(text='{"action": "HOLD"}', finish_reason="stop")

    schema = reply_schema(SIZES)
    found = negotiate(ScriptedLLM(answer), {"model": "m"}, wanted="grammar", schema=schema)
    assert found.response_format == "grammar" and asked[0].body["grammar"] == gbnf(schema)
    assert negotiate(ScriptedLLM(answer), {"model": "m"}, wanted="auto", schema=schema).response_format == "json_schema"
    assert NegotiationResult.from_dict(found.to_dict()) == found
