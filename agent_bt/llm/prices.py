"""Compute what a call costs: token counts from the usage fields of many providers, and their price.

1. `llm.prices`, where it is given.
2. What the endpoint itself reports as charged (`reported_cost`).
3. The dated table of genai-prices, which is data inside that package: nothing is downloaded. It holds default service
   tiers; another tier is unpriced.

What none of them knows is unpriced (None), which is not the same as free (0).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from agent_bt.config.model import PricesConfig
from agent_bt.core.types import Reply, Request, Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _OwnPrices:
    """US dollars per million tokens."""

    input: float
    cached_input: float
    cache_write: float
    output: float

    @classmethod
    def of(cls, prices: PricesConfig | None) -> _OwnPrices | None:
        if prices is None or prices.input is None or prices.output is None:
            return None
        cached = prices.input if prices.cached_input is None else prices.cached_input
        written = prices.input if prices.cache_write is None else prices.cache_write
        return cls(input=prices.input, cached_input=cached, cache_write=written, output=prices.output)

    def cost_usd(self, usage: Usage) -> float:
        read, written = _cached(usage)
        prompt = (usage.prompt_tokens - read - written) * self.input
        prompt += read * self.cached_input + written * self.cache_write
        return (prompt + usage.completion_tokens * self.output) / _MILLION


class PriceTable:
    """The prices of one model at one endpoint.

    Args:
        model: the model's name at the endpoint.
        base_url: the endpoint. The same model costs differently elsewhere, so the name alone never decides: a model on
            an endpoint that the table does not know, or without an endpoint, is unpriced.
        prices: prices that replace the table's where they are given.
        free: whether the model costs nothing where `prices` gives none, as an embedded one does.
        tier: service tier that requests ask for; None: the endpoint's default.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        prices: PricesConfig | None = None,
        free: bool = False,
        tier: str | None = None,
    ) -> None:
        self._model = model
        self._base_url = base_url
        self._own = _OwnPrices.of(prices)
        self._free = free
        self._tier = tier

    def of(self, request: Request) -> PriceTable:  # noqa: ARG002 - the interface of a `PriceBook` with one model
        """Return the prices of the requested model: these."""
        return self

    @property
    def version(self) -> str:
        """The table that the prices are from, for the manifest."""
        if self._own is not None:
            return "llm.prices"
        return "embedded" if self._free else price_table_version()

    @property
    def priced(self) -> bool:
        """Whether a call has a known price."""
        return self.worst_usd(prompt_tokens=1, completion_tokens=1) is not None

    @property
    def why_unpriced(self) -> str:
        """Why a call has no known price, for messages."""
        if _is_default(self._tier):
            return f"the price of {self._model} is not known"
        return f"{self._model} is unpriced for the service tier {self._tier}"

    def cost_usd(self, usage: Usage, at: datetime | None = None, *, tier: str | None = None) -> float | None:
        """Return the cost in US dollars; None: unpriced.

        Args:
            usage: the tokens; prompt tokens that were read from or written to the provider's cache have their own
                price, reasoning tokens are completion tokens.
            at: when the call was made; default: now.
            tier: service tier that served it; None: the one that was asked for.
        """
        if self._own is not None:
            return self._own.cost_usd(usage)
        if self._free:
            return 0.0
        if self._base_url is None or not _is_default(tier or self._tier):
            return None
        return self._by_table(usage, self._base_url, at or datetime.now(UTC))

    def worst_usd(self, *, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return the most that a call can cost in US dollars; None: unpriced.

        Args:
            prompt_tokens: of the call; at the dearer of the two prices, as they are or written to the cache.
            completion_tokens: of the call.
        """
        plain = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        costs = [self.cost_usd(plain), self.cost_usd(replace(plain, cache_write_tokens=prompt_tokens))]
        known = [cost for cost in costs if cost is not None]
        return max(known) if len(known) == len(costs) else None

    def charge(self, body: Mapping[str, Any], usage: Usage | None) -> float | None:
        """Return what a completion has cost in US dollars, by the best source there is; None: unpriced.

        Args:
            body: of the response.
            usage: its tokens; None: not known.
        """
        if self._own is None and not self._free:
            reported = reported_cost(body, self._model)
            if reported is not None:
                return reported
        return None if usage is None else self.cost_usd(usage, tier=_tier(body))

    def _by_table(self, usage: Usage, base_url: str, at: datetime) -> float | None:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price

        read, written = _cached(usage)
        tokens = Tokens(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
            output_tokens=usage.completion_tokens,
        )
        try:
            price = calc_price(tokens, self._model, provider_api_url=base_url, genai_request_timestamp=at)
        except LookupError:
            return None
        # The table lists models that it has no token prices of; it would call them free.
        if price.model_price.input_mtok is None or price.model_price.output_mtok is None:
            return None
        return float(price.total_price)


class PriceBook:
    """The prices of several models, found by a request to one of them."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str, str], PriceTable] = {}

    def add(self, provider: str, endpoint_id: str, model: str, prices: PriceTable) -> None:
        """Set the prices of a model.

        Args:
            provider: as in its requests.
            endpoint_id: as in its requests.
            model: its name at the endpoint.
            prices: what it costs.
        """
        self._tables[provider, endpoint_id, model] = prices

    def of(self, request: Request) -> PriceTable:
        """Return the prices of the requested model."""
        return self._tables[request.provider, request.endpoint_id, str(request.body.get("model", ""))]


def price_table_version() -> str:
    """Return name and version of the price table."""
    from genai_prices import __version__

    return f"genai-prices {__version__}"


def usage_from_body(body: Mapping[str, Any]) -> Usage | None:
    """Return the token counts of a chat completion's body, whichever provider's `usage` it has; None without one.

    Prompt tokens include the cached ones and completion tokens the reasoning ones, as OpenAI counts them. Gemini and
    Grok leave the reasoning out of `completion_tokens` but not out of `total_tokens`: the difference is output.
    Anthropic's own names (`input_tokens`) leave the cached tokens out of the input.
    """
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    for name, count in (("prompt_tokens", prompt), ("completion_tokens", completion)):
        if count is None and usage.get(name) is not None:
            return None  # not a valid count: unknown, and not 0
    cached = _first_count(
        (_details(usage, "prompt_tokens_details"), "cached_tokens"),
        (usage, "prompt_cache_hit_tokens"),
        (_details(usage, "input_tokens_details"), "cached_tokens"),
        (usage, "cached_tokens"),
    )
    written = _first_count(
        (_details(usage, "prompt_tokens_details"), "cache_write_tokens"),
        (_details(usage, "prompt_tokens_details"), "cache_creation_tokens"),
        (usage, "cache_creation_input_tokens"),
    )
    if prompt is None and completion is None:
        prompt, completion = _count(usage, "input_tokens"), _count(usage, "output_tokens")
        read = _count(usage, "cache_read_input_tokens")
        if prompt is not None and (read is not None or written):
            prompt, cached = prompt + (read or 0) + written, read or 0
    if prompt is None and completion is None:
        return None
    reasoning = _first_count(
        (_details(usage, "completion_tokens_details"), "reasoning_tokens"),
        (_details(usage, "output_tokens_details"), "reasoning_tokens"),
        (usage, "reasoning_tokens"),
    )
    prompt, completion, total = prompt or 0, completion or 0, _count(usage, "total_tokens") or 0
    completion = max(completion, total - prompt)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(cached, prompt),
        cache_write_tokens=min(written, prompt - min(cached, prompt)),
        reasoning_tokens=min(reasoning, completion),
    )


def reported_cost(body: Mapping[str, Any], model: str = "") -> float | None:
    """Return the US dollars that the endpoint itself reports as charged, or None.

    `usage.cost` as OpenRouter sends it. With a key of one's own there (`is_byok`) it is only the fee, and the cost is
    at the provider behind, `cost_details.upstream_inference_cost`. A cost of 0 is believed only of a model whose name
    ends in `:free`: elsewhere it means that the endpoint does not know.

    Args:
        body: of the response.
        model: its name at the endpoint.
    """
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        return None
    cost = _dollars(usage.get("cost"))
    if usage.get("is_byok") is True:
        upstream = _dollars(_details(usage, "cost_details").get("upstream_inference_cost"))
        cost = None if not upstream else upstream + (cost or 0.0)
    return cost if cost or model.endswith(":free") else None


def add_cost(reply: Reply, prices: PriceTable) -> Reply:
    """Return the reply with its usage, read from the raw body where there is one, and its cost where that is known.

    Args:
        reply: as it came from the endpoint; a cost that its provider has set stays.
        prices: of the model.
    """
    body = _parse(reply.body)
    usage = usage_from_body(body) or reply.usage
    cost = prices.charge(body, usage) if reply.cost_usd is None else reply.cost_usd
    return replace(reply, usage=usage, cost_usd=cost)


def read_tier(body: str) -> str | None:
    """Return the service tier that a response names, if it is not the default one.

    Args:
        body: of the response, as it was received.
    """
    tier = _tier(_parse(body))
    return None if _is_default(tier) else tier


def _tier(body: Mapping[str, Any]) -> str | None:
    tier = body.get("service_tier")
    return tier if isinstance(tier, str) else None


def _parse(body: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(body) if body else {}
    except ValueError:
        parsed = {}
    return parsed if isinstance(parsed, dict) else {}


def _is_default(tier: str | None) -> bool:
    """Return whether published prices are for this service tier, by its names at OpenAI, Anthropic and Groq."""
    return tier in (None, "", "auto", "default", "standard", "on_demand")


def _cached(usage: Usage) -> tuple[int, int]:
    """Return the prompt tokens that were read from the provider's cache, and those written to it."""
    read = min(usage.cached_tokens, usage.prompt_tokens)
    return read, min(usage.cache_write_tokens, usage.prompt_tokens - read)


def _dollars(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, Mapping) else {}


def _first_count(*places: tuple[Mapping[str, Any], str]) -> int:
    for mapping, name in places:
        count = _count(mapping, name)
        if count is not None:
            return count
    return 0


def _count(mapping: Mapping[str, Any], name: str) -> int | None:
    value = mapping.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)
