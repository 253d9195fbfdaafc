"""The agent: requests and interpret are pure, decide combines them, and only a valid reply trades."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from prompt_cases import make_view

from agent_bt.agents.agent import PromptAgent, RequestForm
from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.core.futures import completed
from agent_bt.core.protocols import AgentStrategy, Strategy
from agent_bt.core.types import FeatureSpec, ModelCall, Portfolio, Position, Reply, Request

FLAT = Portfolio(cash=10_000.0, positions={}, peak_equity=10_000.0)
HOUR = 3_600_000_000


class Canned:
    """An LLM with one reply."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[Request] = []

    def submit(self, request: Request) -> Future[Reply]:
        self.asked.append(request)
        return completed(self.reply)

    def complete(self, request: Request) -> Reply:
        return self.submit(request).result()

    def close(self) -> None: ...


def make_agent(text: str | None = None, *, reply: Reply | None = None, **parts: Any) -> PromptAgent:
    form = RequestForm(
        provider="p", endpoint_id="e", replicate=0, body=lambda messages: {"model": "m", "messages": messages}
    )
    reply = reply or Reply(text=text, finish_reason="stop")
    settings: dict[str, Any] = {"window": 60, "every": HOUR, "features": (), "summary": "calendar"}
    prompt = load_prompt("btcusdt_trader/v1", prompt_roots(None))
    return PromptAgent(prompt=prompt, form=form, llm=Canned(reply), **(settings | parts))


def decide(text: str | None = None, **parts: Any) -> Any:
    return make_agent(text, **parts).decide(make_view(), FLAT)


def test_an_agent_is_an_agent_strategy() -> None:
    specs = (FeatureSpec(column="rsi", kind="rsi", params=(("period", 14),)),)
    agent = make_agent("{}", window=30, features=specs, summary="rolling")
    assert isinstance(agent, Strategy)
    assert isinstance(agent, AgentStrategy)
    assert (agent.name, agent.lookback) == ("agent:btcusdt_trader/v1", 30)
    assert (agent.features, agent.summary) == (specs, "rolling")


def test_requests_depend_on_the_arguments_alone() -> None:
    agent = make_agent('{"action": "HOLD"}')
    view = make_view()
    before = view.matrix().copy()
    (first,) = agent.requests(view, FLAT)
    agent.decide(view, FLAT)
    assert agent.requests(view, FLAT) == (first,)
    assert make_agent("anything").requests(make_view(), FLAT)[0].address == first.address
    assert np.array_equal(view.matrix(), before, equal_nan=True)
    held = Portfolio(
        cash=5_000.0,
        positions={view.symbols[0]: Position(quantity=0.1, average_price=100.0, opened=int(view.times[0]))},
        peak_equity=10_000.0,
    )
    assert agent.requests(view, held)[0].address != first.address
    assert [message["role"] for message in first.messages] == ["system", "user"]


def test_decide_is_interpret_of_requests() -> None:
    agent = make_agent('{"action": "BUY", "size_pct": 0.25, "note": "up"}')
    view = make_view()
    asked = agent.requests(view, FLAT)
    replies = [ModelCall(request=request, reply=agent.llm.complete(request)) for request in asked]
    assert agent.decide(view, FLAT) == agent.interpret(view, FLAT, replies)


@pytest.mark.parametrize("sizing", ["available", "equity"])
@pytest.mark.parametrize(
    ("text", "action", "trade"),
    [
        ('{"action": "BUY", "size_pct": 0.25, "note": "up"}', "BUY", 0.25),
        ('{"action": "SELL", "size_pct": 1}', "SELL", -1.0),
        ('{"action": "HOLD"}', "HOLD", None),
        ('{"action": "BUY", "size_pct": 0}', "BUY", 0.0),
    ],
)
def test_a_valid_reply_is_the_decision(text: str, action: str, trade: float | None, sizing: str) -> None:
    decision = decide(text, sizing=sizing)
    assert (decision.action, decision.provenance.kind, decision.sizing) == (action, "model", sizing)
    assert decision.trades == (None if trade is None else {make_view().symbols[0]: trade})
    assert decision.calls[0].reply.text == text


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (Reply(text="I would buy here.", finish_reason="stop"), "invalid", "not_json"),
        (Reply(text='{"action": "BUY", "size_pct": 50}', finish_reason="stop"), "invalid", "schema"),
        (Reply(text='{"action": "BUY", "size_pct": NaN}', finish_reason="stop"), "invalid", "not_finite"),
        (Reply(text='{"action": "BUY", "action": "SELL"}', finish_reason="stop"), "invalid", "duplicate_key"),
        (Reply(text="", finish_reason="stop"), "invalid", "empty"),
        (Reply(text='{"action": "BUY", "si', finish_reason="length"), "invalid", "truncated"),
        (Reply(refusal="I can't help with that.", finish_reason="stop"), "invalid", "refused"),
        (Reply(failure="timeout", error="no answer"), "transport", "timeout"),
        (Reply(failure="rate_limit", error="429"), "transport", "rate_limit"),
        (Reply(failure="budget", error="the budget is reached"), "budget", "budget"),
    ],
)  # fmt: skip
def test_a_reply_that_is_not_valid_is_a_hold_with_its_reason(reply: Reply, kind: str, reason: str) -> None:
    decision = decide(reply=reply)
    assert (decision.action, decision.trades, decision.targets, decision.size) == ("HOLD", None, None, None)
    assert decision.provenance.kind == kind
    assert reason in (decision.provenance.reason or "budget")
    assert decision.calls[0].reply is reply


def test_a_declared_repair_is_recorded_and_an_undeclared_one_is_not_made() -> None:
    fenced = '```json\n{"action": "SELL", "size_pct": 0.5}\n```'
    assert decide(fenced).provenance.kind == "invalid"
    repaired = decide(fenced, strip="code_fence")
    assert (repaired.action, repaired.provenance.kind, repaired.provenance.repaired) == ("SELL", "model", "code_fence")


def test_a_view_shorter_than_the_window_still_makes_a_prompt() -> None:
    (request,) = make_agent("{}", window=60).requests(make_view(rows=3, warm=40), FLAT)
    assert request.messages[-1]["content"]
