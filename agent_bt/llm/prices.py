"""Compute what a call costs: token counts from the usage fields of many providers, priced by a dated table.

A price comes from `llm.prices` where it is given, else from the table of genai-prices, which is data inside that
package: nothing is downloaded. A model that neither knows is unpriced (None), which is not the same as free (0).
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
    output: float

    @classmethod
    def of(cls, prices: PricesConfig | None) -> _OwnPrices | None:
        if prices is None or prices.input is None or prices.output is None:
            return None
        cached = prices.input if prices.cached_input is None else prices.cached_input
        return cls(input=prices.input, cached_input=cached, output=prices.output)

    def cost_usd(self, usage: Usage) -> float:
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        uncached = usage.prompt_tokens - cached
        dollars = uncached * self.input + cached * self.cached_input + usage.completion_tokens * self.output
        return dollars / _MILLION


class PriceTable:
    """The prices of one model at one endpoint.

    Args:
        model: the model's name at the endpoint.
        base_url: the endpoint. The same model costs differently elsewhere, so the name alone never decides: a model on
            an endpoint that the table does not know, or without an endpoint, is unpriced.
        prices: prices that replace the table's where they are given.
        free: whether the model costs nothing where `prices` gives none, as an embedded one does.
    """

    def __init__(
        self, *, model: str, base_url: str | None = None, prices: PricesConfig | None = None, free: bool = False
    ) -> None:
        self._model = model
        self._base_url = base_url
        self._own = _OwnPrices.of(prices)
        self._free = free

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
        return self.cost_usd(Usage(prompt_tokens=1, completion_tokens=1)) is not None

    def cost_usd(self, usage: Usage, at: datetime | None = None) -> float | None:
        """Return the cost in US dollars; None: unpriced.

        Args:
            usage: the tokens; cached prompt tokens have their own price, reasoning tokens are completion tokens.
            at: when the call was made; default: now.
        """
        if self._own is not None:
            return self._own.cost_usd(usage)
        if self._free:
            return 0.0
        return None if self._base_url is None else self._by_table(usage, self._base_url, at or datetime.now(UTC))

    def _by_table(self, usage: Usage, base_url: str, at: datetime) -> float | None:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price

        tokens = Tokens(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=min(usage.cached_tokens, usage.prompt_tokens),
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
    if prompt is None and completion is None:
        prompt, completion = _count(usage, "input_tokens"), _count(usage, "output_tokens")
        read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
        if prompt is not None and (read is not None or written is not None):
            prompt, cached = prompt + (read or 0) + (written or 0), read or 0
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
        reasoning_tokens=min(reasoning, completion),
    )


def reported_cost(body: Mapping[str, Any]) -> float | None:
    """Return the US dollars that the endpoint itself reports as charged (OpenRouter's `usage.cost`), or None."""
    usage = body.get("usage")
    cost = usage.get("cost") if isinstance(usage, Mapping) else None
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost) or cost < 0:
        return None
    return float(cost)


def add_cost(reply: Reply, prices: PriceTable) -> Reply:
    """Return the reply with its usage, read from the raw body where there is one, and its cost where that is known.

    Args:
        reply: as it came from the endpoint.
        prices: used where the endpoint does not report the cost itself.
    """
    try:
        body = json.loads(reply.body) if reply.body else {}
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    usage = usage_from_body(body) or reply.usage
    cost = reply.cost_usd if reply.cost_usd is not None else reported_cost(body)
    if cost is None and usage is not None:
        cost = prices.cost_usd(usage)
    return replace(reply, usage=usage, cost_usd=cost)


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
