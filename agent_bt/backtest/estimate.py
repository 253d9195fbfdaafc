"""Estimate what a run would cost: every request is built as in the run, counted, and none is sent.

The account is assumed not to change (HOLD throughout), which changes the prompts by a few characters only. Prefetched
calls that are never used are added; their number is bounded by `prefetch.max_waste`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent_bt.agents.rank_reply import RANK_SCHEMA
from agent_bt.backtest.model import build_form, negotiation_key, reply_schema
from agent_bt.backtest.plan import RunPlan, plan_run
from agent_bt.backtest.prepare import prepare_market
from agent_bt.config.model import Config
from agent_bt.core.errors import UsageError
from agent_bt.core.futures import completed
from agent_bt.core.step import Step
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.engine.simulate import simulate
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.provider import get_provider
from agent_bt.llm.tokens import estimate_tokens
from agent_bt.strategies.registry import asks_model

REPLY_TOKENS = 40
"""Completion tokens of a reply (action, size and a short note), assumed where the cache has none of the model."""

TOKENS_A_WEIGHT = 18
"""Completion tokens of one symbol and its weight in a ranker's reply."""

HOLD = '{"action": "HOLD"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run would cost.

    Attributes:
        decisions: number of decisions.
        cached: requests whose reply is in the cache.
        calls: calls that would be paid for.
        calls_most: the same with all prefetch waste that is allowed.
        prompt_tokens: of the paid calls.
        completion_tokens: of the paid calls, expected.
        completion_tokens_from: where that figure comes from.
        cost_usd: expected cost; None: the price is not known.
        cost_usd_most: the same with all prefetch waste that is allowed.
        prices: version of the price table.
    """

    decisions: int
    cached: int
    calls: int
    calls_most: int
    prompt_tokens: int
    completion_tokens: int
    completion_tokens_from: str
    cost_usd: float | None
    cost_usd_most: float | None
    prices: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def estimate(config: Config, *, config_path: Path | None = None, limit: int | None = None) -> Estimate:
    """Build every request of a run and add up what they would cost; nothing is sent.

    Args:
        config: of the run.
        config_path: file it was read from; prompts beside it are found.
        limit: number of decisions after which the run would stop; None: all.

    Raises:
        UsageError: the strategy sends no requests to a model.
        AgentBtError: the prompt, the strategy or the bars are missing or not valid.
    """
    if not asks_model(config.strategy.kind, config.strategy.params):
        raise UsageError(f"strategy.kind is {config.strategy.kind}: it asks no model, so that it costs nothing")
    plan = plan_run(config, config_path=config_path, limit=limit)
    config = plan.config
    provider = get_provider(config.llm)
    with ExitStack() as opened:
        store = None
        if not provider.embedded and Path(config.cache.path).exists():
            store = opened.enter_context(ReplyStore(config.cache.path, read_only=True))
        counter = _Counter(config, store)
        _simulate(plan, counter)
        reply_tokens, source = _reply_tokens(config, store, counter.symbols)
    completion = counter.calls * reply_tokens
    prices = provider.prices()
    cost = prices.cost_usd(Usage(prompt_tokens=counter.prompt_tokens, completion_tokens=completion))
    prefetches = config.prefetch.depth and not (provider.embedded or provider.one_at_a_time)
    waste = 1.0 + (config.prefetch.max_waste if prefetches else 0.0)
    return Estimate(
        decisions=counter.decisions,
        cached=counter.cached,
        calls=counter.calls,
        calls_most=int(counter.calls * waste) + (config.prefetch.depth if waste > 1.0 else 0),
        prompt_tokens=counter.prompt_tokens,
        completion_tokens=completion,
        completion_tokens_from=source,
        cost_usd=cost,
        cost_usd_most=None if cost is None else cost * waste,
        prices=prices.version,
    )


class _Counter:
    """A model that answers HOLD and counts the requests, and a journal that counts the decisions."""

    def __init__(self, config: Config, store: ReplyStore | None) -> None:
        self.decisions = self.cached = self.calls = self.prompt_tokens = self.symbols = 0
        self._model = config.llm.model
        self._store = store

    def submit(self, request: Request) -> Future[Reply]:
        """Count the request as cached or as a call, and answer HOLD."""
        if self._store is not None and self._store.get(request) is not None:
            self.cached += 1
        else:
            self.calls += 1
            self.prompt_tokens += estimate_tokens(request.messages, self._model)
        return completed(Reply(text=HOLD, finish_reason="stop"))

    def complete(self, request: Request) -> Reply:
        """Count the request and answer HOLD."""
        return self.submit(request).result()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def append(self, step: Step) -> None:
        """Count the decision."""
        self.decisions += 1
        self.symbols = len(step.view.symbols)

    def negotiated(self, config: Config) -> Mapping[str, Any] | None:
        """Return the result of the negotiation as the cache has it, else the one that is expected."""
        provider = get_provider(config.llm)
        if not provider.negotiates:
            return None
        known = self._store.recall(negotiation_key(config)) if self._store is not None else None
        return known or provider.expected_negotiation()


def _simulate(plan: RunPlan, counter: _Counter) -> None:
    """Run the plan with the counter as its model."""
    assert plan.model is not None
    plan.model.open(counter, build_form(plan.config, counter.negotiated(plan.config)))
    prepared = prepare_market(plan.config, plan.loaded.bars, plan.strategy, plan.limit)
    simulate(
        market=prepared.market,
        bars=prepared.schedule.bars,
        strategy=plan.strategy,
        setup=plan.setup,
        journal=counter,
    )


def _reply_tokens(config: Config, store: ReplyStore | None, symbols: int) -> tuple[int, str]:
    """Return the completion tokens of a reply, and their source; a ranker is assumed to name half of the symbols."""
    model = get_provider(config.llm).parameters()["model"]
    rows = [] if store is None else [row for row in store.stats() if row.model == model and row.replies]
    if not rows:
        ranks = reply_schema(config.strategy) is RANK_SCHEMA
        return REPLY_TOKENS + (TOKENS_A_WEIGHT * symbols // 2 if ranks else 0), "assumed"
    mean = sum(row.completion_tokens for row in rows) / sum(row.replies for row in rows)
    return round(mean), "mean of the stored replies of this model"
