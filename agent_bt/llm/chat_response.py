"""Read HTTP responses of a chat-completions endpoint: a reply, a failure worth a retry, or a `ModelError`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson

from agent_bt.core.errors import AuthenticationFailed, RequestRejected, UnknownModel
from agent_bt.core.types import Reply
from agent_bt.llm.prices import usage_from_body

MAX_MESSAGE_CHARS: Final = 500
MAX_ERROR_BODY_CHARS: Final = 10_000

# The endpoint aborted in the middle of an answer: not the model's doing, so the call is retried.
_INTERRUPTED: Final = ("error", "abort", "insufficient_system_resource")
_NO_MODEL: Final = re.compile(
    r"model\b.{0,200}\b(not (exist|found|available)|does not exist|unknown|not a valid)"
    r"|(unknown|invalid|no such|not a valid) model",
    re.IGNORECASE | re.DOTALL,
)
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
    """

    message: str = ""
    param: str = ""
    code: str = ""


def read_answer(body: str) -> Reply:
    """Return the reply in the body of a 200; its `failure` is `bad_response` where the body holds none.

    `latency_ms` and `attempts` are left to the caller.
    """
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _bad(f"the answer is not JSON ({error.msg}): {_shorten(body)}", body)
    choices = whole.get("choices") if isinstance(whole, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return _bad(f"the answer has no choices: {read_error(body).message or _shorten(body)}", body)
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        return _bad("the answer has no message", body)
    text, refusal = message.get("content"), message.get("refusal")
    if not isinstance(text, str | None):
        return _bad(f"the content is not text but {type(text).__name__}", body)
    if finish in _INTERRUPTED:
        return Reply(
            failure="server_error", error=f"the endpoint aborted the answer: finish_reason {finish}", body=body
        )
    return Reply(
        text=text,
        finish_reason=None if finish is None else str(finish),
        refusal=str(refusal) if refusal else None,
        body=body,
        usage=usage_from_body(whole),
    )


def join_stream(text: str) -> str:
    """Return the body of the completion whose parts a server has sent as events; other text as it is.

    Args:
        text: server-sent events (`data: {...}` lines, HTML Living Standard, section 9.2), as chat completions are
            streamed. Without the last part the result has no choice, so that it counts as unreadable.
    """
    data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    if not data:
        return text
    whole: dict[str, Any] = {"object": "chat.completion"}
    message: dict[str, Any] = {"role": "assistant", "content": None}
    finish, ended = None, False
    for part in data:
        if part == "[DONE]":
            ended = True
            break
        try:
            chunk = orjson.loads(part)
        except orjson.JSONDecodeError:
            return part
        if not isinstance(chunk, dict) or "error" in chunk:
            return part
        whole |= {key: chunk[key] for key in _OF_THE_WHOLE if chunk.get(key) is not None}
        for choice in chunk.get("choices") or []:
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {}
            for key in ("content", "refusal", "reasoning_content", "reasoning"):
                if isinstance(delta.get(key), str):
                    message[key] = (message.get(key) or "") + delta[key]
            finish = choice.get("finish_reason") or finish
    if ended or finish is not None:
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    return orjson.dumps(whole).decode()


_OF_THE_WHOLE = ("id", "created", "model", "system_fingerprint", "service_tier", "usage")


def read_failure(status: int, body: str, *, endpoint: str, model: str) -> Reply:
    """Return the failure or refusal that a status other than 2xx stands for.

    Args:
        status: the HTTP status.
        body: the body, with the API key removed.
        endpoint: the endpoint's name in messages.
        model: the model that was requested.

    Raises:
        AuthenticationFailed: 401, 402, 403, or an account without credit.
        UnknownModel: the endpoint does not know the model.
        ParameterRefused: any other 400 or 422.
        RequestRejected: any other status that a retry does not change.
    """
    details = read_error(body)
    words = f"HTTP {status}: {details.message}" if details.message else f"HTTP {status}"
    kept = body[:MAX_ERROR_BODY_CHARS]
    if status in (401, 402, 403) or details.code in _NO_CREDIT:
        _refuse_access(status, words, endpoint)
    if status == 429:
        return Reply(failure="rate_limit", error=words, body=kept)
    if status == 408:
        return Reply(failure="timeout", error=words, body=kept)
    if status in (409, 425) or status >= 500:
        return Reply(failure="server_error", error=words, body=kept)
    if status == 400 and details.code == "content_filter":
        return Reply(finish_reason="content_filter", refusal=details.message or "the prompt was filtered", body=kept)
    if details.code == "model_not_found" or (status in (400, 404, 422) and _NO_MODEL.search(details.message)):
        raise UnknownModel(f"{endpoint} does not know the model {model!r} ({words}); set llm.model to one it serves")
    if status in (400, 422):
        message = f"{endpoint} rejects the request ({words}); change the llm settings it names"
        raise ParameterRefused(message, reason=details.message, param=details.param)
    raise RequestRejected(f"{endpoint} does not answer chat completions ({words}); check llm.base_url")


def read_error(body: str) -> ErrorDetails:
    """Return the message, parameter and code of an error body in any of the formats that are in use."""
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ErrorDetails(message=_shorten(body))
    error = whole.get("error") or whole if isinstance(whole, dict) else whole
    if not isinstance(error, dict):
        return ErrorDetails(message=_shorten(str(error)))
    message = error.get("message") or error.get("detail") or error
    return ErrorDetails(
        message=_shorten(message if isinstance(message, str) else orjson.dumps(message).decode()),
        param=str(error.get("param") or ""),
        code=str(error.get("code") or error.get("type") or ""),
    )


def _refuse_access(status: int, words: str, endpoint: str) -> NoReturn:
    if status in (401, 403):
        hint = "check the key in the environment variable that llm.api_key_env names"
        raise AuthenticationFailed(f"{endpoint} does not accept the API key ({words}); {hint}")
    raise AuthenticationFailed(f"the account at {endpoint} has no credit ({words})")


def _bad(error: str, body: str) -> Reply:
    return Reply(failure="bad_response", error=error, body=body[:MAX_ERROR_BODY_CHARS])


def _shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MAX_MESSAGE_CHARS else words[: MAX_MESSAGE_CHARS - 3] + "..."
