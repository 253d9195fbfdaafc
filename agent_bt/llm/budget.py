"""The budget as a layer: reserves the worst case of every attempt before it is sent, and never exceeds the limit.

1. A call here is one attempt: what lies above repeats a failed one as a call of its own.
2. The worst case of a call: its prompt has no more tokens than its request has bytes, its completion no more than
   `max_tokens`.
3. A needed call is sent when spent amounts, reserved amounts and its own worst case fit the limits together. Where only
   the calls in flight prevent that it waits for them: most cost far less than their worst case.
4. A speculative call is refused as soon as it would use the part of the budget that is kept for needed calls.
5. A reply settles its call with the actual amounts (`compute_cost`): whatever was sent is a call; what may have been
   computed counts with its worst case until its usage is known.
6. A reply with usage but no price counts its tokens, and no dollars; it is `unpriced` in the ledger. Under a budget in
   dollars it counts with its worst case, and no further call is sent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from agent_bt.config.model import BudgetConfig
from agent_bt.core.canonical import canonical
from agent_bt.core.errors import BudgetReached, ConfigError, EndpointDown, ModelError, RecordError
from agent_bt.core.futures import result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.futures import LinkedFuture, outcome_of, resolve
from agent_bt.llm.ledger import NOTHING, Ledger, Spend, compute_spend
from agent_bt.llm.prices import PriceBook, PriceTable, add_cost
from agent_bt.llm.priority import Priority, current_priority, use_priority

_KEPT_FOR_NEEDED = 0.1


class _PendingCall:
    """A needed call that waits for calls in flight to settle."""

    __slots__ = ("future", "priority", "request", "worst")

    def __init__(self, request: Request, priority: Priority, worst: Spend, future: LinkedFuture) -> None:
        self.request = request
        self.priority = priority
        self.worst = worst
        self.future = future


class BudgetLLM:
    """An LLM that stops before a limit is exceeded, and keeps the ledger; without limits it only keeps the ledger.

    At a limit the future fails with `BudgetReached`, or with `on_limit: hold` its reply has `failure="budget"`.

    Args:
        inner: makes the calls. Closed with this one.
        budget: the limits; they cover all that the ledger holds, earlier sessions of the run included.
        ledger: what was and is spent. It stays open.
        prices: of the model or models; sets `cost_usd` of replies, unless the endpoint has reported the cost.

    Raises:
        ConfigError: the budget is in dollars and the model has no known price.
    """

    def __init__(self, inner: LLM, budget: BudgetConfig, ledger: Ledger, prices: PriceTable | PriceBook) -> None:
        self._inner = inner
        self._budget = budget
        self._ledger = ledger
        self._prices = prices
        self._lock = threading.Lock()
        self._waiting: deque[_PendingCall] = deque()
        self._in_flight = 0
        self._draining = False
        self._lost_count = False
        if isinstance(prices, PriceTable):
            self.check_priced(prices)

    def check_priced(self, prices: PriceTable) -> None:
        """Check that a budget in dollars can be kept with these prices.

        Raises:
            ConfigError: the budget is in dollars and the model has no known price.
        """
        if self._budget.usd is not None and not prices.priced:
            raise ConfigError(
                f"budget.usd is set, but {prices.why_unpriced}; give llm.prices (US dollars per million tokens: input,"
                " output), or limit budget.calls or budget.tokens instead"
            )

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request when the budget has room for it; its future can be cancelled until then."""
        call = _PendingCall(request, current_priority(), self._worst_case(request), LinkedFuture())
        refused = False
        number: int | None = None
        with self._lock:
            if call.priority.speculative:
                number = self._reserve(call.worst, kept=_KEPT_FOR_NEEDED) if not self._waiting else None
                refused = number is None
            else:
                self._waiting.append(call)
        if number is not None:
            self._send(call, number)
        elif refused:
            resolve(call.future, self._refusal(hold=True))
        else:
            self._drain()
        return call.future

    def complete(self, request: Request) -> Reply:
        """Wait for the reply and return it.

        Raises:
            BudgetReached: there is no room for this call.
        """
        return result_of(self.submit(request))

    def close(self) -> None:
        """Close the layers behind; the ledger stays open."""
        self._inner.close()

    def _worst_case(self, request: Request) -> Spend:
        worst = compute_worst_case(request, self._prices.of(request))
        limited = self._budget.tokens is not None or self._budget.usd is not None
        if limited and _max_completion(request.body) is None:
            raise ConfigError("a budget in tokens or dollars needs llm.max_tokens in every request")
        return worst

    def _reserve(self, worst: Spend, *, kept: float = 0.0) -> int | None:
        """Reserve `worst` if it fits and leaves the fraction `kept` of each limit unused; else return None."""
        if self._lost_count:
            return None
        total = self._ledger.spent + self._ledger.reserved + worst
        budget = self._budget
        for limit, amount in ((budget.calls, total.calls), (budget.tokens, total.tokens), (budget.usd, total.usd or 0)):
            if limit is not None and amount > limit * (1 - kept):
                return None
        number = self._ledger.reserve(worst)
        self._in_flight += 1
        return number

    def _drain(self) -> None:
        """Send waiting calls in their order, as far as they fit; refuse the first where no room can become free."""
        with self._lock:
            # A reply that is there at once settles inside `_send`: the loop below checks again, nothing recurses.
            if self._draining:
                return
            self._draining = True
        while True:
            with self._lock:
                while self._waiting and self._waiting[0].future.cancelled():
                    self._waiting.popleft()
                refusal: Reply | BaseException | None = None
                try:
                    number = self._reserve(self._waiting[0].worst) if self._waiting else None
                except RecordError as error:
                    number, refusal = None, error
                if refusal is None and number is None and (self._in_flight or not self._waiting):
                    self._draining = False
                    return
                call = self._waiting.popleft()
            if number is None:
                resolve(call.future, refusal or self._refusal(hold=self._budget.on_limit == "hold"))
            else:
                self._send(call, number)

    def _send(self, call: _PendingCall, number: int) -> None:
        def send() -> Future[Reply]:
            with use_priority(call.priority):
                return self._inner.submit(call.request)

        try:
            inner = call.future.attach(send)
        except Exception as error:
            self._settle(number, NOTHING)
            resolve(call.future, error)
            return
        if inner is None:
            self._settle(number, NOTHING)
        else:
            inner.add_done_callback(partial(self._arrived, call, number))

    def _arrived(self, call: _PendingCall, number: int, inner: Future[Reply]) -> None:
        if inner.cancelled():
            self._settle(number, NOTHING)
            call.future.cancel()
            return
        outcome = outcome_of(inner)
        if isinstance(outcome, Reply):
            outcome = add_cost(outcome, self._prices.of(call.request))
        try:
            self._settle(number, self._count(compute_cost(outcome, call.worst), call.worst))
        except RecordError as error:  # spending that cannot be recorded must stop
            outcome = error
        resolve(call.future, outcome)

    def _count(self, actual: Spend, worst: Spend) -> Spend:
        """Count what turned out to be unpriced with its worst case, where dollars are limited."""
        if self._budget.usd is None or not actual.unpriced or worst.usd is None:
            return actual
        self._lost_count = True
        return replace(actual, usd=worst.usd)

    def _settle(self, number: int, actual: Spend) -> None:
        with self._lock:
            self._in_flight -= 1
            self._ledger.settle(number, actual)
        self._drain()

    def _refusal(self, *, hold: bool) -> Reply | BudgetReached:
        if self._lost_count:
            message = (
                "an answer came back without a known price (of its service tier, perhaps), so that budget.usd cannot be"
                " kept; give llm.prices and run the same command again to continue"
            )
        else:
            message = (
                f"the budget is reached ({_limits(self._budget)}; spent: {_amounts(self._ledger.spent)}); raise it and"
                " run the same command again to continue"
            )
        return Reply(failure="budget", error=message, attempts=0) if hold else BudgetReached(message)


def compute_worst_case(request: Request, prices: PriceTable) -> Spend:
    """Return the most that one attempt of a request can cost.

    Args:
        request: its prompt has no more tokens than its body has bytes, its completion no more than `max_tokens`; a
            request without such a limit counts without a completion.
        prices: of the model.
    """
    prompt = len(canonical(request.body))
    completion = (_max_completion(request.body) or 0) * max(int(request.body.get("n", 1)), 1)
    cost = prices.worst_usd(prompt_tokens=prompt, completion_tokens=completion)
    return Spend(
        calls=1, prompt_tokens=prompt, completion_tokens=completion, usd=cost, unpriced=0 if cost is not None else 1
    )


def _max_completion(body: Mapping[str, Any]) -> int | None:
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    return most if isinstance(most, int) else None


def count_attempts(outcome: Reply | BaseException) -> int:
    """Return how often a request was sent; one that ended with an exception was sent once."""
    return outcome.attempts if isinstance(outcome, Reply) else 1


def compute_cost(outcome: Reply | BaseException, worst: Spend) -> Spend:
    """Return what an attempt has cost, as far as that is known.

    | the attempt | counts as |
    |---|---|
    | never reached the endpoint | nothing |
    | came back with its usage | a call with that usage |
    | was refused: a rate limit, a key, a model, a parameter | a call without tokens |
    | timed out, was cut, failed in the server, came back unreadable or without usage | a call with its worst case |

    Args:
        outcome: its reply, or the exception it ended with.
        worst: the most it can have cost.
    """
    if not count_attempts(outcome):
        return NOTHING
    refused = replace(NOTHING, calls=1, usd=None if worst.usd is None else 0.0)
    if isinstance(outcome, BaseException):
        return refused if isinstance(outcome, ModelError) and not isinstance(outcome, EndpointDown) else worst
    if outcome.usage is not None:
        return compute_spend(outcome)
    return refused if outcome.failure == "rate_limit" else worst


def _limits(budget: BudgetConfig) -> str:
    limits: Mapping[str, Any] = {"usd": budget.usd, "calls": budget.calls, "tokens": budget.tokens}
    return ", ".join(f"budget.{name} {limit:g}" for name, limit in limits.items() if limit is not None)


def _amounts(spend: Spend) -> str:
    dollars = "unpriced" if spend.usd is None else f"{spend.usd:.4f} USD"
    return f"{spend.calls} calls, {spend.tokens} tokens, {dollars}"
