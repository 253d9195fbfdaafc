"""Format negotiation: the next step only on a 400 or 422 that names the parameter, and the result as a stored value."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import jsonschema
import pytest
from chat_server import HOLD, ChatServer
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.agents.rank_reply import RANK_SCHEMA
from agent_bt.agents.reply import REPLY_SCHEMA, check
from agent_bt.core.errors import AuthenticationFailed, EndpointDown, ModelError, RequestRejected, UnknownModel
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.llm.chat_response import ParameterRefused
from agent_bt.llm.negotiation import PROBE, NegotiationResult, apply, negotiate, strict_schema, with_schema
from agent_bt.llm.openai_client import OpenAILLM
from agent_bt.llm.scripted import ScriptedLLM

BASE = {"model": "m", "temperature": 0, "max_tokens": 512, "seed": 7}
MESSAGES = [{"role": "system", "content": "You trade."}, {"role": "user", "content": "close 42"}]


def negotiate_with(
    refuse: list[str], wanted: Any = "auto", **server_settings: Any
) -> tuple[NegotiationResult, ChatServer]:
    with ChatServer(lambda _: HOLD, refuse=refuse, **server_settings) as server:
        with closing(OpenAILLM(base_url=server.url, timeout_s=300)) as llm:
            found = negotiate(llm, BASE, wanted=wanted, schema=REPLY_SCHEMA)
            calls = server.calls
            body = apply(found, {**BASE, "messages": MESSAGES}, REPLY_SCHEMA)
            reply = llm.complete(Request(provider="openai", endpoint_id="e", body=body))
        assert reply.text == HOLD, "the endpoint takes what was negotiated"
        assert found.calls == calls
        return found, server


@pytest.mark.parametrize(
    ("refuse", "response_format", "token_parameter", "dropped", "calls"),
    [
        ([], "json_schema", "max_tokens", (), 1),
        (["json_schema"], "json_object", "max_tokens", (), 2),
        (["json_schema", "json_object"], "text", "max_tokens", (), 3),
        (["response_format"], "text", "max_tokens", (), 3),
        (["max_tokens"], "json_schema", "max_completion_tokens", (), 2),
        (["temperature"], "json_schema", "max_tokens", ("temperature",), 2),
        (["max_tokens", "temperature"], "json_schema", "max_completion_tokens", ("temperature",), 3),
        (["json_schema", "json_object", "max_tokens", "temperature"], "text", "max_completion_tokens",
         ("temperature",), 5),
    ],
)  # fmt: skip
def test_auto_finds_the_best_format_that_the_endpoint_accepts(
    refuse: list[str], response_format: str, token_parameter: str, dropped: tuple[str, ...], calls: int
) -> None:
    found, _ = negotiate_with(refuse)
    assert (found.response_format, found.token_parameter, found.dropped) == (response_format, token_parameter, dropped)
    assert found.calls == calls and len(found.refusals) == calls - 1
    assert found.prompt_tokens > 0 and found.completion_tokens > 0


@pytest.mark.parametrize("wanted", ["json_schema", "json_object", "text"])
def test_an_explicit_format_is_kept_and_other_parameters_are_negotiated(wanted: str) -> None:
    found, server = negotiate_with(["max_tokens", "temperature"], wanted)
    assert (found.response_format, found.token_parameter, found.dropped, found.calls) == (
        wanted,
        "max_completion_tokens",
        ("temperature",),
        3,
    )
    sent = [(body.get("response_format") or {"type": "text"})["type"] for body in server.bodies]
    assert sent == [wanted] * 4


def test_an_explicit_format_that_is_refused_is_an_error() -> None:
    with pytest.raises(RequestRejected, match="response_format"):
        negotiate_with(["json_schema"], "json_schema")


def test_the_test_requests_are_small_and_have_the_parameters_of_the_run() -> None:
    _, server = negotiate_with([])
    assert server.bodies[0]["messages"] == PROBE
    assert {key: server.bodies[0][key] for key in BASE} == BASE


def test_a_parameter_of_the_user_that_is_refused_is_an_error_not_a_step() -> None:
    with pytest.raises(RequestRejected, match="seed"):
        negotiate_with(["seed"])


def test_wrong_key_unknown_model_and_dead_endpoint_stop_before_the_run() -> None:
    with pytest.raises(AuthenticationFailed):
        negotiate_with([], api_key="sk-other")
    with pytest.raises(UnknownModel):
        negotiate_with([], models=["other"])
    with pytest.raises(EndpointDown, match="server_error"):
        negotiate_with([], script=["500"] * 10)


def refusing(reason: str, param: str = "", status_error: type[ModelError] = ParameterRefused) -> Any:
    def script(request: Request) -> str:
        if "temperature" not in request.body:
            return HOLD
        if status_error is ParameterRefused:
            raise ParameterRefused(f"refused: {reason}", reason=reason, param=param)
        raise status_error(reason)

    return ScriptedLLM(script)


@pytest.mark.parametrize(
    "reason",
    [
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        "invalid temperature: only 1 is allowed for this model",
        "The model does not accept temperature",
        "temperature is not available when reasoning is on",
        "temperature cannot be set for this model",
        '[{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]',
    ],
)
def test_a_temperature_that_is_not_supported_is_left_out(reason: str) -> None:
    found = negotiate(refusing(reason), BASE, wanted="text", schema=REPLY_SCHEMA)
    assert found.dropped == ("temperature",) and found.refusals == (reason,)


@pytest.mark.parametrize(
    ("reason", "param"),
    [
        ("temperature must be between 0 and 2", "temperature"),
        ("temperature is out of the accepted range", "temperature"),
        ("max_tokens is too large: 99999", "max_tokens"),
        ("This model's maximum context length is 8192 tokens", ""),
        ("Something went wrong", ""),
        ("", ""),
    ],
)
def test_a_refusal_that_is_about_something_else_is_raised(reason: str, param: str) -> None:
    llm = refusing(reason, param)
    with pytest.raises(RequestRejected):
        negotiate(llm, BASE, wanted="auto", schema=REPLY_SCHEMA)
    assert len(llm.requests) == 1


@pytest.mark.parametrize(
    ("reason", "response_format", "dialect"),
    [
        (
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model",
            "json_object",
            "strict",
        ),
        ("This model does not support structured outputs", "json_object", "strict"),
        ("json_schema response format is not available", "json_object", "strict"),
        ("JSON mode is not enabled for this model", "json_object", "strict"),
        ("guided_json is not supported by this engine", "json_object", "strict"),
        ("Unsupported output format", "json_object", "strict"),
        ("Function calling with response mime type application/json is unsupported", "json_object", "strict"),
        ("llguidance: too many states", "json_object", "strict"),
        ("lm-format-enforcer cannot be used with this tokenizer", "json_object", "strict"),
        ("No endpoints found that can handle the requested parameters.", "json_object", "strict"),
        # About the schema, and not about the format: a plainer one is tried first.
        ("Invalid schema for response_format 'reply': 'additionalProperties' is not permitted", "json_schema", "plain"),
        (
            "Unknown name \"additionalProperties\" at 'generation_config.response_schema': Cannot find field.",
            "json_schema",
            "plain",
        ),
        ("The schema is not supported: keyword 'if' is unknown", "json_schema", "plain"),
        ("failed to compile grammar: schema feature not supported", "json_schema", "plain"),
    ],
)
def test_every_wording_of_an_unsupported_format_leads_to_the_next_step(
    reason: str, response_format: str, dialect: str
) -> None:
    def script(request: Request) -> str:
        wanted = request.body.get("response_format", {})
        if wanted.get("type") == "json_schema" and (dialect == "strict" or "strict" in wanted["json_schema"]):
            raise ParameterRefused(f"e rejects the request ({reason})", reason=reason)
        return HOLD

    llm = ScriptedLLM(script)
    found = negotiate(llm, BASE, wanted="auto", schema=REPLY_SCHEMA)
    assert (found.response_format, found.dialect, found.calls) == (response_format, dialect, 2)
    assert NegotiationResult.from_dict(found.to_dict()) == found
    # Where the user wants the format, the message names the key that says so.
    with pytest.raises(RequestRejected, match=r"set llm\.response_format to one that the endpoint takes"):
        negotiate(ScriptedLLM(script), BASE, wanted="json_schema", schema=REPLY_SCHEMA)


def test_a_plain_schema_has_no_conditions_no_strict_mode_and_no_additional_properties() -> None:
    body = apply(NegotiationResult(dialect="plain"), {**BASE, "messages": MESSAGES}, REPLY_SCHEMA)
    sent = body["response_format"]["json_schema"]
    text = json.dumps(sent)
    assert "additionalProperties" not in text and '"if"' not in text and "strict" not in sent
    assert sent["schema"]["required"] == list(sent["schema"]["properties"])
    ranks = json.dumps(apply(NegotiationResult(dialect="plain"), {**BASE, "messages": MESSAGES}, RANK_SCHEMA))
    assert "additionalProperties" not in ranks


@pytest.mark.parametrize("broken", [("json_schema",), ("json_schema", "json_object")])
def test_a_server_that_fails_at_a_format_is_asked_for_a_lower_one(broken: tuple[str, ...]) -> None:
    class Failing(ScriptedLLM):
        def complete(self, request: Request) -> Reply:
            if request.body.get("response_format", {}).get("type") in broken:
                return Reply(failure="server_error", error="HTTP 500: assertion failed in the sampler")
            return super().complete(request)

    found = negotiate(Failing(lambda _: HOLD), BASE, wanted="auto", schema=REPLY_SCHEMA)
    assert found.response_format == ("json_object", "text")[len(broken) - 1]
    # The first format was asked for once more in the end.
    assert found.calls == len(broken) + 2
    assert "assertion failed" in found.refusals[0]


def test_a_server_that_was_down_for_a_moment_keeps_its_best_format() -> None:
    class Recovering(ScriptedLLM):
        calls = 0

        def complete(self, request: Request) -> Reply:
            self.calls += 1
            return Reply(failure="server_error") if self.calls == 1 else super().complete(request)

    found = negotiate(Recovering(lambda _: HOLD), BASE, wanted="auto", schema=REPLY_SCHEMA)
    assert (found.response_format, found.calls) == ("json_schema", 3)


def test_other_statuses_never_lead_to_the_next_step() -> None:
    llm = refusing("response_format temperature max_tokens unsupported", status_error=RequestRejected)
    with pytest.raises(RequestRejected):
        negotiate(llm, BASE, wanted="auto", schema=REPLY_SCHEMA)
    assert len(llm.requests) == 1


def test_an_endpoint_that_rejects_every_step_is_an_error() -> None:
    reason = "response_format, max_tokens and temperature are not supported"

    def script(_: Request) -> str:
        raise ParameterRefused(reason, reason=reason)

    llm = ScriptedLLM(script)
    with pytest.raises(RequestRejected):
        negotiate(llm, BASE, wanted="auto", schema=REPLY_SCHEMA)
    assert len(llm.requests) == 5


def test_the_tokens_of_the_accepted_test_request_are_counted() -> None:
    usage = Usage(prompt_tokens=30, completion_tokens=4)
    found = negotiate(
        ScriptedLLM([Reply(text=HOLD, finish_reason="stop", usage=usage)]), BASE, wanted="auto", schema=REPLY_SCHEMA
    )
    assert (found.calls, found.prompt_tokens, found.completion_tokens) == (1, 30, 4)


@settings(max_examples=50)
@given(
    st.builds(
        NegotiationResult,
        response_format=st.sampled_from(["json_schema", "json_object", "text"]),
        token_parameter=st.sampled_from(["max_tokens", "max_completion_tokens"]),
        dropped=st.sampled_from([(), ("temperature",)]),
        refusals=st.lists(st.text(), max_size=2).map(tuple),
        calls=st.integers(0, 5),
    )
)
def test_the_result_survives_storage_and_apply_is_pure(found: NegotiationResult) -> None:
    stored = NegotiationResult.from_dict(json.loads(json.dumps(found.to_dict())))
    assert stored == found
    body = {**BASE, "messages": MESSAGES}
    before = json.dumps([body, REPLY_SCHEMA])
    once = apply(found, body, REPLY_SCHEMA)
    assert once == apply(stored, body, REPLY_SCHEMA)
    assert json.dumps([body, REPLY_SCHEMA]) == before
    assert once["model"] == "m" and once["seed"] == 7
    assert ("temperature" in once) == (found.dropped == ())
    assert once[found.token_parameter] == 512 and len(once.keys() & {"max_tokens", "max_completion_tokens"}) == 1
    told = "JSON Schema" in once["messages"][0]["content"]
    assert told == (found.response_format != "json_schema")
    assert once.get("response_format", {"type": "text"})["type"] == found.response_format


def test_a_token_limit_in_the_users_params_takes_precedence() -> None:
    found = NegotiationResult(token_parameter="max_completion_tokens")
    body = apply(found, {**BASE, "max_completion_tokens": 9000, "messages": MESSAGES}, REPLY_SCHEMA)
    assert body["max_completion_tokens"] == 9000 and "max_tokens" not in body


def test_the_schema_goes_to_the_end_of_the_system_message_and_leaves_the_rest() -> None:
    told = with_schema(MESSAGES, REPLY_SCHEMA)
    assert told[0]["content"].startswith("You trade.\n\nAnswer with one JSON object")
    assert told[1:] == MESSAGES[1:]
    schema = json.loads(told[0]["content"].splitlines()[-1])
    assert schema == {key: value for key, value in REPLY_SCHEMA.items() if key != "$schema"}
    alone = with_schema(MESSAGES[1:], REPLY_SCHEMA)
    assert [message["role"] for message in alone] == ["system", "user"]


def _strict_values() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "action": st.sampled_from(["BUY", "SELL", "HOLD"]),
            "size_pct": st.floats(0, 1),
            "note": st.text(max_size=5),
        }
    )


@settings(max_examples=50)
@given(_strict_values())
def test_the_strict_schema_accepts_every_full_valid_reply(value: dict[str, Any]) -> None:
    strict = jsonschema.Draft202012Validator(strict_schema(REPLY_SCHEMA))
    assert strict.is_valid(value) and check(value) is None


def test_the_strict_schema_follows_the_rules_of_strict_mode() -> None:
    strict = strict_schema(REPLY_SCHEMA)
    jsonschema.Draft202012Validator.check_schema(strict)
    assert strict["required"] == list(strict["properties"]) == ["action", "size_pct", "note"]
    assert strict["additionalProperties"] is False
    keywords = {key for member in strict["properties"].values() for key in member}
    assert keywords <= {"type", "enum", "description"}
    is_valid: Callable[[Any], bool] = jsonschema.Draft202012Validator(strict).is_valid
    assert not is_valid({"action": "HOLD"}) and not is_valid({"action": "buy", "size_pct": 1, "note": ""})
