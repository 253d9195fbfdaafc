"""STAND-IN MODEL: a small fixed policy with the interface of an LLM, so that everything runs without a key.

It reads the messages as a model would, and nothing else: the last table in them with the column `rsi`, and the line
`position: N%`; or a table of symbols (see `stand_in_panel`). It answers in the JSON that the prompts ask for. It is not
a language model and not trading advice; its returns say nothing about any prompt.

Its texts are part of recorded decisions: a changed word changes the hashes of runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import Any

import orjson

from agent_bt.core.canonical import content_hash
from agent_bt.core.errors import ConfigError
from agent_bt.core.futures import completed
from agent_bt.core.suggest import did_you_mean
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.llm.stand_in_panel import MALFORMED, allows_short, rank, read_panel, uniform_draw

MODELS = ("baseline",)

_HEADER = re.compile(r"[a-z_]+(?:,[a-z_]+)+")
_POSITION = re.compile(r"^position: (\d+)%", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInParams:
    """The parameters of the stand-in, as `llm.params` sets them.

    Attributes:
        malformed: fraction of replies that are not valid, in [0, 1]; there are several kinds of them.
        eagerness: fraction of the signals that it acts on, in [0, 1]; the rest are HOLD. As a ranker: weight of the
            table's column in its ranking; the rest is random.
        seed: of the random choices.
    """

    malformed: float = 0.0
    eagerness: float = 0.35
    seed: int = 0

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> StandInParams:
        """Read `llm.params`.

        Raises:
            ConfigError: a name is unknown, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        for name, value in params.items():
            if name not in known:
                raise ConfigError(
                    f"llm.params.{name}: the stand-in has no such parameter (it has {', '.join(known)})"
                    f"{did_you_mean(name, known)}"
                )
            integer = isinstance(value, int) and not isinstance(value, bool)
            if name == "seed" and not integer:
                raise ConfigError(f"llm.params.seed must be an integer, got {value!r}")
            if name != "seed" and not ((integer or isinstance(value, float)) and 0 <= value <= 1):
                raise ConfigError(f"llm.params.{name} must be a number from 0 to 1, got {value!r}")
        return cls(**params)


class StandInLLM:
    """The stand-in as an `LLM`: it replies at once, from the request alone.

    The usage is an estimate, four characters a token; a call costs nothing.

    Args:
        model: name of the policy; there is `baseline`.
        params: the fields of `StandInParams`; None: their defaults.

    Raises:
        ConfigError: the model or a parameter is unknown.
    """

    def __init__(self, model: str = "baseline", params: Mapping[str, Any] | None = None) -> None:
        if model not in MODELS:
            raise ConfigError(f"llm.model: the stand-in has no model {model!r}; known: {', '.join(MODELS)}")
        self.model = model
        self.params = StandInParams.parse(params or {})

    def submit(self, request: Request) -> Future[Reply]:
        """Return a future that holds the reply already."""
        return completed(self.complete(request))

    def complete(self, request: Request) -> Reply:
        """Return the reply, the same for the same address and parameters."""
        text = answer(request.messages, self.params, key=request.address)
        prompt = sum(len(message["content"]) for message in request.messages)
        usage = Usage(prompt_tokens=math.ceil(prompt / 4), completion_tokens=math.ceil(len(text) / 4))
        return Reply(text=text, finish_reason="stop", body=self._body(request, text, usage), usage=usage, cost_usd=0.0)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _body(self, request: Request, text: str, usage: Usage) -> str:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return orjson.dumps(
            {
                "id": f"stand-in-{request.address[:24]}",
                "object": "chat.completion",
                "created": 0,
                "model": self.model,
                "choices": [choice],
                "usage": {
                    "prompt_tokens": usage.prompt_tokens,
                    "completion_tokens": usage.completion_tokens,
                    "total_tokens": usage.prompt_tokens + usage.completion_tokens,
                },
            }
        ).decode()


def answer(messages: Sequence[Mapping[str, Any]], params: StandInParams, *, key: str | None = None) -> str:
    """Return the text of the reply to chat messages.

    Args:
        messages: `role` and `content` each.
        params: how the stand-in behaves.
        key: what the random choices depend on beside the seed; default: the messages themselves.
    """
    if key is None:
        key = content_hash("agent-bt/stand-in/v1", [dict(message) for message in messages])
    draws = hashlib.sha256(f"{params.seed}:{key}".encode()).digest()
    content = messages[-1].get("content") if messages else None
    panel = read_panel(content) if isinstance(content, str) else None
    if panel is None:
        text, malformed = _decide(_read(messages), _uniform(draws[:8]) < params.eagerness), _MALFORMED
    else:
        short = any(allows_short(str(message.get("content"))) for message in messages)
        text = rank(panel, column_weight=params.eagerness, draw=uniform_draw(params.seed, key), short=short)
        malformed = MALFORMED
    if _uniform(draws[8:16]) < params.malformed:
        return malformed[draws[16] % len(malformed)](text)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    position: int
    trend: float
    rsi: float
    flow: float


def _uniform(draw: bytes) -> float:
    return int.from_bytes(draw, "big") / 2**64


def _read(messages: Sequence[Mapping[str, Any]]) -> _Reading | None:
    """Read the last message; None where it cannot be understood."""
    text = messages[-1].get("content") if messages else None
    if not isinstance(text, str):
        return None
    names, rows = _last_table(text)
    cells = rows[rows.rfind("\n") + 1 :].split(",")
    if len(cells) != len(names):
        return None
    try:
        row = dict(zip(names, map(float, cells), strict=True))
    except ValueError:
        return None
    fast_slow = row.get("ema_fast"), row.get("ema_slow")
    trend = row.get("macd", 0.0) if None in fast_slow else fast_slow[0] - fast_slow[1]  # type: ignore[operator]
    position = _POSITION.search(text)
    return _Reading(
        position=int(position.group(1)) if position else 0, trend=trend, rsi=row["rsi"], flow=row.get("cmf", 0.0)
    )


def _last_table(text: str) -> tuple[list[str], str]:
    """Return column names and rows of the last table with a column `rsi`; empty where there is none."""
    at = text.rfind("rsi")
    while at >= 0:
        start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
        header = text[start:end] if end >= 0 else ""
        if _HEADER.fullmatch(header) and "rsi" in header.split(","):
            return header.split(","), text[end + 1 :].partition("\n\n")[0].rstrip("\n")
        at = text.rfind("rsi", 0, at)
    return [], ""


def _decide(seen: _Reading | None, eager: bool) -> str:
    """Buy an uptrend with inflow, sell a downtrend or an overbought market."""
    if seen is None:
        return '{"action": "HOLD", "note": "nothing here that I can read"}'
    if eager and seen.position < 75 and seen.trend > 0 and 55 <= seen.rsi <= 70 and seen.flow > 5:
        size = 0.5 if seen.flow > 15 else 0.25
        return _reply("BUY", size, f"fast average above the slow one, rsi {seen.rsi:.1f}, money flowing in")
    if eager and seen.position > 0 and (seen.rsi > 75 or (seen.trend < 0 and seen.rsi < 40 and seen.flow < 0)):
        reason = "overbought" if seen.rsi > 75 else "fast average below the slow one, money flowing out"
        return _reply("SELL", 1.0 if seen.position <= 30 else 0.5, f"rsi {seen.rsi:.1f}, {reason}")
    return '{"action": "HOLD", "note": "no move in sight that pays for a trade"}'


def _reply(action: str, size: float, note: str) -> str:
    return json.dumps({"action": action, "size_pct": size, "note": note})


_MALFORMED: tuple[Callable[[str], str], ...] = (
    lambda text: "I would wait here: the averages are close together.",  # noqa: ARG005
    lambda text: f"```json\n{text}\n```",
    lambda text: text[: len(text) // 2],
    lambda text: "",  # noqa: ARG005
    lambda text: '{"action": "BUY", "size_pct": 50}',  # noqa: ARG005
    lambda text: '{"action": "SELL", "size_pct": "50%"}',  # noqa: ARG005
    lambda text: '{"action": "BUY", "size_pct": NaN}',  # noqa: ARG005
    lambda text: '{"action": "SELL"}',  # noqa: ARG005
    lambda text: text.replace('"action"', '"action": "HOLD", "action"', 1),
    lambda text: text[:-1] + ', "confidence": 0.8}',
)
