"""What a model provider is: the base class, the registry, and the lookup by `llm.provider`.

A provider is one module of `agent_bt.llm.providers` that registers a class under the module's name, or a class of the
user's own that `llm.provider` names as `module:Class`. What differs between providers is defined by the class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from agent_bt.config.model import LLMConfig, ServerConfig
from agent_bt.config.values import PROVIDERS
from agent_bt.core.errors import AgentBtError, ConfigError
from agent_bt.core.extensions import is_import_path
from agent_bt.core.protocols import LLM
from agent_bt.llm.prices import PriceTable

_RESERVED = {"model", "messages", "stream", "response_format"}


class Provider(ABC):
    """A source of model replies, configured by the `llm` section of a run.

    A subclass has to define `open`. It is made when a run is planned and read, so its constructor opens nothing.

    Args:
        config: the `llm` section.

    Attributes:
        embedded: whether replies are computed in this process at once and for nothing. The cache, the budget and
            prefetch are left out then; every other provider gets them.
        negotiates: whether the provider finds out, before the first decision, which parameters its endpoint accepts.
        one_at_a_time: whether the model answers one request after another, so that prefetch would save no time.
        starts_server: whether the provider runs a server of its own, configured by `llm.server`.
        banner: what every report must show at the top, or None.
        notice: what `agent-bt validate` warns of and what to do about it, or None.
    """

    embedded: ClassVar[bool] = False
    negotiates: ClassVar[bool] = False
    one_at_a_time: ClassVar[bool] = False
    starts_server: ClassVar[bool] = False
    banner: ClassVar[str | None] = None
    notice: ClassVar[tuple[str, str] | None] = None

    def __init__(self, config: LLMConfig) -> None:
        self.config = config

    @abstractmethod
    def open(self) -> LLM:
        """Open the connection to the model, and start what it needs.

        Raises:
            ModelError: the model cannot be used.
            ConfigError: a parameter does not fit.
        """

    @property
    def endpoint_id(self) -> str:
        """Name of the endpoint in cache keys and in the identity of a run; known before `open`."""
        return self.config.endpoint_id or self.config.provider

    @property
    def earlier_endpoint_ids(self) -> Sequence[str]:
        """Names that earlier versions gave to this endpoint; their run folders and caches have them."""
        return ()

    @property
    def address(self) -> str:
        """Name of the endpoint in messages."""
        return self.endpoint_id

    def check(self) -> None:
        """Check the `llm` section as far as that is possible without a connection.

        Raises:
            ConfigError: a parameter does not fit this provider.
        """
        self.parameters()
        if not self.starts_server and self.config.server != ServerConfig():
            raise ConfigError(f"llm.server: llm.provider {self.config.provider} starts no server; remove it")

    def check_ready(self) -> None:  # noqa: B027 - most providers need nothing
        """Check that what `open` needs is on this machine: packages and files.

        Raises:
            ConfigError: something is missing.
        """

    def check_access(self) -> str:
        """Return a description of the API key that is set, or of why none is needed; never the key itself.

        Raises:
            AuthenticationFailed: the key is missing.
        """
        return f"none needed ({self.config.provider})"

    def parameters(self) -> dict[str, Any]:
        """Return the body of a request as configured, without messages and response format.

        Raises:
            ConfigError: `llm.params` sets what agent-bt sets itself.
        """
        llm = self.config
        body: dict[str, Any] = {"model": llm.model, "max_tokens": llm.max_tokens}
        if llm.temperature is not None:
            body["temperature"] = llm.temperature
        if llm.seed is not None:
            body["seed"] = llm.seed
        reserved = sorted(_RESERVED & set(llm.params))
        if reserved:
            raise ConfigError(f"llm.params.{reserved[0]} is set by agent-bt itself; remove it from llm.params")
        return {**body, **llm.params}

    def body(
        self,
        messages: Sequence[Mapping[str, str]],
        negotiated: Mapping[str, Any] | None,  # noqa: ARG002
        schema: Mapping[str, Any],  # noqa: ARG002
    ) -> Mapping[str, Any]:
        """Return the body of a request as it is sent; everything in it is part of the cache key.

        Args:
            messages: `role` and `content` each.
            negotiated: result of `negotiate`, or None.
            schema: JSON Schema of the reply.
        """
        return {**self.parameters(), "messages": list(messages)}

    def negotiation_key(self) -> list[Any]:
        """Return what the result of `negotiate` depends on, as plain data: the key it is remembered by."""
        llm = self.config
        # "ladder" is what earlier versions called the negotiation; caches hold keys with it.
        return [
            "ladder",
            llm.provider,
            self.endpoint_id,
            self.parameters()["model"],
            llm.response_format,
            sorted(self.parameters()),
        ]

    def negotiate(self, llm: LLM, schema: Mapping[str, Any], probe: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Find out which parameters the endpoint accepts; called only where `negotiates` is true.

        Args:
            llm: where test requests are sent; not through a cache.
            schema: JSON Schema of the reply.
            probe: messages that ask for a valid reply.

        Returns:
            Plain data, as `body` takes it.

        Raises:
            ModelError: the endpoint cannot be used.
        """
        raise NotImplementedError(f"{type(self).__name__}.negotiates is true, so it must define negotiate")

    def check_negotiated(  # noqa: B027 - most providers cannot tell
        self, negotiated: Mapping[str, Any], *, source: str
    ) -> None:
        """Check that what was negotiated before still holds; called before the first request.

        Args:
            negotiated: what `negotiate` returned then.
            source: where it was kept, for messages.

        Raises:
            ConfigError: it belongs to another model.
        """

    def expected_negotiation(self) -> dict[str, Any] | None:
        """Return what `negotiate` returns where the endpoint accepts everything; for estimates without a request."""
        return None

    def prices(self) -> PriceTable:
        """Return the prices of the model; a model without known prices is unpriced, unless it is embedded."""
        return PriceTable(model=self.config.model, prices=self.config.prices, free=self.embedded)


P = TypeVar("P", bound=type[Provider])


def provider(name: str) -> Callable[[P], P]:
    """Return a decorator that registers a provider class under a name that `llm.provider` can give."""
    return PROVIDERS.register(name)


def get_provider(config: LLMConfig) -> Provider:
    """Make the provider that `llm.provider` names: a registered name, or `module:Class`.

    Raises:
        ConfigError: there is no such provider, it cannot be imported or made, or it is not a `Provider`.
    """
    found = PROVIDERS.load(config.provider)
    if not (isinstance(found, type) and issubclass(found, Provider)):
        raise ConfigError(
            f"llm.provider {config.provider} is not a provider; derive the class from agent_bt.llm.provider.Provider"
        )
    try:
        made: Provider = found(config)
    except AgentBtError:
        raise
    except Exception as error:
        raise ConfigError(f"llm.provider {config.provider} cannot be made: {type(error).__name__}: {error}") from error
    return made


def is_embedded(config: LLMConfig) -> bool:
    """Return whether a record's model was embedded in agent-bt; does not import a user's own provider."""
    return not is_import_path(config.provider) and get_provider(config).embedded
