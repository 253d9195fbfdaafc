"""The LLM strategy: the view becomes a prompt, the prompt a request, the reply a decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_bt.agents.context import prompt_context
from agent_bt.agents.prompt import Prompt
from agent_bt.agents.reply import Strip, parse_reply
from agent_bt.core.futures import result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Decision, FeatureSpec, ModelCall, Portfolio, Request, Sizing
from agent_bt.core.view import MarketView


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestForm:
    """The part of a request that is the same in a whole run, all but the messages.

    Attributes:
        provider: `llm.provider`.
        endpoint_id: name of the endpoint in cache keys.
        replicate: number of the repetition.
        body: from messages to the body of the request as it is sent, after the format negotiation.
    """

    provider: str
    endpoint_id: str
    replicate: int
    body: Callable[[list[dict[str, str]]], Mapping[str, Any]]

    def request(self, messages: list[dict[str, str]]) -> Request:
        """Return the request that sends these messages."""
        return Request(
            provider=self.provider, endpoint_id=self.endpoint_id, replicate=self.replicate, body=self.body(messages)
        )


def ask(llm: LLM, requests: Sequence[Request]) -> list[ModelCall]:
    """Send all requests at once, and wait for their replies.

    Args:
        llm: the model.
        requests: in any order; the calls come back in the same one.
    """
    replies = [llm.submit(request) for request in requests]
    return [ModelCall(request=r, reply=result_of(f)) for r, f in zip(requests, replies, strict=True)]


class PromptAgent:
    """An agent with one prompt, one model and one symbol: BUY, SELL or HOLD at each decision.

    decide = interpret(requests), both pure; a reply that is not exactly valid is a HOLD.

    Args:
        prompt: rendered at each decision.
        form: what all requests have in common.
        llm: the model.
        window: rows of the prompt's table, bars.
        every: time between decisions, us.
        features: columns of the table beside those of the bars.
        summary: kind of the 7-day summary; None: there is none.
        sizing: what the size of a reply is a fraction of.
        sizes: the values that the size of a reply may have, each in (0, 1]; empty: any number from 0 to 1.
        strip: declared repairs of a reply.
    """

    def __init__(
        self,
        *,
        prompt: Prompt,
        form: RequestForm,
        llm: LLM,
        window: int,
        every: int,
        features: Sequence[FeatureSpec],
        summary: str | None,
        sizing: Sizing = "available",
        sizes: Sequence[float] = (),
        strip: Strip = "none",
    ) -> None:
        self.name = f"agent:{prompt.reference}"
        self.lookback = window
        self.features = features
        self.summary = summary
        self.llm = llm
        self.prompt = prompt
        self._form = form
        self._every = every
        self._sizing: Sizing = sizing
        self._sizes = tuple(sizes)
        self._strip: Strip = strip

    def requests(self, view: MarketView, portfolio: Portfolio) -> tuple[Request, ...]:
        """Return the one request of this decision.

        Args:
            view: the market up to now.
            portfolio: the account before the decision.
        """
        context = prompt_context(
            view, portfolio, window=self.lookback, every=self._every, sizing=self._sizing, sizes=self._sizes
        )
        return (self._form.request(self.prompt.render(context)),)

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:  # noqa: ARG002
        """Return the decision that the reply stands for.

        Args:
            view: as for `requests`.
            portfolio: as for `requests`.
            calls: the one request with its reply.
        """
        parsed = parse_reply(calls[0].reply, strip=self._strip, sizes=self._sizes)
        size = {"BUY": parsed.size, "SELL": None if parsed.size is None else -parsed.size, "HOLD": None}[parsed.action]
        return Decision(
            trades=None if size is None else {view.symbols[0]: size},
            sizing=self._sizing,
            action=parsed.action,
            size=parsed.size,
            note=parsed.note,
            provenance=parsed.provenance,
            detail=parsed.detail,
            calls=tuple(calls),
        )

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Send the request, wait for the reply, and return the decision.

        Args:
            view: the market up to now.
            portfolio: the account before the decision.
        """
        return self.interpret(view, portfolio, ask(self.llm, self.requests(view, portfolio)))
