"""Estimate what a run would cost: every request is built as in the run, counted, and none is sent.

Expected: each request once, its prompt estimated, its reply as long as the stored ones of the model, or as assumed. The
account is taken not to change (HOLD throughout), which changes the prompts by a few characters only.

At most: each request costs its worst case as the budget counts it, every retry is used, prefetch wastes all that
`prefetch.max_waste` allows, and the format negotiation needs all of its steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from agent_bt.llm.budget import compute_worst_case
from agent_bt.llm.cache_store import ReplyStore
from agent_bt.llm.ledger import NOTHING
from agent_bt.llm.negotiation import MAX_STEPS
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
    """What a run, or several, would cost.

    Attributes:
        decisions: number of decisions.
        cached: requests whose reply is in the cache.
        calls: calls that would be paid for, expected.
        calls_most: the most attempts that could be paid for: retries, prefetch waste and negotiation included.
        prompt_tokens, completion_tokens: of the expected calls.
        prompt_tokens_most, completion_tokens_most: of the most attempts; a prompt has no more tokens than its request
            has bytes, a reply no more than `llm.max_tokens`.
        completion_tokens_from: where the expected length of a reply comes from.
        cost_usd: expected cost; None: the price is not known.
        cost_usd_most: cost of the most attempts; None: the price is not known.
        prices: version of the price table.
        retries: attempts after the first that a request may have.
    """

    decisions: int
    cached: int
    calls: int
    calls_most: int
    prompt_tokens: int
    prompt_tokens_most: int
    completion_tokens: int
    completion_tokens_most: int
    completion_tokens_from: str
    cost_usd: float | None
    cost_usd_most: float | None
    prices: str
    retries: int

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
        raise UsageError(f"strategy.kind is {config.strategy.kind}: it asks no model, so it costs nothing")
    return estimate_plan(plan_run(config, config_path=config_path, limit=limit), set())


def estimate_plan(plan: RunPlan, asked: set[str]) -> Estimate:
    """Build every request of a planned run and add up what they would cost.

    Args:
        plan: of a strategy that asks a model.
        asked: addresses of requests that earlier runs of the same experiment have asked; those of this run are added.
    """
    with ExitStack() as opened:
        counter = RequestCounter(plan.config, opened, asked)
        _simulate(plan, counter)
        return counter.to_estimate()


def add_estimates(parts: Sequence[Estimate]) -> Estimate:
    """Add up what several runs would cost.

    Args:
        parts: at least one.
    """

    def total(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if None in values else sum(values)

    def each(name: str) -> str:
        return "; ".join(dict.fromkeys(getattr(part, name) for part in parts))

    sums = {name: total(name) for name in Estimate.__slots__ if name not in _NOT_SUMMED}
    return Estimate(
        **sums,
        completion_tokens_from=each("completion_tokens_from"),
        prices=each("prices"),
        retries=max(part.retries for part in parts),
    )


_NOT_SUMMED = ("completion_tokens_from", "prices", "retries")


class RequestCounter:
    """A model that answers HOLD and counts the requests, and a journal that counts the decisions.

    Args:
        config: of the run.
        opened: closes the store of replies, where there is one.
        asked: addresses of requests that count as asked already; new ones are added.
    """

    def __init__(self, config: Config, opened: ExitStack, asked: set[str]) -> None:
        self.decisions = self.cached = self.calls = self.symbols = 0
        self._config = config
        self._provider = get_provider(config.llm)
        self._prices = self._provider.prices()
        self._asked = asked
        self._prompt_tokens = 0
        self._worst = NOTHING
        self._store: ReplyStore | None = None
        if not self._provider.embedded and Path(config.cache.path).exists():
            self._store = opened.enter_context(ReplyStore(config.cache.path, read_only=True))

    def submit(self, request: Request) -> Future[Reply]:
        """Count the request as cached or as a call, and answer HOLD."""
        stored = self._store is not None and self._store.get(request) is not None
        if stored or request.address in self._asked:
            self.cached += 1
        else:
            self.calls += 1
            self._asked.add(request.address)
            self._prompt_tokens += estimate_tokens(request.messages, self._config.llm.model)
            self._worst += compute_worst_case(request, self._prices)
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

    def negotiated(self) -> Mapping[str, Any] | None:
        """Return the result of the negotiation as the cache has it, else the one that is expected."""
        if not self._provider.negotiates:
            return None
        return self._remembered() or self._provider.expected_negotiation()

    def to_estimate(self) -> Estimate:
        """Return what was counted as an estimate."""
        config, provider = self._config, self._provider
        reply_tokens, source = self._reply_tokens()
        completion = self.calls * reply_tokens
        prefetches = config.prefetch.depth and not (provider.embedded or provider.one_at_a_time)
        once = self.calls
        if prefetches:
            once += math.floor(self.calls * config.prefetch.max_waste) + config.prefetch.depth
        if provider.negotiates and self.calls and self._remembered() is None:
            once += MAX_STEPS
        retries = 0 if provider.embedded else config.llm.retries
        # Calls that the run may make beside those that were counted are taken to be like them.
        factor = once * (1 + retries) / self.calls if self.calls else 0.0
        usd = self._worst.usd if self.calls else 0.0
        return Estimate(
            decisions=self.decisions,
            cached=self.cached,
            calls=self.calls,
            calls_most=once * (1 + retries) if self.calls else 0,
            prompt_tokens=self._prompt_tokens,
            prompt_tokens_most=math.ceil(self._worst.prompt_tokens * factor),
            completion_tokens=completion,
            completion_tokens_most=math.ceil(self._worst.completion_tokens * factor),
            completion_tokens_from=source,
            cost_usd=self._prices.cost_usd(Usage(prompt_tokens=self._prompt_tokens, completion_tokens=completion)),
            cost_usd_most=None if usd is None or self._worst.unpriced else usd * factor,
            prices=self._prices.version,
            retries=retries,
        )

    def _remembered(self) -> Mapping[str, Any] | None:
        return self._store.recall(negotiation_key(self._config)) if self._store is not None else None

    def _reply_tokens(self) -> tuple[int, str]:
        """Return the completion tokens of a reply, and their source; a ranker is taken to name half of the symbols."""
        model = self._provider.parameters()["model"]
        stats = [] if self._store is None else self._store.stats()
        rows = [row for row in stats if row.model == model and row.replies]
        if not rows:
            ranks = reply_schema(self._config.strategy) is RANK_SCHEMA
            tokens = REPLY_TOKENS + (TOKENS_A_WEIGHT * self.symbols // 2 if ranks else 0)
            return tokens, "assumed"
        mean = sum(row.completion_tokens for row in rows) / sum(row.replies for row in rows)
        return round(mean), "mean of the stored replies of this model"


def _simulate(plan: RunPlan, counter: RequestCounter) -> None:
    """Run the plan with the counter as its model."""
    assert plan.model is not None
    plan.model.open(counter, build_form(plan.config, counter.negotiated()))
    prepared = prepare_market(plan.config, plan.loaded.bars, plan.strategy, plan.limit)
    simulate(
        market=prepared.market,
        bars=prepared.schedule.bars,
        strategy=plan.strategy,
        setup=plan.setup,
        journal=counter,
    )
