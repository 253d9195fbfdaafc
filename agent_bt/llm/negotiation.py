"""Format negotiation: find out before the first decision which parameters an endpoint accepts.

1. `negotiate` sends one small request per step: json_schema, then json_object, then text.
2. A 400 or 422 that names a parameter is the only reason to change it: the next step for the response format,
   `max_tokens` becomes `max_completion_tokens`, a `temperature` that is not supported is left out.
3. The result is a value that is stored with the run; `apply` changes any body by it, offline.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from agent_bt.core.errors import EndpointDown
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.chat_response import ParameterRefused
from agent_bt.llm.grammar import gbnf

logger = logging.getLogger(__name__)

ResponseFormat = Literal["json_schema", "json_object", "text", "grammar"]
TokenParameter = Literal["max_tokens", "max_completion_tokens"]

MAX_STEPS: Final = 6
"""The most test requests of a negotiation: the response formats, each parameter that may change, and what is left."""

RESPONSE_FORMATS: Final[tuple[ResponseFormat, ...]] = ("json_schema", "json_object", "text")
PROBE: Final = [{"role": "user", "content": 'Answer with the JSON object {"action": "HOLD"} and nothing else.'}]
RANK_PROBE: Final = [{"role": "user", "content": 'Answer with the JSON object {"weights": []} and nothing else.'}]

_NAMES_OF: Final = {
    "response_format": ("response_format", "json_schema", "json_object"),
    "max_tokens": ("max_tokens",),
    "temperature": ("temperature",),
    "stream_options": ("stream_options",),
}
# A value out of range also names its parameter, but is the user's to correct.
_UNSUPPORTED: Final = re.compile(r"support|unrecogni|unknown|permitted|allowed|deprecated|only|instead", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiationResult:
    """The parameters that an endpoint accepts.

    Attributes:
        response_format: the best response format that it accepts.
        token_parameter: the body's key for the limit of completion tokens.
        dropped: body parameters that are left out.
        refusals: the endpoint's messages on what it does not accept.
        calls, prompt_tokens, completion_tokens: what the negotiation has cost.
        model_hash: SHA-256 of the model's file; empty where it is not known.
    """

    response_format: ResponseFormat = "json_schema"
    token_parameter: TokenParameter = "max_tokens"
    dropped: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_hash: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        data = asdict(self) | {"dropped": list(self.dropped), "refusals": list(self.refusals)}
        if not self.model_hash:
            del data["model_hash"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NegotiationResult:
        """Return the result that `to_dict` has written."""
        return cls(**{**data, "dropped": tuple(data["dropped"]), "refusals": tuple(data["refusals"])})


def negotiate(
    llm: LLM,
    base_body: Mapping[str, Any],
    *,
    wanted: Literal["auto", "json_schema", "json_object", "text", "grammar"],
    schema: Mapping[str, Any],
    provider: str = "openai",
    endpoint_id: str = "",
    probe: Sequence[Mapping[str, str]] = PROBE,
) -> NegotiationResult:
    """Send test requests, step by step, until the endpoint accepts one.

    Args:
        llm: where the requests are sent; not through a cache.
        base_body: the body of the run's requests, without messages; its parameters are sent with each test.
        wanted: `auto`, or the one response format that is acceptable.
        schema: JSON Schema of the replies.
        provider: of the requests.
        endpoint_id: of the requests.
        probe: messages that ask for a valid reply.

    Raises:
        EndpointDown: a test got no answer, after the retries.
        ModelError: the endpoint rejects the request for another reason, or at the last step that is allowed.
    """
    found = NegotiationResult(response_format="json_schema" if wanted == "auto" else wanted)
    while True:
        body = apply(found, {**base_body, "messages": list(probe)}, schema)
        found = replace(found, calls=found.calls + 1)
        try:
            reply = llm.complete(Request(provider=provider, endpoint_id=endpoint_id, body=body))
        except ParameterRefused as refusal:
            logger.info("the endpoint refuses a parameter: %s", refusal.reason)
            found = _next_step(found, refusal, body, may_change_format=wanted == "auto")
            continue
        if reply.failure is not None:
            raise EndpointDown(f"the endpoint does not answer ({reply.failure}: {reply.error}); try again later")
        logger.info(
            "the endpoint accepts response_format %s and %s%s, found in %d calls",
            *(found.response_format, found.token_parameter),
            *("".join(f", no {name}" for name in found.dropped), found.calls),
        )
        return _add_usage(found, reply)


def apply(negotiated: NegotiationResult, body: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body as the endpoint accepts it.

    Args:
        negotiated: what the endpoint accepts.
        body: the body as configured, messages included.
        schema: JSON Schema of the reply; where `response_format` is not json_schema it is added to the messages.
    """
    sent = {key: value for key, value in body.items() if key not in negotiated.dropped}
    sent.pop("response_format", None)
    if negotiated.token_parameter == "max_completion_tokens" and "max_tokens" in sent:
        sent.setdefault("max_completion_tokens", sent.pop("max_tokens"))
    if negotiated.response_format == "json_schema":
        named = {"name": "reply", "strict": True, "schema": strict_schema(schema)}
        return {**sent, "response_format": {"type": "json_schema", "json_schema": named}}
    if negotiated.response_format == "grammar":
        return {**sent, "grammar": gbnf(schema)}
    sent["messages"] = with_schema(sent["messages"], schema)
    if negotiated.response_format == "json_object":
        sent["response_format"] = {"type": "json_object"}
    return sent


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an object's schema that every endpoint accepts in strict mode.

    All properties required, no conditions, no limits of value or length: what it allows and `schema` does not is
    found by the local check of the reply.
    """
    kept = ("type", "enum", "const", "description")
    strict = {key: value for key, value in schema.items() if key in kept}
    if "items" in schema:
        strict["items"] = strict_schema(schema["items"])
    if schema.get("type") == "object":
        properties = {name: strict_schema(member) for name, member in schema["properties"].items()}
        strict |= {"properties": properties, "required": list(properties), "additionalProperties": False}
    return strict


def with_schema(messages: list[dict[str, str]], schema: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the messages with the schema at the end of the system message, which is added where there is none.

    Args:
        messages: `role` and `content` each.
        schema: JSON Schema of the reply.
    """
    # The wording is part of every prompt that was sent, and so of the addresses of cached replies.
    text = json.dumps({key: value for key, value in schema.items() if key != "$schema"})
    order = f"Answer with one JSON object and nothing else, valid against this JSON Schema:\n{text}"
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{order}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": order}, *messages]


def _next_step(
    found: NegotiationResult, refusal: ParameterRefused, body: Mapping[str, Any], *, may_change_format: bool
) -> NegotiationResult:
    noted = replace(found, refusals=(*found.refusals, refusal.reason))
    unsupported = _UNSUPPORTED.search(refusal.reason)
    for parameter in _named(refusal):
        if parameter == "max_tokens" and parameter in body and unsupported:
            return replace(noted, token_parameter="max_completion_tokens")
        if parameter in ("temperature", "stream_options") and parameter in body and unsupported:
            return replace(noted, dropped=(*found.dropped, parameter))
        if parameter == "response_format" and may_change_format and found.response_format != "text":
            return replace(noted, response_format=RESPONSE_FORMATS[RESPONSE_FORMATS.index(found.response_format) + 1])
    raise refusal


def _named(refusal: ParameterRefused) -> list[str]:
    """Return the parameters that a refusal names, the one in its `param` first."""
    named = [name for name, words in _NAMES_OF.items() if any(word in refusal.reason for word in words)]
    pointed = [name for name in _NAMES_OF if refusal.param.split(".")[0] == name]
    return list(dict.fromkeys([*pointed, *named]))


def _add_usage(found: NegotiationResult, reply: Reply) -> NegotiationResult:
    if reply.usage is None:
        return found
    return replace(found, prompt_tokens=reply.usage.prompt_tokens, completion_tokens=reply.usage.completion_tokens)
