"""Open the model that a config names: its provider with all layers around it, and the form of its requests.

From the outside in: replies of an earlier part of the run (`JournaledLLM`), the cache, the guard against an endpoint
that fails again and again, retries, budget and ledger, the provider's client. An embedded model gets only the first of
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bt.agents.agent import RequestForm
from agent_bt.agents.rank_reply import RANK_SCHEMA, check_shape
from agent_bt.agents.reply import REPLY_SCHEMA, read_answer
from agent_bt.agents.reply import check as check_action
from agent_bt.agents.reply import reply_schema as trader_schema
from agent_bt.config.model import Config, LLMConfig, StrategyConfig
from agent_bt.core.errors import ReplayError
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply
from agent_bt.llm.journaled import JournaledLLM
from agent_bt.llm.ledger import Ledger
from agent_bt.llm.provider import Provider, get_provider
from agent_bt.strategies.registry import agent_kinds

if TYPE_CHECKING:
    from agent_bt.llm.endpoints import Endpoints


@dataclass(slots=True, kw_only=True)
class Model:
    """An opened model.

    Attributes:
        llm: the layers around the model, the outermost one.
        form: what all of its requests have in common.
        requested: parameters of a request as configured.
        negotiated: parameters as the endpoint accepts them; None where nothing was negotiated.
        recalled: whether `negotiated` is from the cache, so that it may be out of date.
        prices: version of the price table; None where nothing is paid.
        ledger: what was spent and saved.
        probes: requests that were sent now to find out what the endpoint accepts.
        probe_defect: what was wrong with the answer to the last of them; empty where it was valid, or none was sent.
    """

    llm: LLM
    form: RequestForm
    requested: Mapping[str, Any]
    negotiated: Mapping[str, Any] | None = None
    recalled: bool = False
    prices: str | None = None
    ledger: Ledger = field(default_factory=Ledger)
    probes: int = 0
    probe_defect: str = ""
    _opened: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Release threads, connections and files; idempotent."""
        self._opened.close()

    def answer_first_from(self, replies: Mapping[str, Reply]) -> None:
        """Put recorded replies, by the address of their request, before everything else."""
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
        negotiated: result of the negotiation in an earlier part of the run; None: the cache knows it, or it is found
            out now.
        ledger_path: where the ledger of this run is kept; None: in memory.
        offline: take replies from the cache alone, and open no socket.
        endpoints: shared with other runs, with their ledger; they stay open. None: this run has its own.

    Raises:
        ModelError: the endpoint cannot be used.
        ReplayError: offline, and the cache lacks what is needed.
        ConfigError: a parameter does not fit the provider.
    """
    provider = get_provider(config.llm)
    if provider.embedded:
        provider.check()
        model = provider.open()
        opened = ExitStack()
        opened.callback(model.close)
        return Model(llm=model, form=build_form(config, None), requested=provider.parameters(), _opened=opened)
    if offline:
        return _open_cached(config, provider, negotiated)
    return _open_endpoint(config, provider, negotiated, ledger_path, endpoints)


def forget_negotiation(config: Config, model: Model, endpoints: Endpoints | None) -> None:
    """Forget what was negotiated with an endpoint before, because it refuses that now.

    Args:
        config: the run's.
        model: opened with the result from the cache.
        endpoints: shared with other runs; None: the run had its own, which are closed by now.
    """
    from agent_bt.llm.cache_store import ReplyStore

    assert model.negotiated is not None
    key = negotiation_key(config)
    if endpoints is not None:
        endpoints.forget(key, model.negotiated)
        return
    with ReplyStore(config.cache.path) as store:
        store.forget(key)


def reply_schema(strategy: StrategyConfig) -> Mapping[str, Any]:
    """Return the JSON Schema of the replies a strategy expects: a ranker's weights, or a trader's action."""
    ranks = "agent_ranker" in agent_kinds(strategy.kind, strategy.params)
    return RANK_SCHEMA if ranks else trader_schema(strategy.sizes or ())


def build_form(config: Config, negotiated: Mapping[str, Any] | None) -> RequestForm:
    """Return what all requests of a run have in common.

    Args:
        config: the run's.
        negotiated: result of the negotiation; None: parameters are sent as configured.
    """
    return build_request_form(config.llm, negotiated, reply_schema(config.strategy))


def build_request_form(
    llm: LLMConfig, negotiated: Mapping[str, Any] | None, schema: Mapping[str, Any] = REPLY_SCHEMA
) -> RequestForm:
    """Return what all requests to a model have in common.

    Args:
        llm: names the model.
        negotiated: result of the negotiation; None: parameters are sent as configured.
        schema: JSON Schema of the replies.
    """
    provider = get_provider(llm)

    def body(messages: list[dict[str, str]]) -> Mapping[str, Any]:
        return provider.body(messages, negotiated, schema)

    return RequestForm(provider=llm.provider, endpoint_id=provider.endpoint_id, replicate=llm.replicate, body=body)


def negotiation_key(config: Config) -> list[Any]:
    """Return what the negotiation's result depends on: endpoint, model, parameters, and the schema of the replies."""
    parts = get_provider(config.llm).negotiation_key()
    if reply_schema(config.strategy) is RANK_SCHEMA:
        return [*parts, "weights"]
    return [*parts, "sizes"] if config.strategy.sizes else parts


def _open_endpoint(
    config: Config,
    provider: Provider,
    negotiated: Mapping[str, Any] | None,
    ledger_path: Path | None,
    endpoints: Endpoints | None,
) -> Model:
    from agent_bt.llm.endpoints import Endpoints
    from agent_bt.llm.negotiation import PROBE, RANK_PROBE

    schema = reply_schema(config.strategy)
    requested = provider.parameters()

    def negotiate(paid: LLM) -> dict[str, Any]:
        return provider.negotiate(paid, schema, RANK_PROBE if schema is RANK_SCHEMA else PROBE)

    with ExitStack() as opened:
        if endpoints is None:
            endpoints = Endpoints(config, ledger_path)
            opened.callback(endpoints.close)
        connection = endpoints.connect(provider, known=negotiated, key=negotiation_key(config), negotiate=negotiate)
        return Model(
            llm=endpoints.llm,
            form=build_form(config, connection.negotiated),
            requested=requested,
            negotiated=connection.negotiated,
            recalled=connection.recalled,
            prices=connection.prices.version,
            ledger=endpoints.ledger,
            probes=connection.probes,
            probe_defect=_find_defect(config, connection.probe_reply),
            _opened=opened.pop_all(),
        )
    raise AssertionError  # pragma: no cover - the block above returns or raises


def _find_defect(config: Config, reply: Reply | None) -> str:
    """Describe what is wrong with the answer to a test request; empty if it is valid."""
    if reply is None:
        return ""
    ranks = reply_schema(config.strategy) is RANK_SCHEMA
    check = check_shape if ranks else partial(check_action, sizes=config.strategy.sizes or ())
    answer = read_answer(reply, check, strip=config.llm.strip)
    return "" if answer.value is not None else f"{answer.provenance.reason}: {answer.detail}"


def _open_cached(config: Config, provider: Provider, negotiated: Mapping[str, Any] | None) -> Model:
    from agent_bt.llm.cache_store import ReplyStore
    from agent_bt.llm.offline import OfflineLLM

    with ExitStack() as opened:
        store = opened.enter_context(ReplyStore(config.cache.path, read_only=True))
        found = (negotiated or store.recall(negotiation_key(config))) if provider.negotiates else None
        if found is None and provider.negotiates:
            stored = {row.endpoint_id for row in store.stats() if row.model == provider.parameters()["model"]}
            earlier = next((name for name in provider.earlier_endpoint_ids if name in stored), None)
            advice = "run once without --offline, or bring replies in with `agent-bt cache import`"
            if earlier is not None:
                advice = (
                    f"an earlier version has stored those of {earlier}, whatever the path; if they are of this "
                    f"endpoint, set llm.endpoint_id: {earlier}"
                )
            raise ReplayError(
                f"{config.cache.path} has no replies of {config.llm.model} at {provider.endpoint_id}: {advice}"
            )
        return Model(
            llm=OfflineLLM(store, config.cache.offline_miss),
            form=build_form(config, found),
            requested=provider.parameters(),
            negotiated=found,
            _opened=opened.pop_all(),
        )
    raise AssertionError  # pragma: no cover - the block above returns or raises
