"""The provider `llama_cpp`: a GGUF model on this machine, behind a server that the run starts and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_bt.core.errors import ConfigError
from agent_bt.core.protocols import LLM
from agent_bt.llm.llama_cpp.model_file import digest_of, find_model, model_name
from agent_bt.llm.prices import PriceTable
from agent_bt.llm.provider import provider
from agent_bt.llm.providers.openai import OpenAIProvider, WantedFormat


@provider("llama_cpp")
class LlamaCppProvider(OpenAIProvider):
    """A GGUF file, or an installed package that ships one; needs the extra `local`, no key and no network."""

    one_at_a_time = True
    starts_server = True

    def open(self) -> LLM:
        """Make the client; its server is started with the first request."""
        from agent_bt.llm.limiter import AdaptiveLimiter
        from agent_bt.llm.llama_cpp.client import LlamaCppLLM
        from agent_bt.llm.llama_cpp.process import LlamaServer, ServerSettings, usable_threads
        from agent_bt.llm.openai_client import OpenAILLM

        llm, name = self.config, model_name(self.config.model)

        def start() -> LlamaServer:
            return LlamaServer(
                ServerSettings(
                    model=str(find_model(llm.model).absolute()),
                    name=name,
                    context=llm.server.context,
                    threads=llm.server.threads or usable_threads(),
                    port=llm.server.port,
                )
            )

        def connect(base_url: str) -> LLM:
            # The server has one slot: what waits waits here, where it can be overtaken and taken back.
            return OpenAILLM(base_url=base_url, timeout_s=llm.timeout_s, limiter=AdaptiveLimiter(1))

        return LlamaCppLLM(name=name, start=start, connect=connect)

    @property
    def endpoint_id(self) -> str:
        """`llm.endpoint_id`, or the name of the model: each model has a server of its own."""
        return self.config.endpoint_id or f"llama_cpp/{model_name(self.config.model)}"

    @property
    def address(self) -> str:
        """What serves the model."""
        return "a server of its own"

    @property
    def wanted_format(self) -> WantedFormat:
        """A grammar, unless `llm.response_format` says otherwise."""
        wanted = self.config.response_format
        return "grammar" if wanted == "auto" else wanted

    def check(self) -> None:
        """Check that nothing is configured that a server of its own cannot have."""
        super().check()
        if self.config.base_url is not None:
            raise ConfigError(
                "llm.base_url: llama_cpp starts a server of its own; remove it, or set llm.provider: openai for a "
                "server that runs already"
            )

    def check_ready(self) -> None:
        """Check that llama.cpp is installed, and that the model is there."""
        from agent_bt.llm.llama_cpp.process import check_installed

        check_installed()
        find_model(self.config.model)

    def check_access(self) -> str:
        """Return that no key is needed."""
        return "none needed (llama_cpp)"

    def parameters(self) -> dict[str, Any]:
        """Return the body of a request; the model is named without its folder, so that it may be moved."""
        return {**super().parameters(), "model": model_name(self.config.model)}

    def negotiate(self, llm: LLM, schema: Mapping[str, Any], probe: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Send a test request, and note which file answers."""
        return {**super().negotiate(llm, schema, probe), "model_hash": self._digest()}

    def check_negotiated(self, negotiated: Mapping[str, Any], *, source: str) -> None:
        """Check that the replies there are came from the same file: another one is another model."""
        before, now = negotiated.get("model_hash"), self._digest()
        if before != now:
            raise ConfigError(
                f"llm.model: {model_name(self.config.model)} is not the file that {source} has replies of (SHA-256 "
                f"{str(before)[:12]}, now {now[:12]}); put that file back, or set llm.endpoint_id to a name of its own "
                "for this one"
            )

    def prices(self) -> PriceTable:
        """Return that a call costs nothing, unless `llm.prices` says otherwise."""
        return PriceTable(model=self.config.model, prices=self.config.prices, free=True)

    def _digest(self) -> str:
        return digest_of(find_model(self.config.model))
