"""Read HTTP responses of a chat-completions endpoint: a reply, a failure worth a retry, or a `ModelError`.

What goes wrong is one of three things, whatever its status and its words:

| it concerns | recognised by | becomes |
|---|---|---|
| this prompt | `_REFUSED`, `_NOT_JSON` | a reply that is a refusal, or not JSON: recorded as `invalid` |
| this moment | 5xx, `_TRANSIENT_STATUS`, `_RATE_LIMIT`, `_ROUTER`, `_INTERRUPTED` | a failure: sent again, not stored |
| every request | 401, 402, 403, `_NO_CREDIT`, `_WRONG_KEY`, `_NO_MODEL`, the rest | a `ModelError`: ends the run |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

import orjson

from agent_bt.core.errors import AuthenticationFailed, RequestRejected, UnknownModel
from agent_bt.core.types import Reply
from agent_bt.llm.prices import usage_from_body

MAX_MESSAGE_CHARS: Final = 500
MAX_ERROR_BODY_CHARS: Final = 10_000

# The endpoint gave up in the middle of an answer: not the model's doing.
_INTERRUPTED: Final = {
    "error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "network_error",
    "server_error", "internal_error", "model_error", "timeout", "time_out", "overloaded", "unavailable", "failed",
}  # fmt: skip
# Kinds of refusal that are told in finish_reason alone, beside `content_filter`, which `parse_reply` knows.
_REFUSED_FINISH: Final = {
    "prohibited_content", "blocklist", "spii", "recitation", "sensitive", "content_filtered", "guardrail_intervened",
    "moderation", "blocked",
}  # fmt: skip
_REFUSED: Final = re.compile(
    r"content[_ ]?(filter|policy|management policy|moderation)|contentpolicy|data_?inspection|inappropriate content"
    r"|prohibited[_ ]content|safety|moderation|flagged|responsible ?ai|sensitive (content|words|information)"
    r"|blocked by (our|the|google|azure|a )|guard ?rails?\b|(prompt|input) (was |has been |is )?blocked"
    r"|violat\w+ .{0,40}(policy|policies|terms|guidelines)|usage polic",
    re.IGNORECASE,
)
# The model's answer did not pass the endpoint's own check of JSON or schema.
_NOT_JSON: Final = re.compile(r"json_validate_failed|failed to (generate|validate) (valid )?json", re.IGNORECASE)
_TRANSIENT_STATUS: Final = (409, 425, 498, 499)
_RATE_LIMIT: Final = re.compile(r"rate.?limit|tokens per (minute|day)|\btpm\b|\brpm\b|too many requests", re.IGNORECASE)
_ROUTER: Final = re.compile(
    r"no (healthy|available|active) |not ready|loading|temporarily|try again"
    r"|no .{0,30}(endpoints?|providers?|instances?|upstreams?|backends?|replicas?|workers?) (found|available|ready)",
    re.IGNORECASE,
)
_WRONG_KEY: Final = re.compile(r"api[_ ]?key[_ ](is )?(not valid|invalid|expired)|invalid api[_ ]?key", re.IGNORECASE)
_UNKNOWN_PARAMETER: Final = re.compile(
    r"(unknown|unsupported|unrecogni[sz]ed|unexpected) (parameter|argument|key|field|name)|extra inputs"
    r"|\b(unsupported|not supported|not permitted|is not (a )?(known|valid|supported|recogni[sz]ed))\b",
    re.IGNORECASE,
)
_PARAMETERS: Final = re.compile(r"requested parameters|support\w* .{0,40}(parameters|response_format)", re.IGNORECASE)
_NO_MODEL: Final = re.compile(
    r"model\b.{0,200}\b(not (exist|found|available)|does not exist|unknown|not a valid)"
    r"|(unknown|invalid|no such|not a valid) model",
    re.IGNORECASE | re.DOTALL,
)
_STATUS_OF_KIND: Final = {
    "invalid_api_key": 401, "authentication_error": 401, "unauthorized": 401, "unauthenticated": 401,
    "insufficient_quota": 402, "insufficient_balance": 402, "billing_hard_limit_reached": 402,
    "permission_error": 403, "permission_denied": 403, "model_not_found": 404, "not_found_error": 404, "not_found": 404,
    "invalid_request_error": 400, "invalid_argument": 400, "invalid_parameter": 400, "badrequesterror": 400,
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "too_many_requests": 429, "resource_exhausted": 429,
    "overloaded_error": 503, "server_error": 500, "internal_server_error": 500, "service_unavailable": 503,
}  # fmt: skip
"""HTTP status by the code or type of an error, for errors that come with another status than their own."""

_NO_CREDIT: Final = ("insufficient_quota", "insufficient_balance", "billing_hard_limit_reached")


class ParameterRefused(RequestRejected):
    """A 400 or 422: the endpoint does not accept the body.

    Args:
        message: the complete error message.
        reason: see the attribute.
        param: see the attribute.

    Attributes:
        reason: the endpoint's own message.
        param: the body's key that it names; empty where it names none.
    """

    def __init__(self, message: str, *, reason: str = "", param: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetails:
    """The content of an error response; empty where it does not say.

    Attributes:
        message: text for humans, shortened.
        param: the parameter it is about.
        code: machine-readable kind.
        inner: code of an error inside this one.
        retry_after_s: how long to wait, in seconds; None: it does not say.
    """

    message: str = ""
    param: str = ""
    code: str = ""
    inner: str = ""
    retry_after_s: float | None = None

    @property
    def words(self) -> str:
        """All that tells what kind of error it is."""
        return f"{self.code} {self.inner} {self.message}"


def read_answer(body: str, *, endpoint: str = "the endpoint", model: str = "") -> Reply:
    """Return the reply in the body of a 200; its `failure` is `bad_response` where the body holds none.

    `latency_ms` and `attempts` are left to the caller.

    Args:
        body: the body, with the API key removed.
        endpoint: the endpoint's name in messages.
        model: the model that was requested.

    Raises:
        ModelError: the body is an error that concerns every request; see `read_failure`.
    """
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _bad(f"the answer is not JSON ({error.msg}): {_shorten(body)}", body)
    choices = whole.get("choices") if isinstance(whole, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        status = _status_of_error(whole)
        if status is not None:
            return read_failure(status, body, endpoint=endpoint, model=model)
        return _bad(f"the answer has no choices: {read_error(body).message or _shorten(body)}", body)
    for inner in (whole.get("error"), choices[0].get("error")):
        if _says_something(inner):
            # What was written before the error is no answer.
            told = {"error": inner}
            status = _status_of_error(told) or 500
            reply = read_failure(status, orjson.dumps(told).decode(), endpoint=endpoint, model=model)
            return replace(reply, body=body, usage=usage_from_body(whole))
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        return _bad("the answer has no message", body)
    text, refusal = _text_of(message.get("content")), message.get("refusal")
    if not isinstance(text, str | None):
        return _bad(f"the content is not text but {type(text).__name__}", body)
    finish = None if finish is None or str(finish).lower() in ("", "null", "none") else str(finish)
    if finish is not None and finish.lower() in _INTERRUPTED:
        return Reply(
            failure="server_error",
            error=f"the endpoint gave up on the answer: finish_reason {finish}",
            body=body,
            usage=usage_from_body(whole),
        )
    if not refusal and finish is not None and finish.lower().replace("-", "_") in _REFUSED_FINISH:
        refusal = f"finish_reason {finish}"
    return Reply(
        text=text,
        finish_reason=finish,
        refusal=str(refusal) if refusal else None,
        body=body,
        usage=usage_from_body(whole),
    )


def read_reasoning(body: str) -> str:
    """Return the text that a model has written apart from its answer; empty where there is none.

    Args:
        body: of the response, as it was received.
    """
    try:
        message = orjson.loads(body)["choices"][0]["message"]
        found = message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
        if not found and isinstance(message.get("content"), list):
            parts = [part for part in message["content"] if part.get("type") in _REASONING_PARTS]
            inner = [part.get("thinking") or part.get("text") for part in parts]
            found = "".join(each if isinstance(each, str) else _text_of(each) or "" for each in inner)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return found if isinstance(found, str) else ""


def read_failure(status: int, body: str, *, endpoint: str, model: str, answered: bool = False) -> Reply:
    """Return the failure or refusal that a status other than 2xx stands for.

    Args:
        status: the HTTP status.
        body: the body, with the API key removed.
        endpoint: the endpoint's name in messages.
        model: the model that was requested.
        answered: whether the endpoint has answered another request already, so that its address is right.

    Raises:
        AuthenticationFailed: 401, 402, 403, or an account without credit.
        UnknownModel: the endpoint does not know the model.
        ParameterRefused: any other 400 or 422, and what names parameters that nothing behind a router supports.
        RequestRejected: any other status that a retry does not change.
    """
    details = read_error(body)
    if status in (400, 422) and _STATUS_OF_KIND.get(details.code.lower(), 0) in (429, 500, 503):
        status = _STATUS_OF_KIND[details.code.lower()]
    words = f"HTTP {status}: {details.message}" if details.message else f"HTTP {status}"
    kept = body[:MAX_ERROR_BODY_CHARS]
    if _NOT_JSON.search(details.words):
        # Words that are certainly no valid reply, so that it is invalid for what it is.
        return Reply(text=words, finish_reason="stop", body=kept)
    if status not in (401, 402, 429) and _is_refusal(body, details):
        return Reply(finish_reason="content_filter", refusal=details.message or "the prompt was refused", body=kept)
    if status in (401, 402, 403) or details.code in _NO_CREDIT or _WRONG_KEY.search(details.words):
        _refuse_access(status, words, endpoint)
    failure = _transient(status, details, answered=answered)
    if failure is not None:
        return Reply(failure=failure, error=words, body=kept, retry_after_s=details.retry_after_s)
    if details.code == "model_not_found" or (status in (400, 404, 422) and _NO_MODEL.search(details.message)):
        raise UnknownModel(f"{endpoint} does not know the model {model!r} ({words}); set llm.model to one it serves")
    if status in (400, 422) or (status == 404 and _PARAMETERS.search(details.message)):
        message = f"{endpoint} rejects the request ({words}); change the llm settings it names"
        raise ParameterRefused(message, reason=details.message, param=details.param)
    raise RequestRejected(f"{endpoint} does not answer chat completions ({words}); check llm.base_url")


def _is_refusal(body: str, details: ErrorDetails) -> bool:
    """Return whether an error says that the content is not wanted; a page of a firewall says nothing about that."""
    structured = body.lstrip()[:1] in ("{", "[")
    return structured and bool(_REFUSED.search(details.words)) and not _UNKNOWN_PARAMETER.search(details.message)


def _transient(status: int, details: ErrorDetails, *, answered: bool) -> str | None:
    """Return the failure of a status that may be another one a moment later; None for the others."""
    if status == 429 or (status == 413 and _RATE_LIMIT.search(details.words)):
        return "rate_limit"
    if status == 408:
        return "timeout"
    if status in _TRANSIENT_STATUS or status >= 500:
        return "server_error"
    if status == 404 and not _PARAMETERS.search(details.message):
        # A router without a healthy server behind it; or an address that was right a moment ago.
        named = _NO_MODEL.search(details.message) or details.code == "model_not_found"
        if _ROUTER.search(details.message) or (answered and not named):
            return "server_error"
    return None


def read_error(body: str) -> ErrorDetails:
    """Return the message, parameter and code of an error body in any of the formats that are in use."""
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ErrorDetails(message=_shorten(body))
    if isinstance(whole, list) and whole and isinstance(whole[0], dict):
        whole = whole[0]
    error = whole.get("error") or whole if isinstance(whole, dict) else whole
    if not isinstance(error, dict):
        return ErrorDetails(message=_shorten(str(error)))
    found = error.get("message") or error.get("detail") or error
    message = found if isinstance(found, str) else orjson.dumps(found).decode()
    inner = _inner_error(error)
    if inner.message and inner.message not in message:
        message = f"{message}: {inner.message}"
    return ErrorDetails(
        message=_shorten(message),
        param=str(error.get("param") or ""),
        code=str(error.get("code") or error.get("type") or error.get("status") or ""),
        inner=inner.code,
        retry_after_s=_retry_delay_s(error),
    )


def _inner_error(error: Mapping[str, Any]) -> ErrorDetails:
    """Return the error that another one passes on: OpenRouter's `metadata.raw`, Azure's `innererror`."""
    metadata, azure = error.get("metadata"), error.get("innererror") or error.get("inner_error")
    if isinstance(azure, dict):
        return ErrorDetails(code=str(azure.get("code") or ""))
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if not raw:
        return ErrorDetails()
    return read_error(raw if isinstance(raw, str) else orjson.dumps(raw).decode())


def _retry_delay_s(error: Mapping[str, Any]) -> float | None:
    """Return the wait of Google's RetryInfo: `"retryDelay": "34.5s"` among the details of an error."""
    details = error.get("details")
    for each in details if isinstance(details, list) else []:
        found = _SECONDS.fullmatch(str(each.get("retryDelay"))) if isinstance(each, dict) else None
        if found:
            return float(found[1])
    return None


_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s")


def _status_of_error(whole: Any) -> int | None:
    """Return the status that an error inside a 200 stands for; None where there is no error."""
    if isinstance(whole, list) and whole:
        whole = whole[0]
    error = whole.get("error") if isinstance(whole, dict) else None
    if not _says_something(error):
        return None
    if not isinstance(error, dict):
        return 500
    for name in ("code", "status", "type"):
        value = str(error.get(name)).lower()
        number = int(value) if value.isdigit() and len(value) == 3 else _STATUS_OF_KIND.get(value, 0)
        if 400 <= number < 600:
            return number
    return 500


def _says_something(error: Any) -> bool:
    """Return whether the value of `error` is one; some servers send an empty one with every answer."""
    return any(error.values()) if isinstance(error, dict) else bool(error)


def _text_of(content: Any) -> Any:
    """Return the text of a content that is a list of parts, without those of reasoning; anything else as it is."""
    if not isinstance(content, list):
        return content
    parts = [part for part in content if not (isinstance(part, dict) and part.get("type") in _REASONING_PARTS)]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if len(known) == len(texts) else content


_REASONING_PARTS: Final = ("thinking", "reasoning", "redacted_thinking")


def _refuse_access(status: int, words: str, endpoint: str) -> NoReturn:
    if status in (400, 401, 403):
        hint = "check the key in the environment variable that llm.api_key_env names"
        raise AuthenticationFailed(f"{endpoint} does not accept the API key ({words}); {hint}")
    raise AuthenticationFailed(f"the account at {endpoint} has no credit ({words})")


def _bad(error: str, body: str) -> Reply:
    return Reply(failure="bad_response", error=error, body=body[:MAX_ERROR_BODY_CHARS])


def _shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MAX_MESSAGE_CHARS else words[: MAX_MESSAGE_CHARS - 3] + "..."
