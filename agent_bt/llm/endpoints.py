"""Endpoints behind one cache, one guard, one budget and one ledger; a run has its own, an experiment shares one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent_bt.config.model import Config, LLMConfig
from agent_bt.core.errors import EndpointDown
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.budget import BudgetLLM
from agent_bt.llm.cache import CachedLLM
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.guard import FailureGuard
from agent_bt.llm.ledger import Ledger
from agent_bt.llm.limiter import AdaptiveGate
from agent_bt.llm.openai_provider import OpenAILLM, api_key_from_env
from agent_bt.llm.prices import PriceBook, PriceTable

Negotiate = Callable[[LLM], dict[str, Any]]


class Endpoints:
    """The stack that real calls go through, outermost layer `llm`; safe for threads.

    Args:
        config: gives cache, budget, and how many failures in a row are borne; shared by all who connect.
        ledger_path: where the ledger is kept; None: in memory.

    Raises:
        RecordError: the store of replies or the ledger cannot be opened.
    """

    def __init__(self, config: Config, ledger_path: Path | None = None) -> None:
        with ExitStack() as opened:
            self.ledger = opened.enter_context(Ledger(ledger_path))
            self._store = opened.enter_context(ReplyStore(config.cache.path))
            self._clients = _Clients()
            opened.callback(self._clients.close)
            self._prices = PriceBook()
            self._paid = BudgetLLM(self._clients, config.budget, self.ledger, self._prices)
            self.llm: LLM = CachedLLM(FailureGuard(self._paid, config.risk.max_failures_in_a_row), self._store)
            self._connecting = threading.Lock()
            self._opened = opened.pop_all()

    def connect(
        self,
        llm: LLMConfig,
        *,
        endpoint_id: str,
        known: Mapping[str, Any] | None,
        negotiation_key: list[Any],
        negotiate: Negotiate,
    ) -> tuple[Mapping[str, Any], PriceTable]:
        """Make requests to this model possible; returns the ladder's result and the model's prices.

        The first to connect to an endpoint sets time-out, retries and calls in flight for all. The ladder's result is
        what is `known`, else what the cache remembers, else found out now.

        Raises:
            ModelError: the endpoint cannot be used.
            ConfigError: the budget is in dollars, and the model has no known price.
        """
        prices = PriceTable(provider=llm.provider, model=llm.model, base_url=llm.base_url, prices=llm.prices)
        with self._connecting:
            self._paid.check_priced(prices)
            self._prices.add(endpoint_id, llm.model, prices)
            self._clients.open(endpoint_id, llm)
            found = known or self._store.recall(negotiation_key)
            if found is None:
                found = negotiate(self._paid)
                self._store.remember(negotiation_key, found)
        return found, prices

    def stop(self) -> None:
        """Give up what is under way: whoever waits for a reply gets an `EndpointDown`. Idempotent."""
        self._clients.close()

    def close(self) -> None:
        """Release threads, connections and files; idempotent."""
        self._opened.close()


class _Clients:
    """Sends each request to the endpoint it names."""

    def __init__(self) -> None:
        self._by_id: dict[str, OpenAILLM] = {}
        self._closed = False

    def open(self, endpoint_id: str, llm: LLMConfig) -> None:
        if self._closed:
            raise EndpointDown(f"the client of {endpoint_id} is closed")
        if endpoint_id not in self._by_id:
            self._by_id[endpoint_id] = OpenAILLM(
                base_url=llm.base_url,
                api_key=api_key_from_env(llm.api_key_env, base_url=llm.base_url),
                timeout_s=llm.timeout_s,
                retries=llm.retries,
                gate=AdaptiveGate(llm.max_in_flight),
            )

    def submit(self, request: Request) -> Future[Reply]:
        return self._by_id[request.endpoint_id].submit(request)

    def complete(self, request: Request) -> Reply:
        return self._by_id[request.endpoint_id].complete(request)

    def close(self) -> None:
        self._closed = True
        for client in self._by_id.values():
            client.close()
