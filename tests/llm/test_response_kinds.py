"""What an endpoint's errors concern: this prompt, this moment, or every request; in the words of many providers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_server import HOLD, ChatServer
from small_run import cli, small_config

from agent_bt.agents.reply import parse_reply
from agent_bt.core.errors import AuthenticationFailed, ModelError, RequestRejected, UnknownModel
from agent_bt.core.types import Reply, Usage
from agent_bt.llm.chat_response import ParameterRefused, read_answer, read_failure, read_reasoning


def error(message: str, **members: Any) -> dict[str, Any]:
    return {"error": {"message": message, **members}}


def read(status: int, body: Any, *, answered: bool = False) -> Reply:
    text = body if isinstance(body, str) else json.dumps(body)
    return read_failure(status, text, endpoint="e", model="m", answered=answered)


REFUSALS = [
    # Azure OpenAI, OpenAI, Qwen, Gemini behind a router, LiteLLM, xAI, Zhipu, Mistral.
    (400, error("The response was filtered due to the prompt triggering Azure's content management policy.")),
    (400, error("Your request was rejected as a result of our safety system.", code="content_policy_violation")),
    (400, error("Input data may contain inappropriate content.", code="data_inspection_failed")),
    (400, error("Provider returned error: PROHIBITED_CONTENT", code=400)),
    (500, error("litellm.ContentPolicyViolationError: AzureException - content_filter triggered")),
    (403, error("Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO")),
    (400, error("input contains sensitive words", code="1301")),
    (422, {"object": "error", "message": "Input flagged by moderation", "type": "moderation"}),
    (451, error("blocked by our usage policies")),
    # What a proxy passes on of the error behind it: OpenRouter's metadata.raw, as text or JSON; Azure's innererror.
    (
        400,
        error("Provider returned error", code=400, metadata={"raw": "PROHIBITED_CONTENT", "provider_name": "Google"}),
    ),
    (400, error("Provider returned error", code=400, metadata={"raw": json.dumps(error("x", code="content_filter"))})),
    (400, error("The prompt is refused", code="400", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (422, error("The prompt was blocked by a guardrail")),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_a_refusal_of_one_prompt_in_whatever_words_is_an_invalid_reply(status: int, body: Any) -> None:
    reply = read(status, body)
    assert reply.failure is None and reply.body
    assert parse_reply(reply).provenance.reason == "refused"


@pytest.mark.parametrize(
    "body",
    [
        error(
            "Failed to generate JSON. Please adjust your prompt.", code="json_validate_failed", failed_generation=HOLD
        ),
        error("Failed to validate JSON", code="json_validate_failed", failed_generation=""),
        error("json_validate_failed: max completion tokens reached before generating a valid document"),
    ],
)
def test_an_answer_that_the_endpoint_could_not_validate_is_not_json(body: Any) -> None:
    reply = read(400, body)
    assert parse_reply(reply).provenance.reason == "not_json"
    assert reply.body == json.dumps(body)  # what the model wrote is kept


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (408, error("timeout"), "timeout"),
        (409, error("conflict"), "server_error"),
        (413, error("Request too large: tokens per minute (TPM)", code="rate_limit_exceeded"), "rate_limit"),
        (425, "", "server_error"),
        (498, error("flex capacity exceeded", code="capacity_exceeded"), "server_error"),
        (499, "", "server_error"),
        (500, "<html>", "server_error"),
        (529, error("Overloaded", type="overloaded_error"), "server_error"),
        (404, error("No endpoints found matching your request"), "server_error"),
        (404, "no healthy upstream", "server_error"),
        (404, error("The deployment is not ready yet, try again"), "server_error"),
        (400, error("Overloaded", type="overloaded_error"), "server_error"),
        (422, error("slow down", code="rate_limit_exceeded"), "rate_limit"),
    ],
)
def test_what_may_be_another_answer_a_moment_later_is_a_failure(status: int, body: Any, failure: str) -> None:
    assert read(status, body).failure == failure


def test_a_404_after_an_answer_is_a_fault_of_the_moment_and_before_it_a_wrong_address() -> None:
    for body in ("404 page not found", {"detail": "Not Found"}):
        assert read(404, body, answered=True).failure == "server_error"
        with pytest.raises(RequestRejected, match=r"llm\.base_url"):
            read(404, body)
    with pytest.raises(UnknownModel):
        read(404, error("The model `m` does not exist", code="model_not_found"), answered=True)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, error("Incorrect API key"), AuthenticationFailed),
        (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
                          "status": "INVALID_ARGUMENT"}}], AuthenticationFailed),
        (400, error("Invalid API key provided"), AuthenticationFailed),
        (402, error("Insufficient credits"), AuthenticationFailed),
        (403, error("Country not supported"), AuthenticationFailed),
        (403, "<html>You have been blocked by the firewall for safety</html>", AuthenticationFailed),
        (429, error("You exceeded your current quota", code="insufficient_quota"), AuthenticationFailed),
        (413, error("the prompt is too large"), RequestRejected),
        (400, error("Unknown parameter: 'safety_identifier'", param="safety_identifier"), ParameterRefused),
        (404, error("No endpoints found that can handle the requested parameters."), ParameterRefused),
        # A parameter that is called after safety or moderation is no refusal of the prompt.
        (400, error("safety_settings is not a known parameter"), ParameterRefused),
        (400, error('Invalid JSON payload received. Unknown name "safety_identifier": Cannot find field.'),
         ParameterRefused),
        (422, error("moderation_level: unsupported value"), ParameterRefused),
    ],
)  # fmt: skip
def test_what_concerns_every_request_stops_the_run(status: int, body: Any, kind: type[ModelError]) -> None:
    with pytest.raises(kind):
        read(status, body, answered=True)


@pytest.mark.parametrize("finish", ["network_error", "ERROR", "Aborted", "insufficient_system_resource", "timeout"])
def test_an_answer_that_the_endpoint_gave_up_on_is_a_failure(finish: str) -> None:
    body = {"choices": [{"message": {"content": HOLD}, "finish_reason": finish}]}
    assert read_answer(json.dumps(body)).failure == "server_error"


@pytest.mark.parametrize("finish", ["", "null", "None", None])
def test_an_empty_finish_reason_is_none(finish: str | None) -> None:
    reply = read_answer(json.dumps({"choices": [{"message": {"content": HOLD}, "finish_reason": finish}]}))
    assert (reply.finish_reason, parse_reply(reply).valid) == (None, True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": HOLD}], HOLD),
        ([{"type": "output_text", "text": HOLD[:5]}, {"type": "output_text", "text": HOLD[5:]}], HOLD),
        ([], ""),
        (["", HOLD], HOLD),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "so "}]}, {"type": "text", "text": HOLD}], HOLD),
    ],
)
def test_a_content_of_text_parts_is_their_text(content: Any, text: str) -> None:
    assert read_answer(json.dumps({"choices": [{"message": {"content": content}}]})).text == text


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (error("overloaded", code=503), "server_error"),
        (error("slow down", code=429), "rate_limit"),
        ([error("Resource exhausted", code=429)], "rate_limit"),
        (error("something went wrong", code="internal"), "server_error"),
        ({"error": "overloaded"}, "server_error"),
        (error("slow down", code="rate_limit_exceeded"), "rate_limit"),
        ([error("quota", status="RESOURCE_EXHAUSTED")], "rate_limit"),
    ],
)
def test_an_error_with_status_200_counts_as_the_error_that_it_is(body: Any, failure: str) -> None:
    assert read_answer(json.dumps(body)).failure == failure


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (error("no key", code=401), AuthenticationFailed),
        (error("no key", code="invalid_api_key"), AuthenticationFailed),
        (error("no credit", type="insufficient_quota"), AuthenticationFailed),
        (error("no such model", status="NOT_FOUND", code="model_not_found"), UnknownModel),
        (error("top_k must be positive", type="invalid_request_error"), ParameterRefused),
    ],
)
def test_an_error_with_status_200_that_concerns_every_request_stops_the_run(body: Any, kind: type[ModelError]) -> None:
    with pytest.raises(kind):
        read_answer(json.dumps(body), endpoint="e", model="m")


@pytest.mark.parametrize("finish", ["stop", "", None, "error"])
@pytest.mark.parametrize("of_the_choice", [True, False])
def test_an_error_beside_an_answer_is_a_failure_and_its_usage_is_kept(finish: str | None, of_the_choice: bool) -> None:
    choice: dict[str, Any] = {"message": {"content": HOLD}, "finish_reason": finish}
    body: dict[str, Any] = {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    (choice if of_the_choice else body)["error"] = {"code": 502, "message": "the provider disconnected"}
    reply = read_answer(json.dumps(body))
    assert (reply.failure, reply.text) == ("server_error", None)
    assert reply.usage == Usage(prompt_tokens=7, completion_tokens=3)


@pytest.mark.parametrize("empty", [None, "", {}, {"code": 0, "message": ""}])
def test_an_empty_error_beside_an_answer_is_none(empty: Any) -> None:
    body = {"choices": [{"message": {"content": HOLD}, "finish_reason": "stop", "error": empty}], "error": empty}
    assert parse_reply(read_answer(json.dumps(body))).valid


@pytest.mark.parametrize("finish", ["PROHIBITED_CONTENT", "content-filtered", "sensitive", "guardrail_intervened"])
def test_a_refusal_that_finish_reason_alone_tells_is_a_refusal(finish: str) -> None:
    reply = read_answer(json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": finish}]}))
    assert parse_reply(reply).provenance.reason == "refused"


def test_the_error_that_a_proxy_passes_on_is_in_the_message() -> None:
    raw = json.dumps(error("response_format json_schema is not supported", param="response_format"))
    with pytest.raises(ParameterRefused, match="Provider returned error: response_format json_schema is not supp") as e:
        read(400, error("Provider returned error", code=400, metadata={"raw": raw}))
    assert "response_format" in e.value.reason  # so that the negotiation steps down


@pytest.mark.parametrize(
    ("delay", "seconds"), [("34s", 34.0), ("7.5s", 7.5), ("0s", 0.0), ("soon", None), (7, None), ("-3s", None)]
)
def test_the_retry_delay_of_an_error_body_is_read(delay: Any, seconds: float | None) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    for body in (error("quota", details=[{"x": 1}, info]), [error("quota", details=[info])]):
        assert read(429, body).retry_after_s == seconds


@pytest.mark.parametrize(
    ("message", "reasoning"),
    [
        ({"content": "", "reasoning_content": "so I hold"}, "so I hold"),
        ({"content": None, "reasoning": "so I hold"}, "so I hold"),
        ({"content": HOLD}, ""),
        ({"content": HOLD, "reasoning_content": None}, ""),
        ({"content": HOLD, "reasoning": {"a": 1}}, ""),
    ],
)
def test_reasoning_apart_from_the_answer_is_read(message: dict[str, Any], reasoning: str) -> None:
    assert read_reasoning(json.dumps({"choices": [{"message": message}]})) == reasoning
    assert read_reasoning("no json") == ""


@pytest.mark.parametrize("text", ["I think I should hold.", HOLD])
def test_an_answer_that_stands_in_the_reasoning_alone_is_told_as_such(text: str) -> None:
    body = {"choices": [{"message": {"content": "", "reasoning_content": text}, "finish_reason": "stop"}]}
    parsed = parse_reply(read_answer(json.dumps(body)))
    assert parsed.provenance.reason == "empty"
    assert f"{len(text)} characters of reasoning" in parsed.detail
    assert ("the answer stands there" in parsed.detail) == (text == HOLD)


def test_a_fault_that_stops_the_same_decision_twice_is_told_with_what_to_do(tmp_path: Any) -> None:
    with ChatServer(lambda _: HOLD) as server:
        server.script = [None] * 4 + ["too_long"] * 3
        config = small_config(tmp_path, server.url, prefetch__depth=0)
        said = [cli("run", config, "-q") for _ in range(2)]
        assert [done.code for done in said] == [1, 1]
        for done in said:
            assert "decision 3 at " in done.err and "maximum context length" in done.err
        assert "has stopped this decision before" not in said[0].err
        assert "has stopped this decision before" in said[1].err and "change the prompt" in said[1].err
        # Another fault there is told as the first of its kind.
        server.api_key = "another"
        assert "has stopped this decision before" not in cli("run", config, "-q").err
        server.api_key, server.script = None, []
        assert cli("run", config, "-q").code == 0
    assert len(list(tmp_path.glob("runs/2*"))) == 1


def test_one_refused_prompt_does_not_end_a_run(tmp_path: Any) -> None:
    with ChatServer(lambda _: HOLD) as server:
        server.script = [None, None, "refused_400", "refused_403", "json_validate_failed", None]
        config = small_config(tmp_path, server.url, prefetch__depth=0)
        done = cli("run", config, "--json", "--limit", 6)
        assert done.code == 0, done.err
        assert done.json["decisions"]["reasons"] == {"invalid: not_json": 1, "invalid: refused": 2}
        # They are replies: recorded, and not paid for again.
        calls = server.calls
        assert cli("run", config, "-q", "--limit", 6, "--fresh").code == 0
        assert server.calls == calls
        (folder, _) = sorted(tmp_path.glob("runs/2*"))
        assert cli("replay", folder, "--json").json["identical"]
