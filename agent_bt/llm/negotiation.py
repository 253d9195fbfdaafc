"""Format negotiation: find out before the first decision which parameters an endpoint accepts.

1. `negotiate` sends one small request per step. Response formats: JSON Schema as strict mode wants it, a plain JSON
   Schema (`dialect: plain`), json_object, text.
2. What the endpoint says decides the next step: a refusal of the format or schema, in whatever words, changes the
   format; `max_tokens` becomes `max_completion_tokens`; a `temperature` that is not supported is left out. A server
   error that all retries meet, on a request that no step has passed yet, counts as a refusal of the format.
3. The result is a value that is stored with the run; `apply` changes any body by it, offline.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from agent_bt.core.errors import EndpointDown, RequestRejected
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.chat_response import ParameterRefused
from agent_bt.llm.grammar import gbnf

logger = logging.getLogger(__name__)

ResponseFormat = Literal["json_schema", "json_object", "text", "grammar"]
Dialect = Literal["strict", "plain"]
TokenParameter = Literal["max_tokens", "max_completion_tokens"]

MAX_STEPS: Final = 7
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
# Other words for a response format or its schema that an endpoint does not take.
_ABOUT_FORMAT: Final = re.compile(
    r"structured[ _]?outputs?|json[ _]?mode|json[ _]?schema|response[ _]?format|guided[ _]?(json|decoding)|grammar"
    r"|additional_?properties|\bschemas?\b|\bif\b.{0,20}\b(then|else)\b|constrained (decoding|generation)|xgrammar"
    r"|outlines|llguidance|lm-format-enforcer|response[ _]?mime[ _]?type|requested parameters"
    r"|output format|format type",
    re.IGNORECASE,
)
# What is said of the schema itself, and not of the format that carries it.
_ABOUT_SCHEMA: Final = re.compile(
    r"additional_?properties|invalid (json )?schema|\b(if|then|else|const|strict)\b|keyword"
    r"|(?<!json[_ ])\bschemas?\b.{0,60}(support|invalid|valid|allowed|accept)|support.{0,60}(?<!json[_ ])\bschemas?\b",
    re.IGNORECASE,
)
# A value out of range also names its parameter, but is the user's to correct.
_UNSUPPORTED: Final = re.compile(
    r"support|unrecogni|unknown|permitted|allowed|deprecated|only|instead|n[o']t (\w+ )?(accept|available|enabled)"
    r"|cannot be (used|set)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiationResult:
    """The parameters that an endpoint accepts.

    Attributes:
        response_format: the best response format that it accepts.
        dialect: of the JSON Schema that is sent: `strict`, or `plain`, without `additionalProperties` and strict mode.
        token_parameter: the body's key for the limit of completion tokens.
        dropped: body parameters that are left out.
        refusals: the endpoint's messages on what it does not accept.
        calls, prompt_tokens, completion_tokens: what the negotiation has cost.
        model_hash: SHA-256 of the model's file; empty where it is not known.
    """

    response_format: ResponseFormat = "json_schema"
    dialect: Dialect = "strict"
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
        # What was added later is written only where it says something.
        if not self.model_hash:
            del data["model_hash"]
        if self.dialect == "strict":
            del data["dialect"]
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
    failed: NegotiationResult | None = None

    def ask(step: NegotiationResult) -> Reply:
        body = apply(step, {**base_body, "messages": list(probe)}, schema)
        return llm.complete(Request(provider=provider, endpoint_id=endpoint_id, body=body))

    while True:
        found = replace(found, calls=found.calls + 1)
        try:
            reply = ask(found)
        except ParameterRefused as refusal:
            logger.info("the endpoint refuses a parameter: %s", refusal.reason)
            body = apply(found, {**base_body, "messages": list(probe)}, schema)
            found = _next_step(found, refusal, body, may_change_format=wanted == "auto")
            continue
        if reply.failure == "server_error" and wanted == "auto" and found.response_format != "text":
            logger.info("the endpoint fails with %s: %s", found.response_format, reply.error)
            failed = failed or found
            found = _lower_format(replace(found, refusals=(*found.refusals, reply.error or "server error")))
            continue
        if reply.failure is not None:
            raise EndpointDown(f"the endpoint does not answer ({reply.failure}: {reply.error}); try again later")
        if failed is not None:
            found, reply = _ask_again(found, reply, failed, ask)
        logger.info(
            "the endpoint accepts response_format %s and %s%s, found in %d calls",
            *(found.response_format, found.token_parameter),
            *("".join(f", no {name}" for name in found.dropped), found.calls),
        )
        return _add_usage(found, reply)


def _ask_again(
    found: NegotiationResult, reply: Reply, failed: NegotiationResult, ask: Callable[[NegotiationResult], Reply]
) -> tuple[NegotiationResult, Reply]:
    """Ask once more with the format at which the endpoint has failed: it may only have been down for a while."""
    calls = found.calls + 1
    again = replace(failed, calls=calls, token_parameter=found.token_parameter, dropped=found.dropped)
    try:
        second = ask(again)
    except ParameterRefused:
        return replace(found, calls=calls), reply
    return (again, second) if second.failure is None else (replace(found, calls=calls), reply)


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
        named: dict[str, Any] = {"name": "reply", "strict": True, "schema": strict_schema(schema)}
        if negotiated.dialect == "plain":
            named = {"name": "reply", "schema": plain_schema(schema)}
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


def plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an object's schema that endpoints with a small dialect accept: without `additionalProperties`.

    Args:
        schema: JSON Schema of the reply.
    """
    plain = strict_schema(schema)

    def strip(part: dict[str, Any]) -> dict[str, Any]:
        part.pop("additionalProperties", None)
        for inner in [*part.get("properties", {}).values(), *([part["items"]] if "items" in part else [])]:
            strip(inner)
        return part

    return strip(plain)


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
    named = _named(refusal)
    for parameter in named:
        if parameter == "max_tokens" and parameter in body and unsupported:
            return replace(noted, token_parameter="max_completion_tokens")
        if parameter in ("temperature", "stream_options") and parameter in body and unsupported:
            return replace(noted, dropped=(*found.dropped, parameter))
        if parameter == "response_format" and may_change_format and found.response_format != "text":
            return _lower_format(noted, refusal.reason)
    if "response_format" in named or (not named and _ABOUT_FORMAT.search(refusal.reason)):
        if may_change_format and found.response_format != "text":
            return _lower_format(noted, refusal.reason)
        raise RequestRejected(
            f"{refusal}; set llm.response_format to one that the endpoint takes: auto, json_schema, json_object or text"
        )
    raise refusal


def _lower_format(found: NegotiationResult, reason: str = "") -> NegotiationResult:
    """Return the next step of the response format; what is said of the schema alone asks for a plainer one first."""
    if found.response_format == "json_schema" and found.dialect == "strict" and _ABOUT_SCHEMA.search(reason):
        return replace(found, dialect="plain")
    lower = RESPONSE_FORMATS[RESPONSE_FORMATS.index(found.response_format) + 1]
    return replace(found, response_format=lower, dialect="strict")


def _named(refusal: ParameterRefused) -> list[str]:
    """Return the parameters that a refusal names, the one in its `param` first."""
    named = [name for name, words in _NAMES_OF.items() if any(word in refusal.reason for word in words)]
    pointed = [name for name in _NAMES_OF if refusal.param.split(".")[0] == name]
    return list(dict.fromkeys([*pointed, *named]))


def _add_usage(found: NegotiationResult, reply: Reply) -> NegotiationResult:
    if reply.usage is None:
        return found
    return replace(found, prompt_tokens=reply.usage.prompt_tokens, completion_tokens=reply.usage.completion_tokens)
