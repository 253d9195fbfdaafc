"""What an endpoint takes, found out before the first decision: response format, token parameter, temperature.

1. `negotiate` asks one tiny question per rung: json_schema, then json_object, then text.
2. A 400 or 422 that names a parameter is the only reason to change it: one rung down for the response format,
   `max_tokens` becomes `max_completion_tokens`, a `temperature` that is not supported is left out.
3. The result is a value that is stored with the run; `apply` turns any body into the effective one by it, offline.
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

Rung = Literal["json_schema", "json_object", "text", "grammar"]
TokenParameter = Literal["max_tokens", "max_completion_tokens"]

RUNGS: Final[tuple[Rung, ...]] = ("json_schema", "json_object", "text")
PROBE: Final = [{"role": "user", "content": 'Answer with the JSON object {"action": "HOLD"} and nothing else.'}]
RANK_PROBE: Final = [{"role": "user", "content": 'Answer with the JSON object {"weights": []} and nothing else.'}]

_NAMES_OF: Final = {
    "response_format": ("response_format", "json_schema", "json_object"),
    "max_tokens": ("max_tokens",),
    "temperature": ("temperature",),
}
# A value out of range also names its parameter, but is the user's to correct.
_UNSUPPORTED: Final = re.compile(r"support|unrecogni|unknown|permitted|allowed|deprecated|only|instead", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """What the endpoint takes.

    `dropped` are the body parameters that are left out, `refusals` what the endpoint said on the way down. `calls`,
    `prompt_tokens` and `completion_tokens` are what finding out has cost.
    """

    response_format: Rung = "json_schema"
    token_parameter: TokenParameter = "max_tokens"
    dropped: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self) | {"dropped": list(self.dropped), "refusals": list(self.refusals)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Negotiated:
        """The value that `to_dict` was made from."""
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
) -> Negotiated:
    """Ask the endpoint, rung by rung, until it takes the request.

    Args:
        llm: where the questions go; not through a cache.
        base_body: the body of the run's requests, without messages; its parameters are sent with each question.
        wanted: `auto`, or the one response format that will do.
        schema: JSON Schema of the replies.
        provider, endpoint_id: of the requests.
        probe: the question: messages that ask for a valid reply.

    Raises:
        EndpointDown: a question got no answer, after the retries.
        ModelError: the endpoint refuses for another reason, or on the last rung that is allowed.
    """
    found = Negotiated(response_format="json_schema" if wanted == "auto" else wanted)
    while True:
        body = apply(found, {**base_body, "messages": list(probe)}, schema)
        found = replace(found, calls=found.calls + 1)
        try:
            reply = llm.complete(Request(provider=provider, endpoint_id=endpoint_id, body=body))
        except ParameterRefused as refusal:
            logger.info("the endpoint refuses a parameter: %s", refusal.said)
            found = _step(found, refusal, body, may_step_down=wanted == "auto")
            continue
        if reply.failure is not None:
            raise EndpointDown(f"the endpoint does not answer ({reply.failure}: {reply.error}); try again later")
        logger.info(
            "the endpoint takes response_format %s and %s%s, found out in %d calls",
            *(found.response_format, found.token_parameter),
            *("".join(f", no {name}" for name in found.dropped), found.calls),
        )
        return _add_usage(found, reply)


def apply(negotiated: Negotiated, body: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` as the endpoint takes it. Below json_schema the schema goes into the messages."""
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
    """The part of an object's schema that every endpoint takes in strict mode.

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
    """The messages with the schema at the end of the system message, which is made where there is none."""
    text = json.dumps({key: value for key, value in schema.items() if key != "$schema"})
    order = f"Answer with one JSON object and nothing else, valid against this JSON Schema:\n{text}"
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{order}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": order}, *messages]


def _step(found: Negotiated, refusal: ParameterRefused, body: Mapping[str, Any], *, may_step_down: bool) -> Negotiated:
    noted = replace(found, refusals=(*found.refusals, refusal.said))
    unsupported = _UNSUPPORTED.search(refusal.said)
    for parameter in _named(refusal):
        if parameter == "max_tokens" and parameter in body and unsupported:
            return replace(noted, token_parameter="max_completion_tokens")
        if parameter == "temperature" and parameter in body and unsupported:
            return replace(noted, dropped=(*found.dropped, parameter))
        if parameter == "response_format" and may_step_down and found.response_format != "text":
            return replace(noted, response_format=RUNGS[RUNGS.index(found.response_format) + 1])
    raise refusal


def _named(refusal: ParameterRefused) -> list[str]:
    """The parameters a refusal names, the one it points at first."""
    named = [name for name, words in _NAMES_OF.items() if any(word in refusal.said for word in words)]
    pointed = [name for name in _NAMES_OF if refusal.param.split(".")[0] == name]
    return list(dict.fromkeys([*pointed, *named]))


def _add_usage(found: Negotiated, reply: Reply) -> Negotiated:
    if reply.usage is None:
        return found
    return replace(found, prompt_tokens=reply.usage.prompt_tokens, completion_tokens=reply.usage.completion_tokens)
