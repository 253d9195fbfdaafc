"""Config -> a model behind the one LLM face, with everything around it, and the form of the requests it gets.

From the outside in: replies of an earlier part of the run (`JournaledLLM`), the cache, the guard against an endpoint
that fails without end, budget and ledger, the provider. The embedded models need none of them but the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent_bt.agents.agent import RequestForm
from agent_bt.agents.rank_reply import RANK_SCHEMA
from agent_bt.agents.reply import REPLY_SCHEMA
from agent_bt.agents.reply import reply_schema as trader_schema
from agent_bt.config.model import Config, LLMConfig, StrategyConfig
from agent_bt.core.errors import ConfigError, ReplayError
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply
from agent_bt.llm.ledger import Ledger
from agent_bt.strategies.registry import agent_kinds

if TYPE_CHECKING:
    from agent_bt.llm.endpoints import Endpoints
from agent_bt.llm.journaled import JournaledLLM


@dataclass(slots=True, kw_only=True)
class Model:
    """An opened model.

    Attributes:
        llm: the stack, outermost layer.
        form: how its requests look.
        requested, effective: parameters as configured, and as the endpoint took them (the ladder's result).
        prices: version of the price table; None where nothing is paid.
        ledger: what was spent and saved.
        probes: calls that found out, now, what the endpoint takes.
    """

    llm: LLM
    form: RequestForm
    requested: Mapping[str, Any]
    negotiated: Mapping[str, Any] | None = None
    prices: str | None = None
    ledger: Ledger = field(default_factory=Ledger)
    probes: int = 0
    _opened: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Release threads, connections and files; idempotent."""
        self._opened.close()

    def answer_first_from(self, replies: Mapping[str, Reply]) -> None:
        """Let these replies (by address) answer before anything else does."""
        if replies:
            self.llm = JournaledLLM(self.llm, replies)


def open_model(
    config: Config,
    *,
    negotiated: Mapping[str, Any] | None = None,
    ledger_path: Path | None = None,
    offline: bool = False,
    endpoints: Endpoints | None = None,
) -> Model:
    """Open the model that `llm` names.

    Args:
        config: the run's.
        effective: the ladder's result of an earlier part of the run; None: the cache knows it, or it is found now.
        ledger_path: where the ledger of this run is kept; None: in memory.
        offline: answer from the cache alone, and open no socket.
        endpoints: shared with other runs, with their ledger; they stay open. None: this run has its own.

    Raises:
        ModelError: the endpoint cannot be used.
        ReplayError: offline, and the cache lacks what is needed.
        ConfigError: a parameter does not fit the provider.
    """
    llm = config.llm
    if llm.provider == "openai":
        if offline:
            return _open_cached(config, negotiated)
        return _open_endpoint(config, negotiated, ledger_path, endpoints)
    return Model(llm=_embedded(llm), form=form_of(config, None), requested=request_parameters(llm))


def reply_schema(strategy: StrategyConfig) -> Mapping[str, Any]:
    """JSON Schema of what a strategy wants back: a ranker's weights, or a trader's action."""
    ranks = "agent_ranker" in agent_kinds(strategy.kind, strategy.params)
    return RANK_SCHEMA if ranks else trader_schema(strategy.sizes or ())


def form_of(config: Config, negotiated: Mapping[str, Any] | None) -> RequestForm:
    """How the requests of a run look; `effective` as for `request_form`."""
    return request_form(config.llm, negotiated, reply_schema(config.strategy))


def request_form(
    llm: LLMConfig, negotiated: Mapping[str, Any] | None, schema: Mapping[str, Any] = REPLY_SCHEMA
) -> RequestForm:
    """How requests look; `effective` is the ladder's result, None for an embedded model, `schema` the replies'."""
    requested = request_parameters(llm)

    def plain(messages: list[dict[str, str]]) -> Mapping[str, Any]:
        return {**requested, "messages": messages}

    body = plain
    if negotiated is not None:
        from agent_bt.llm.negotiation import Negotiated, apply

        found = Negotiated.from_dict(negotiated)

        def body(messages: list[dict[str, str]]) -> Mapping[str, Any]:
            return apply(found, plain(messages), schema)

    return RequestForm(provider=llm.provider, endpoint_id=endpoint_id(llm), replicate=llm.replicate, body=body)


def request_parameters(llm: LLMConfig) -> dict[str, Any]:
    """The body of a request without messages and response format, as configured."""
    body: dict[str, Any] = {"model": llm.model, "max_tokens": llm.max_tokens}
    if llm.temperature is not None:
        body["temperature"] = llm.temperature
    if llm.seed is not None:
        body["seed"] = llm.seed
    reserved = sorted({"model", "messages", "stream", "response_format"} & set(llm.params))
    if reserved:
        raise ConfigError(f"llm.params.{reserved[0]} is set by agent-bt itself; remove it from llm.params")
    return {**body, **llm.params}


def endpoint_id(llm: LLMConfig) -> str:
    """The name of the endpoint in cache keys: as configured, else its host (and port)."""
    if llm.endpoint_id or llm.provider != "openai":
        return llm.endpoint_id or llm.provider
    return urlsplit(llm.base_url).netloc if llm.base_url else "api.openai.com"


def _embedded(llm: LLMConfig) -> LLM:
    if llm.provider == "scripted":
        return _scripted(llm)
    from agent_bt.llm.stand_in import StandInLLM

    return StandInLLM(model=llm.model, params=llm.params)


def _scripted(llm: LLMConfig) -> LLM:
    from agent_bt.llm.scripted import ScriptedLLM

    replies = llm.params.get("replies")
    if not isinstance(replies, list) or not all(isinstance(reply, str) for reply in replies):
        raise ConfigError("llm.provider scripted needs llm.params.replies: a list of reply texts, one a decision")
    return ScriptedLLM(replies)


def _open_endpoint(
    config: Config, negotiated: Mapping[str, Any] | None, ledger_path: Path | None, endpoints: Endpoints | None
) -> Model:
    from agent_bt.llm.endpoints import Endpoints
    from agent_bt.llm.negotiation import PROBE, RANK_PROBE, negotiate

    llm, schema = config.llm, reply_schema(config.strategy)
    requested = request_parameters(llm)

    probes = 0

    def find_out(paid: LLM) -> dict[str, Any]:
        nonlocal probes
        probes = 1  # those that were refused on the way are not billed
        return negotiate(
            paid,
            requested,
            wanted=llm.response_format,
            schema=schema,
            provider=llm.provider,
            endpoint_id=endpoint_id(llm),
            probe=RANK_PROBE if schema is RANK_SCHEMA else PROBE,
        ).to_dict()

    with ExitStack() as opened:
        if endpoints is None:
            endpoints = Endpoints(config, ledger_path)
            opened.callback(endpoints.close)
        found, prices = endpoints.connect(
            llm,
            endpoint_id=endpoint_id(llm),
            known=negotiated,
            negotiation_key=negotiation_key(config),
            negotiate=find_out,
        )
        return Model(
            llm=endpoints.llm,
            form=form_of(config, found),
            requested=requested,
            negotiated=found,
            prices=prices.version,
            ledger=endpoints.ledger,
            probes=probes,
            _opened=opened.pop_all(),
        )
    raise AssertionError  # pragma: no cover - the block above returns or raises


def _open_cached(config: Config, negotiated: Mapping[str, Any] | None) -> Model:
    from agent_bt.llm.cache_store import ReplyStore
    from agent_bt.llm.offline import OfflineLLM

    llm = config.llm
    with ExitStack() as opened:
        store = opened.enter_context(ReplyStore(config.cache.path, read_only=True))
        found = negotiated or store.recall(negotiation_key(config))
        if found is None:
            raise ReplayError(
                f"{config.cache.path} has no replies of {llm.model} at {endpoint_id(llm)}: run once without --offline, "
                f"or bring replies in with `agent-bt cache import`"
            )
        return Model(
            llm=OfflineLLM(store, config.cache.offline_miss),
            form=form_of(config, found),
            requested=request_parameters(llm),
            negotiated=found,
            _opened=opened.pop_all(),
        )
    raise AssertionError  # pragma: no cover - the block above returns or raises


def negotiation_key(config: Config) -> list[Any]:
    """What the ladder's result depends on: endpoint, model, what was wanted, parameters sent, schema of the replies."""
    llm = config.llm
    parts = ["ladder", llm.provider, endpoint_id(llm), llm.model, llm.response_format, sorted(request_parameters(llm))]
    if reply_schema(config.strategy) is RANK_SCHEMA:
        return [*parts, "weights"]
    return [*parts, "sizes"] if config.strategy.sizes else parts
