"""The OpenAI-compatible client against scripted responses: results, retries, waits, and secrets."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import respx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_bt.core.errors import (
    AuthenticationFailed,
    ConfigError,
    EndpointDown,
    ModelError,
    RequestRejected,
    UnknownModel,
)
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.llm.address import OPENAI_BASE_URL, api_key_from_env
from agent_bt.llm.chat_response import ParameterRefused, read_answer, read_failure
from agent_bt.llm.openai_client import OpenAILLM
from agent_bt.llm.retry import MAX_WAIT_S, RetryLLM, compute_wait_s, retry_after_s

URL = "https://llm.example/v1"
KEY = "sk-proj-0123456789abcdef0123456789"
BODY: dict[str, Any] = {
    "model": "m-1",
    "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "price 42 €"}],
    "temperature": 0,
    "max_tokens": 64,
    "seed": 7,
    "reasoning_effort": "low",
    "provider": {"order": ["a", "b"], "x": None},
}
REQUEST = Request(provider="openai", endpoint_id="llm.example", body=BODY)
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
Make = Callable[..., RetryLLM]


def answer(text: str | None = '{"action":"HOLD"}', finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE}


def error(message: str, **members: Any) -> dict[str, Any]:
    return {"error": {"message": message, **members}}


@pytest.fixture
def chat() -> Iterator[respx.Route]:
    with respx.mock(base_url=URL, assert_all_called=False) as router:
        yield router.post("/chat/completions")


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[RetryLLM] = []

    def build(retries: int = 2, backoff_s: float = 0.001, **settings: Any) -> RetryLLM:
        client = OpenAILLM(**{"base_url": URL, "api_key": KEY, "timeout_s": 300, **settings})
        made.append(RetryLLM(client, lambda _: retries, backoff_s))
        return made[-1]

    yield build
    for llm in made:
        llm.close()


def test_an_answer_becomes_a_reply_with_its_raw_body(chat: respx.Route, make: Make) -> None:
    raw = json.dumps(answer(), indent=3)
    chat.respond(200, text=raw)
    reply = make().complete(REQUEST)
    assert (reply.text, reply.finish_reason, reply.refusal, reply.failure) == ('{"action":"HOLD"}', "stop", None, None)
    assert reply.body == raw
    assert reply.usage == Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=64, reasoning_tokens=5)
    assert reply.attempts == 1 and reply.latency_ms > 0


def test_the_body_is_sent_exactly_as_it_is(chat: respx.Route, make: Make) -> None:
    chat.respond(200, json=answer())
    make().complete(REQUEST)
    sent = chat.calls.last.request
    assert json.loads(sent.content) == BODY
    assert sent.headers["authorization"] == f"Bearer {KEY}"


def test_the_default_endpoint_is_openai_whatever_the_environment_says(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    with respx.mock(base_url=OPENAI_BASE_URL) as router:
        router.post("/chat/completions").respond(200, json=answer())
        assert make(base_url=None).complete(REQUEST).failure is None


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "tool_calls", "function_call", "eos", None])
def test_every_finish_reason_is_returned(chat: respx.Route, make: Make, finish: str | None) -> None:
    chat.respond(200, json=answer(finish=finish))
    reply = make().complete(REQUEST)
    assert (reply.finish_reason, reply.failure, chat.call_count) == (finish, None, 1)


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_the_endpoint_aborted_is_retried(chat: respx.Route, make: Make, finish: str) -> None:
    chat.side_effect = [httpx.Response(200, json=answer(finish=finish)), httpx.Response(200, json=answer())]
    reply = make().complete(REQUEST)
    assert (reply.failure, reply.attempts) == (None, 2)


def test_a_refusal_is_an_answer(chat: respx.Route, make: Make) -> None:
    chat.respond(200, json=answer(None, refusal="I can't help with that."))
    reply = make().complete(REQUEST)
    assert (reply.text, reply.refusal, reply.failure, reply.attempts) == (None, "I can't help with that.", None, 1)


def test_a_filtered_prompt_is_a_refusal_not_the_end_of_the_run(chat: respx.Route, make: Make) -> None:
    chat.respond(400, json=error("The prompt was filtered", code="content_filter", param="prompt"))
    reply = make().complete(REQUEST)
    assert (reply.finish_reason, reply.refusal, reply.failure) == ("content_filter", "The prompt was filtered", None)


BAD_BODIES = [
    "<!DOCTYPE html><html>502</html>",
    "",
    "null",
    "[]",
    '"text"',
    "{}",
    '{"choices": []}',
    '{"choices": null}',
    '{"choices": [null]}',
    '{"choices": [{}]}',
    '{"choices": [{"message": null}]}',
    '{"choices": [{"message": {"content": 5}}]}',
    '{"choices": [{"message": {"content": [{"type": "image_url", "image_url": "a"}]}}]}',
    '{"choices": [{"message": {"content": "\\ud800"}}]}',
    '{"choices": [{"message": {"content": "a"}}',
    '{"choices": [{"message": {"content": NaN}}]}',
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_a_200_without_an_answer_is_retried_then_recorded(chat: respx.Route, make: Make, body: str) -> None:
    chat.respond(200, text=body, headers={"content-type": "text/html"})
    reply = make().complete(REQUEST)
    assert (reply.failure, reply.attempts, chat.call_count) == ("bad_response", 3, 3)
    assert reply.text is None and reply.error


def test_bytes_that_are_not_utf8_are_a_bad_response(chat: respx.Route, make: Make) -> None:
    chat.respond(200, content=b'{"choices": [{"message": {"content": "\xff"}}]}')
    assert make(retries=0).complete(REQUEST).failure == "bad_response"


def test_json_with_another_content_type_is_accepted(chat: respx.Route, make: Make) -> None:
    chat.respond(200, text=json.dumps(answer()), headers={"content-type": "text/plain"})
    assert make().complete(REQUEST).failure is None


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (httpx.Response(429, json=error("slow down")), "rate_limit"),
        (httpx.Response(500, text="<html>"), "server_error"),
        (httpx.Response(502), "server_error"),
        (httpx.Response(503, json={"detail": "starting"}), "server_error"),
        (httpx.Response(529, json=error("overloaded")), "server_error"),
        (httpx.Response(409), "server_error"),
        (httpx.Response(408), "timeout"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.RemoteProtocolError("cut"), "connection"),
        (httpx.ReadError("reset"), "connection"),
        (httpx.DecodingError("gzip"), "connection"),
    ],
)
def test_transient_failures_are_retried_then_recorded(
    chat: respx.Route, make: Make, outcome: httpx.Response | Exception, failure: str
) -> None:
    if isinstance(outcome, Exception):
        chat.side_effect = outcome
    else:
        chat.return_value = outcome
    reply = make().complete(REQUEST)
    assert (reply.failure, reply.attempts, chat.call_count) == (failure, 3, 3)
    assert reply.error and reply.text is None
    chat.side_effect = None
    chat.return_value = httpx.Response(200, json=answer())
    assert make().complete(REQUEST).failure is None


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (httpx.ConnectTimeout("slow"), "timeout"),
        (httpx.ConnectError("refused"), "connection"),
        (httpx.PoolTimeout("busy"), "timeout"),
        (httpx.ProxyError("no way through"), "connection"),
        (httpx.LocalProtocolError("not a header"), "connection"),
    ],
)
def test_an_attempt_that_never_reached_the_endpoint_is_retried_and_not_counted(
    chat: respx.Route, make: Make, outcome: Exception, failure: str
) -> None:
    chat.side_effect = outcome
    reply = make().complete(REQUEST)
    assert (reply.failure, reply.attempts, chat.call_count) == (failure, 0, 3)
    chat.side_effect = [outcome, httpx.Response(503), httpx.Response(200, json=answer())]
    assert make().complete(REQUEST).attempts == 2


def test_no_retries_means_one_attempt(chat: respx.Route, make: Make) -> None:
    chat.respond(500)
    assert make(retries=0).complete(REQUEST).attempts == 1 == chat.call_count


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, error("Incorrect API key"), AuthenticationFailed, "llm.api_key_env"),
        (403, error("Country not supported"), AuthenticationFailed, "Country"),
        (402, error("Insufficient Balance"), AuthenticationFailed, "credit"),
        (429, error("You exceeded your quota", code="insufficient_quota"), AuthenticationFailed, "credit"),
        (404, error("The model `m-1` does not exist", code="model_not_found"), UnknownModel, "m-1"),
        (404, error('model "m-1" not found, try pulling it first'), UnknownModel, "llm.model"),
        (400, error("Model Not Exist"), UnknownModel, "m-1"),
        (400, error("m-1 is not a valid model ID"), UnknownModel, "m-1"),
        (404, {"detail": "Not Found"}, RequestRejected, "llm.base_url"),
        (405, None, RequestRejected, "llm.base_url"),
        (302, None, RequestRejected, "llm.base_url"),
        (413, error("too large"), RequestRejected, "too large"),
        (400, error("'temperature' does not support 0", param="temperature"), RequestRejected, "temperature"),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "extra"}]}, RequestRejected, "seed"),
        (400, {"object": "error", "message": "This model's maximum context length is 8"}, RequestRejected, "context"),
        (400, {"error": "invalid options: seed"}, RequestRejected, "seed"),
    ],
)
def test_permanent_failures_are_raised_at_once(
    chat: respx.Route, make: Make, status: int, body: Any, kind: type[ModelError], words: str
) -> None:
    chat.respond(status, json=body)
    with pytest.raises(kind) as caught:
        make().complete(REQUEST)
    assert words in str(caught.value) and chat.call_count == 1
    assert type(caught.value) in (kind, ParameterRefused)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(status=st.integers(200, 599), body=st.binary(max_size=40) | st.sampled_from([b"{}", b'{"error": 5}', b"[]"]))
def test_any_response_is_a_reply_or_a_model_error(shared: OpenAILLM, status: int, body: bytes) -> None:
    with respx.mock(base_url=URL) as router:
        router.post("/chat/completions").respond(status, content=body)
        try:
            reply = shared.complete(REQUEST)
        except ModelError:
            assert status >= 300
        else:
            assert reply.failure is not None


@pytest.fixture(scope="module")
def shared() -> Iterator[OpenAILLM]:
    llm = OpenAILLM(base_url=URL, api_key=KEY)
    yield llm
    llm.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
KEYS = st.sampled_from(
    ["choices", "message", "content", "finish_reason", "refusal", "usage", "error", "detail", "code", "param",
     "prompt_tokens", "prompt_tokens_details", "cached_tokens"]
)  # fmt: skip
ENVELOPES = st.recursive(
    JSON, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)


@settings(max_examples=150)
@given(ENVELOPES, st.sampled_from([400, 401, 404, 408, 418, 422, 429, 500]))
def test_no_json_body_breaks_the_readers(value: Any, status: int) -> None:
    body = json.dumps(value)
    assert isinstance(read_answer(body), Reply)
    try:
        assert isinstance(read_failure(status, body, endpoint="e", model="m"), Reply)
    except ModelError as raised:
        assert str(raised)


def test_invalid_usage_does_not_lose_the_answer(chat: respx.Route, make: Make) -> None:
    for usage in (None, [], {}, {"prompt_tokens": "9"}, {"prompt_tokens": -1, "completion_tokens": 1}):
        chat.respond(200, json={**answer(), "usage": usage})
        reply = make().complete(REQUEST)
        assert reply.failure is None and reply.usage is None
    chat.respond(200, json={**answer(), "usage": {"prompt_tokens": 9, "completion_tokens": 1,
                                                  "prompt_cache_hit_tokens": 8}})  # fmt: skip
    assert make().complete(REQUEST).usage == Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=8)


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"Retry-After-Ms": "150", "Retry-After": "9"}, 0.15),
        ({"Retry-After-Ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: Mapping[str, str], expected_s: float | None) -> None:
    assert retry_after_s(httpx.Headers(headers)) == expected_s


@pytest.mark.parametrize(
    "form",
    [
        "%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S -0000", "%a, %d %b %Y %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S",
    ],
)  # fmt: skip
def test_a_date_of_retry_after_is_utc_wherever_this_machine_is(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        text = time.strftime(form, time.gmtime(time.time() + 20_000))
        assert 19_900 < (retry_after_s({"retry-after": text}) or 0) <= 20_000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"), [("7s", 7.0), ("1m30s", 90.0), ("250ms", 0.25), ("7 bananas", None), ("s", None)]
)
def test_retry_after_with_a_unit_is_read(text: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": text}) == seconds


def test_retry_after_as_a_date_is_the_time_until_then() -> None:
    then = datetime.now(UTC) + timedelta(seconds=30)
    wait_s = retry_after_s(httpx.Headers({"Retry-After": format_datetime(then, usegmt=True)}))
    assert wait_s is not None and 25 < wait_s <= 30


def test_the_wait_is_what_the_server_asks_for(chat: respx.Route, make: Make) -> None:
    chat.side_effect = [
        httpx.Response(429, headers={"Retry-After-Ms": "120"}),
        httpx.Response(200, json=answer()),
    ]
    begun = time.perf_counter()
    assert make(backoff_s=2 * MAX_WAIT_S).complete(REQUEST).attempts == 2
    # Its own wait would be at least half of the longest one.
    assert 0.12 <= time.perf_counter() - begun < MAX_WAIT_S / 2


def test_waits_double_with_jitter_and_are_capped() -> None:
    for number, top_s in ((1, 0.5), (2, 1.0), (3, 2.0), (9, MAX_WAIT_S), (500, MAX_WAIT_S)):
        waits = [compute_wait_s(number, None, 0.5) for _ in range(200)]
        assert top_s / 2 <= min(waits) < max(waits) <= top_s
    assert compute_wait_s(1, 3600.0) == MAX_WAIT_S
    asked = [compute_wait_s(1, 10.0) for _ in range(200)]
    assert 10.0 <= min(asked) < max(asked) <= 11.0


@pytest.mark.parametrize("echo", [f"bad key {KEY}!", f"Bearer {KEY}", "Incorrect API key provided: sk-pr***6789."])
def test_the_key_appears_nowhere(chat: respx.Route, make: Make, caplog: pytest.LogCaptureFixture, echo: str) -> None:
    caplog.set_level(logging.DEBUG)
    llm = make()
    shown = [repr(vars(llm)["_inner"]), str(vars(vars(llm)["_inner"])["_endpoint"])]
    for status in (401, 404, 400, 500, 418):
        chat.respond(status, json=error(echo))
        try:
            reply = llm.complete(REQUEST)
            shown += [repr(reply)]
        except ModelError as raised:
            shown += [str(raised), repr(raised)]
    chat.side_effect = httpx.LocalProtocolError(echo)
    shown += [repr(llm.complete(REQUEST))]
    chat.side_effect = None
    chat.respond(200, json=answer(echo))
    shown += [repr(llm.complete(REQUEST))]
    everything = "\n".join([*shown, caplog.text, *(str(record.__dict__) for record in caplog.records)])
    assert KEY not in everything and KEY[3:] not in everything
    assert "sk-pr***6789" not in "\n".join(shown[:-1])


@pytest.mark.parametrize("key", ["", "sk-abc\n", "schlüssel", "a\x00b"])
def test_a_key_that_cannot_be_a_header_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        OpenAILLM(base_url=URL, api_key=key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "https://", "http://[::1", "http://x:port/v1", "/v1"])
def test_an_invalid_address_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"llm\.base_url"):
        OpenAILLM(base_url=url)


def test_credentials_in_the_address_are_not_shown() -> None:
    llm = OpenAILLM(base_url="https://user:secret@llm.example/v1?token=secret")
    llm.close()
    assert repr(llm) == "OpenAILLM(base_url='https://llm.example/v1')"


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    assert api_key_from_env("SOME_KEY") == KEY
    monkeypatch.setenv("SOME_KEY", "")
    with pytest.raises(AuthenticationFailed, match="SOME_KEY"):
        api_key_from_env("SOME_KEY")
    with pytest.raises(AuthenticationFailed, match="SOME_KEY"):
        api_key_from_env("SOME_KEY", base_url=URL)
    for local in ("http://localhost:11434/v1", "http://127.0.0.1:8080/v1", "http://[::1]:1/v1"):
        assert api_key_from_env("SOME_KEY", base_url=local) == "none"


def test_a_closed_client_is_an_error(make: Make) -> None:
    llm = make()
    llm.close()
    llm.close()
    with pytest.raises(EndpointDown, match="closed"):
        llm.complete(REQUEST)
