"""Connected endpoints behind one cache, guard, budget and ledger; a run has its own, an experiment shares one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_bt.config.model import Config
from agent_bt.core.errors import EndpointDown
from agent_bt.core.futures import result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.budget import BudgetLLM, count_attempts
from agent_bt.llm.cache import CachedLLM
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.futures import outcome_of
from agent_bt.llm.guard import FailureGuard
from agent_bt.llm.ledger import Ledger
from agent_bt.llm.prices import PriceBook, PriceTable
from agent_bt.llm.provider import Provider
from agent_bt.llm.retry import RetryLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What is known of a model once requests to it are possible.

    Attributes:
        prices: of the model.
        negotiated: the negotiation's result; None where the provider negotiates nothing.
        recalled: whether the result is from the cache, so that it may be out of date.
        probes: requests that were sent now to find that out.
        probe_reply: the reply to the last of them; None where none was sent.
    """

    prices: PriceTable
    negotiated: Mapping[str, Any] | None = None
    recalled: bool = False
    probes: int = 0
    probe_reply: Reply | None = None


class Endpoints:
    """The layers that calls to endpoints go through, `llm` the outermost one; safe for threads.

    Args:
        config: gives cache, budget, and `risk.max_failures_in_a_row`; shared by all who connect.
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
            self._retries: dict[tuple[str, str], int] = {}
            self._retrying = RetryLLM(self._paid, self._retries_of)
            opened.callback(self._retrying.stop)
            guarded = FailureGuard(self._retrying, config.risk.max_failures_in_a_row)
            self.llm: LLM = CachedLLM(guarded, self._store)
            self._connecting = threading.Lock()
            self._opened = opened.pop_all()

    def connect(
        self,
        provider: Provider,
        *,
        known: Mapping[str, Any] | None,
        key: list[Any],
        negotiate: Callable[[LLM], dict[str, Any]],
    ) -> Connection:
        """Make requests to a provider's model possible.

        The first to connect to an endpoint sets timeout, retries and calls in flight for all.

        Args:
            provider: of the model.
            known: the result of an earlier negotiation; None: the cache knows it, or it is found out now.
            key: what the result is remembered by in the cache.
            negotiate: finds it out, given the LLM that test requests are sent through.

        Raises:
            ModelError: the endpoint cannot be used.
            ConfigError: the budget is in dollars, and the model has no known price.
        """
        prices = provider.prices()
        with self._connecting:
            self._paid.check_priced(prices)
            self._prices.add(
                provider.config.provider, provider.endpoint_id, str(provider.parameters()["model"]), prices
            )
            self._clients.open(provider)
            self._retries.setdefault((provider.config.provider, provider.endpoint_id), provider.config.retries)
            if not provider.negotiates:
                return Connection(prices=prices)
            found = known or self._store.recall(key)
            if found is not None:
                provider.check_negotiated(found, source="this run" if known else f"the cache {self._store.path}")
                return Connection(prices=prices, negotiated=found, recalled=not known)
            probing = _Probing(self._paid)
            found = negotiate(RetryLLM(probing, self._retries_of))
            self._store.remember(key, found)
        return Connection(prices=prices, negotiated=found, probes=probing.attempts, probe_reply=probing.last)

    def forget(self, key: list[Any], negotiated: Mapping[str, Any]) -> None:
        """Forget the result of a negotiation that the endpoint refuses by now.

        Args:
            key: what it is remembered by in the cache.
            negotiated: the result; another one, made meanwhile, is kept.
        """
        with self._connecting:
            if self._store.recall(key) == negotiated:
                self._store.forget(key)

    def stop(self) -> None:
        """Abort the calls in flight: callers that wait for a reply get an `EndpointDown`. Idempotent."""
        self._retrying.stop()
        self._clients.close()

    def close(self) -> None:
        """Release threads, connections and files; idempotent."""
        self._opened.close()

    def _retries_of(self, request: Request) -> int:
        return self._retries[request.provider, request.endpoint_id]


class _Clients:
    """An LLM that sends each request to the endpoint it names."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], LLM] = {}
        self._closed = False

    def open(self, provider: Provider) -> None:
        if self._closed:
            raise EndpointDown(f"the client of {provider.endpoint_id} is closed")
        key = provider.config.provider, provider.endpoint_id
        if key not in self._clients:
            self._clients[key] = provider.open()

    def submit(self, request: Request) -> Future[Reply]:
        return self._client(request).submit(request)

    def complete(self, request: Request) -> Reply:
        return self._client(request).complete(request)

    def close(self) -> None:
        self._closed = True
        for client in self._clients.values():
            client.close()

    def _client(self, request: Request) -> LLM:
        return self._clients[request.provider, request.endpoint_id]


class _Probing:
    """An LLM that counts what is sent to the next one, and keeps the last reply."""

    def __init__(self, inner: LLM) -> None:
        self._inner = inner
        self.attempts = 0
        self.last: Reply | None = None

    def submit(self, request: Request) -> Future[Reply]:
        future = self._inner.submit(request)
        future.add_done_callback(self._count)
        return future

    def complete(self, request: Request) -> Reply:
        return result_of(self.submit(request))

    def close(self) -> None:
        self._inner.close()

    def _count(self, future: Future[Reply]) -> None:
        if not future.cancelled():
            outcome = outcome_of(future)
            self.attempts += count_attempts(outcome)
            self.last = outcome if isinstance(outcome, Reply) else None
