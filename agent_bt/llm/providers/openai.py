"""The provider `openai`: any endpoint that implements the OpenAI chat-completions API."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agent_bt.core.errors import ConfigError
from agent_bt.core.protocols import LLM
from agent_bt.llm.address import (
    OPENAI_BASE_URL,
    api_key_from_env,
    earlier_endpoint_identity,
    endpoint_identity,
    fill_headers,
)
from agent_bt.llm.prices import PriceTable
from agent_bt.llm.provider import Provider, provider

WantedFormat = Literal["auto", "json_schema", "json_object", "text", "grammar"]


@provider("openai")
class OpenAIProvider(Provider):
    """OpenAI, vLLM, Ollama, llama.cpp, DeepSeek, OpenRouter and every other endpoint with the same API."""

    negotiates = True

    def open(self) -> LLM:
        """Open a client with its own event loop and connections."""
        from agent_bt.llm.limiter import AdaptiveLimiter
        from agent_bt.llm.openai_client import OpenAILLM

        llm = self.config
        return OpenAILLM(
            base_url=llm.base_url,
            api_key=api_key_from_env(llm.api_key_env, base_url=llm.base_url),
            headers=fill_headers(llm.headers),
            timeout_s=llm.timeout_s,
            limiter=AdaptiveLimiter(llm.max_in_flight),
        )

    @property
    def endpoint_id(self) -> str:
        """`llm.endpoint_id`, or host, port and path of `llm.base_url`."""
        return self.config.endpoint_id or endpoint_identity(self.config.base_url or OPENAI_BASE_URL)

    @property
    def earlier_endpoint_ids(self) -> Sequence[str]:
        """The host and port of `llm.base_url` alone, unless `llm.endpoint_id` names the endpoint."""
        llm = self.config
        return () if llm.endpoint_id or not llm.base_url else (earlier_endpoint_identity(llm.base_url),)

    @property
    def wanted_format(self) -> WantedFormat:
        """The response format to ask for, or `auto`: the best the endpoint accepts."""
        return self.config.response_format

    @property
    def address(self) -> str:
        """`llm.base_url`, or the host of OpenAI's own endpoint."""
        return self.config.base_url or "api.openai.com"

    def parameters(self) -> dict[str, Any]:
        """Return the body of a request as configured, without messages and response format."""
        if self.wanted_format == "grammar" and "grammar" in self.config.params:
            raise ConfigError("llm.params.grammar is set by agent-bt itself; remove it from llm.params")
        body = super().parameters()
        return {**body, "stream": True, "stream_options": {"include_usage": True}} if self.config.stream else body

    def check_access(self) -> str:
        """Return the name of the environment variable with the key, and whether it is set."""
        name = self.config.api_key_env
        api_key_from_env(name, base_url=self.config.base_url)
        fill_headers(self.config.headers)
        return f"{name} {'is set' if os.environ.get(name) else 'is not set; an endpoint on this machine needs none'}"

    def body(
        self, messages: Sequence[Mapping[str, str]], negotiated: Mapping[str, Any] | None, schema: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the body with the parameters and the response format that the endpoint accepts.

        Args:
            messages: `role` and `content` each.
            negotiated: result of `negotiate`; None: parameters are sent as configured, without a response format.
            schema: JSON Schema of the reply.
        """
        configured = super().body(messages, negotiated, schema)
        if negotiated is None:
            return configured
        from agent_bt.llm.negotiation import NegotiationResult, apply

        return apply(NegotiationResult.from_dict(negotiated), configured, schema)

    def negotiate(self, llm: LLM, schema: Mapping[str, Any], probe: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Send a small request per step of the format negotiation (see `agent_bt.llm.negotiation`).

        Args:
            llm: where test requests are sent; not through a cache.
            schema: JSON Schema of the reply.
            probe: messages that ask for a valid reply.

        Raises:
            ModelError: the endpoint cannot be used.
        """
        from agent_bt.llm.negotiation import negotiate

        return negotiate(
            llm,
            self.parameters(),
            wanted=self.wanted_format,
            schema=schema,
            provider=self.config.provider,
            endpoint_id=self.endpoint_id,
            probe=probe,
        ).to_dict()

    def expected_negotiation(self) -> dict[str, Any]:
        """Return the first step of the negotiation: JSON Schema, unless `llm.response_format` says otherwise."""
        from agent_bt.llm.negotiation import NegotiationResult

        wanted = self.wanted_format
        return NegotiationResult(response_format="json_schema" if wanted == "auto" else wanted).to_dict()

    def prices(self) -> PriceTable:
        """Return the price table of the model at this endpoint."""
        llm = self.config
        tier = str(llm.params["service_tier"]) if llm.params.get("service_tier") else None
        return PriceTable(model=llm.model, base_url=llm.base_url or OPENAI_BASE_URL, prices=llm.prices, tier=tier)
