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
    """What every request of a run shares; the prompt is the rest.

    `body` maps the messages to the effective body of the call, after the response-format ladder.
    """

    provider: str
    endpoint_id: str
    replicate: int
    body: Callable[[list[dict[str, str]]], Mapping[str, Any]]

    def request(self, messages: list[dict[str, str]]) -> Request:
        """The request that asks these messages."""
        return Request(
            provider=self.provider, endpoint_id=self.endpoint_id, replicate=self.replicate, body=self.body(messages)
        )


def ask(llm: LLM, requests: Sequence[Request]) -> list[ModelCall]:
    """Send all requests at once, and wait for their replies."""
    replies = [llm.submit(request) for request in requests]
    return [ModelCall(request=r, reply=result_of(f)) for r, f in zip(requests, replies, strict=True)]


class PromptAgent:
    """One prompt, one model, one symbol: BUY, SELL or HOLD at each decision.

    decide = interpret(requests), both pure; whatever the model says that is not exactly valid is a HOLD.
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
        """Make the agent.

        Args:
            prompt: the prompt file.
            form: what all requests share.
            llm: the model.
            window: rows of the prompt's table, bars.
            every: time between decisions, us.
            features: what the view must hold beside the bars.
            summary: kind of the 7-day summary, `calendar` or `rolling`; None: none.
            sizing: what a reply's size is a fraction of.
            sizes: the values that a reply's size may have, each in (0, 1]; empty: any from 0 to 1.
            strip: the declared repairs of a reply.
        """
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
        """The one question of this decision."""
        context = prompt_context(
            view, portfolio, window=self.lookback, every=self._every, sizing=self._sizing, sizes=self._sizes
        )
        return (self._form.request(self.prompt.render(context)),)

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:  # noqa: ARG002
        """The decision the reply amounts to."""
        parsed = parse_reply(calls[0].reply, strip=self._strip, sizes=self._sizes)
        share = {"BUY": parsed.size, "SELL": None if parsed.size is None else -parsed.size, "HOLD": None}[parsed.action]
        return Decision(
            trades=None if share is None else {view.symbols[0]: share},
            sizing=self._sizing,
            action=parsed.action,
            size=parsed.size,
            note=parsed.note,
            provenance=parsed.provenance,
            detail=parsed.detail,
            calls=tuple(calls),
        )

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Ask and wait."""
        return self.interpret(view, portfolio, ask(self.llm, self.requests(view, portfolio)))
