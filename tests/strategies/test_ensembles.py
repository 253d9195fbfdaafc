"""Ensembles: votes of every method against plain Python, agents among the members, and creation by name."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from paper_market import FLAT, PaperMarket, noise_market, same_bits, traded_market, wanted_of

from agent_bt.agents.agent import PromptAgent, RequestForm
from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.config.model import FeaturesConfig
from agent_bt.core.clock import HOUR
from agent_bt.core.errors import ConfigError
from agent_bt.core.protocols import AgentStrategy
from agent_bt.core.types import Decision, FeatureSpec, ModelCall, Portfolio, Position, Reply
from agent_bt.core.view import MarketView
from agent_bt.features.specs import feature_specs
from agent_bt.llm.scripted import ScriptedLLM
from agent_bt.strategies.base import Strategy
from agent_bt.strategies.ensemble import EnsembleSignalGenerator
from agent_bt.strategies.mixed_ensemble import AgentEnsemble, MixedEnsemble
from agent_bt.strategies.registration import registered
from agent_bt.strategies.registry import asks_model, create_strategy, make_strategy

RULES = [
    {"kind": "rule", "params": {"long": "volume > 1", "exit": "volume < -1", "short": "trades > 3", "size": 0.5}},
    {"kind": "rule", "params": {"long": "trades > 1", "exit": "trades < -1", "size": 0.25}},
    {"kind": "rank", "params": {"column": "volume", "top_n": 2, "bottom_n": 1}},
]


def slow_votes(market: PaperMarket, window: int, row: int) -> list[list[float]]:
    """The vote of every member for every symbol at a row, by asking each for every row of the window."""
    votes = []
    for member in RULES:
        strategy = create_strategy(member["kind"], **member["params"])  # type: ignore[arg-type]
        standing = [0.0] * len(market.symbols)
        for at in range(max(0, row - window + 1), row + 1):
            wanted = wanted_of(strategy.decide(market.at(at, 1), FLAT), market.symbols)
            standing = [old if math.isnan(new) else float(new) for old, new in zip(standing, wanted, strict=True)]
        votes.append(standing)
    return votes


def slow_weight(method: str, votes: list[float], weights: list[float]) -> float:
    mean = sum(w * v for w, v in zip(weights, votes, strict=True)) / sum(weights)
    longs, shorts = [v > 0 for v in votes], [v < 0 for v in votes]
    if method == "weighted_average":
        return mean
    if method == "unanimous":
        return mean if all(longs) or all(shorts) else 0.0
    for side in (longs, shorts):
        agreeing = [(w, v) for w, v, on in zip(weights, votes, side, strict=True) if on]
        if sum(w for w, _ in agreeing) > sum(weights) / 2:
            return sum(w * v for w, v in agreeing) / sum(w for w, _ in agreeing)
    return 0.0


@pytest.mark.parametrize("method", ["weighted_average", "majority_vote", "unanimous"])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [2.0, 0.5, 1.0]])
def test_votes_stand_for_the_window_and_become_one_target(method: str, weights: list[float]) -> None:
    market = noise_market(["volume", "trades"], 60, 3, seed=4)
    ensemble = create_strategy("ensemble", members=RULES, method=method, weights=weights, window=4)
    assert (ensemble.lookback, ensemble.on_change) == (4, True)
    wanted = ensemble.decide_all(market, np.arange(60))  # type: ignore[attr-defined]
    assert np.isnan(wanted[:3]).all()
    for row in range(3, 60):
        votes = slow_votes(market, 4, row)
        for symbol in range(3):
            own = [vote[symbol] for vote in votes]
            expected = slow_weight(method, own, weights) if market.eligible[row, symbol] else 0.0
            assert wanted[row, symbol] == pytest.approx(expected, abs=1e-15)
    assert 0.0 in wanted[3:] and wanted[3:].any()


def test_best_of_recent_follows_the_member_whose_votes_earned_most() -> None:
    market = noise_market(["volume", "trades"], 50, 3, seed=8)
    market.data["close"] = 50 + np.random.default_rng(1).normal(0, 5, (50, 3))
    market.data["close"][20, 1] = math.nan
    ensemble = create_strategy("ensemble", members=RULES, method="best_of_recent", window=5)
    wanted = ensemble.decide_all(market, np.arange(50))  # type: ignore[attr-defined]
    close, followed = market.data["close"], set()
    for row in range(ensemble.lookback - 1, 50):
        earned = [0.0] * 3
        for at in range(row - 4, row + 1):
            for member, votes in enumerate(slow_votes(market, 5, at - 1)):
                for symbol in range(3):
                    gain = close[at, symbol] / close[at - 1, symbol] - 1
                    earned[member] += 0.0 if math.isnan(gain) else votes[symbol] * gain
        best = earned.index(max(earned))
        followed.add(best)
        expected = np.where(market.eligible[row], slow_votes(market, 5, row)[best], 0.0)
        np.testing.assert_array_equal(wanted[row], expected)
    assert followed == {0, 1, 2}
    assert ensemble.lookback == 10


def test_members_come_as_objects_names_and_mappings_with_weights() -> None:
    made = create_strategy("ensemble", members=["rsi", {"kind": "macd", "weight": 3}, create_strategy("ma_cross")])
    assert isinstance(made, EnsembleSignalGenerator)
    assert made.weights.tolist() == [1.0, 3.0, 1.0]
    columns = [spec.column for spec in made.features]
    assert columns == ["rsi_14", "macd_hist_12_26_9", "sma_12", "sma_26"]
    twice = EnsembleSignalGenerator([create_strategy("rsi"), create_strategy("rsi", low=20)])  # type: ignore[list-item]
    assert [spec.column for spec in twice.features] == ["rsi_14"]


class Own(Strategy):
    """A user's own, which only decides."""

    lookback = 3

    def __init__(self, decision: Decision) -> None:
        self.decision, self.seen = decision, []  # type: ignore[var-annotated]

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        self.seen.append((len(view), tuple(view.columns)))
        return self.decision


HELD = Portfolio(cash=60.0, positions={"S0": Position(quantity=4.0, average_price=9.0, opened=0)})


@pytest.mark.parametrize(
    ("decision", "weight"),
    [
        (Decision.hold(), 0.4),
        (Decision.buy("S0", 0.5), 0.7),
        (Decision.buy("S0"), 1.0),
        (Decision.sell("S0", 0.25), 0.3),
        (Decision.sell("S0"), 0.0),
        (Decision.buy("S0", 0.9, sizing="equity"), 1.0),
        (Decision.sell("S0", 0.3, sizing="equity"), 0.1),
        (Decision.to({"S0": -0.2}), -0.2),
        (Decision.to({}), 0.4),
    ],
)
def test_a_decision_votes_for_the_weight_it_leads_to(decision: Decision, weight: float) -> None:
    market = PaperMarket({"close": np.full((8, 1), 10.0), "volume": np.ones((8, 1)), "extra": np.ones((8, 1))})
    own = Own(decision)
    ensemble = make_strategy("ensemble", {"members": [own, {"kind": "rule", "params": {"long": "volume > 0"}}]})
    assert isinstance(ensemble, MixedEnsemble) and not isinstance(ensemble, AgentStrategy)
    assert not hasattr(ensemble, "decide_all")
    wanted = ensemble.decide(market.at(7, ensemble.lookback), HELD)
    assert wanted.targets == {"S0": pytest.approx((weight + 1.0) / 2)}
    assert not wanted.on_change
    assert own.seen == [(3, tuple(market.data)[:-1])]


def make_agent(llm: ScriptedLLM, **parts: Any) -> PromptAgent:
    form = RequestForm(
        provider="p", endpoint_id="e", replicate=0, body=lambda messages: {"model": "m", "messages": messages}
    )
    settings: dict[str, Any] = {"window": 30, "every": HOUR, "features": feature_specs(FeaturesConfig())}
    prompt = load_prompt("btcusdt_trader/v1", prompt_roots(None))
    return PromptAgent(prompt=prompt, form=form, llm=llm, **(settings | {"summary": None} | parts))


def agents_market(ensemble: Strategy) -> PaperMarket:
    return traded_market(ensemble.features, 200, 1, seed=2)


def reply(action: str, size: float | None = None, note: str = "") -> str:
    return json.dumps({"action": action, "note": note} | ({} if size is None else {"size_pct": size}))


def test_an_ensemble_with_an_agent_is_an_agent() -> None:
    agent = make_agent(ScriptedLLM([reply("BUY", 0.5, "up"), reply("SELL", 1.0), reply("HOLD")]))
    ensemble = create_strategy("ensemble", members=[{"kind": "rsi", "weight": 3}, agent], window=5)
    assert isinstance(ensemble, AgentEnsemble) and isinstance(ensemble, AgentStrategy)
    assert ensemble.llm is agent.llm
    assert (ensemble.lookback, ensemble.on_change, ensemble.summary) == (30, False, None)
    market = agents_market(ensemble)
    bar = int(np.flatnonzero(market.eligible[:, 0])[-1])
    view = market.at(bar, ensemble.lookback)
    rule = wanted_of(create_strategy("ensemble", members=["rsi"], window=5).decide(market.at(bar, 5), FLAT), ["S0"])[0]
    price = view.prices["S0"]
    held = Portfolio(cash=75.0, positions={"S0": Position(quantity=25.0 / price, average_price=price, opened=0)})
    for weight, note in ((0.25 + 0.5 * 0.75, "up"), (0.0, ""), (0.25, "")):
        decision = ensemble.decide(view, held)
        assert decision.targets == {"S0": pytest.approx((3 * rule + weight) / 4)}
        assert (decision.note, decision.provenance.kind, len(decision.calls)) == (note, "model", 1)


def test_an_agent_among_others_asks_what_it_would_ask_alone() -> None:
    agent = make_agent(ScriptedLLM([]), summary="calendar")
    ensemble = AgentEnsemble([create_strategy("macd"), agent], window=90)
    assert (ensemble.lookback, ensemble.summary) == (90, "calendar")
    market = agents_market(ensemble)
    alone = traded_market(agent.features, 200, 1, seed=2)
    there = ensemble.requests(market.at(150, 90), FLAT)
    assert there == agent.requests(alone.at(150, 30), FLAT)
    assert there[0].address == agent.requests(alone.at(150, 30), FLAT)[0].address


def test_replies_go_to_their_agents_and_what_is_not_valid_counts_as_hold() -> None:
    llm = ScriptedLLM([])
    agents = [make_agent(llm), make_agent(llm, sizing="equity"), make_agent(llm)]
    ensemble = AgentEnsemble([agents[0], create_strategy("stay_out"), agents[1], agents[2]], "majority_vote")
    market = agents_market(ensemble)
    bar = int(np.flatnonzero(market.eligible[:, 0])[-1])
    view = market.at(bar, ensemble.lookback)
    asked = ensemble.requests(view, FLAT)
    assert len(asked) == 3
    answers = [Reply(text=reply("BUY", 0.5), finish_reason="stop")] * 2 + [Reply(text="buy!", finish_reason="stop")]
    calls = [ModelCall(request=r, reply=a) for r, a in zip(asked, answers, strict=True)]
    decision = ensemble.interpret(view, FLAT, calls)
    assert decision.targets == {"S0": 0.0}
    assert (decision.provenance.kind, decision.provenance.reason) == ("invalid", "not_json")
    assert decision.detail
    assert decision.calls == tuple(calls)
    calls[2] = replace(calls[2], reply=answers[0])
    decision = ensemble.interpret(view, FLAT, calls)
    assert decision.targets == {"S0": pytest.approx(fmean([0.5, 0.5, 0.5]))}
    lost = replace(calls[0], reply=Reply(failure="timeout", error="late"))
    decision = ensemble.interpret(view, FLAT, [lost, *calls[1:]])
    assert (decision.provenance.kind, decision.targets) == ("transport", {"S0": 0.0})


def test_an_agent_that_is_not_eligible_to_buy_gets_nothing() -> None:
    ensemble = AgentEnsemble([make_agent(ScriptedLLM([reply("BUY", 1.0)]))])
    market = agents_market(ensemble)
    market.eligible[:] = False
    assert ensemble.decide(market.at(150, 30), FLAT).targets == {"S0": 0.0}


def test_members_of_kind_agent_are_made_by_whoever_assembles_the_run() -> None:
    agent = make_agent(ScriptedLLM([]))
    params = {"members": [{"kind": "agent", "weight": 2}, {"kind": "ensemble", "params": {"members": ["agent"]}}]}
    asked: list[tuple[str, Any]] = []

    def made(kind: str, given: Any) -> AgentStrategy:
        asked.append((kind, given))
        return agent

    ensemble = make_strategy("ensemble", params, agent=made)
    assert isinstance(ensemble, AgentEnsemble)
    assert asked == [("agent", {})] * 2
    assert ensemble.weights.tolist() == [2.0, 1.0]
    assert isinstance(make_strategy("ensemble", params, agent=agent), AgentEnsemble)
    assert make_strategy("agent", {}, agent=agent) is agent
    with pytest.raises(ConfigError, match=r"members\[0\]: strategy agent: it needs a prompt and a model"):
        make_strategy("ensemble", params)


def test_whether_a_strategy_asks_a_model() -> None:
    assert asks_model("agent", {}) and asks_model("agent_ranker", {})
    inner = {"kind": "ensemble", "params": {"members": [{"kind": "rsi"}, {"kind": "agent_ranker"}]}}
    assert asks_model("ensemble", {"members": ["rsi", inner]})
    assert asks_model("ensemble", {"members": ["agent"]})
    assert asks_model("ensemble", {"members": [make_agent(ScriptedLLM([]))]})
    assert not asks_model("ensemble", {"members": ["rsi", {"kind": "ensemble", "params": {"members": ["macd"]}}]})
    assert not asks_model("ensemble", {"members": None})
    assert not any(asks_model(kind, {}) for kind in registered())


def test_the_bits_of_an_ensemble_do_not_depend_on_who_asks() -> None:
    """Members that look back differently, with a warm-up of their own, within one ensemble."""
    members = [
        {"kind": "rule", "params": {"long": "close crosses_above sma_8", "short": "close crosses_below sma_8"}},
        {"kind": "momentum", "params": {"lookback_col": "return_5", "top_n_long": 1, "warm_up": 30}},
    ]
    ensemble = create_strategy("ensemble", members=members, window=6)
    assert (ensemble.lookback, ensemble.reach) == (31, 7)  # type: ignore[attr-defined]
    market = traded_market(ensemble.features, 120, 4, seed=11)
    stepwise = [wanted_of(ensemble.decide(market.at(bar, 31), FLAT), market.symbols) for bar in range(120)]
    assert same_bits(ensemble.decide_all(market, np.arange(120)), np.array(stepwise))  # type: ignore[attr-defined]


OTHER = FeatureSpec(column="rsi_14", kind="rsi", params=(("period", 3),))
ONE = [{"kind": "rsi"}]

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"members": []}, "members must be a list"),
    "text": ({"members": "rsi"}, "members must be a list"),
    "kind": ({"members": [{"kind": "rsj"}]}, r"members\[0\]: .*no strategy 'rsj'; did you mean rsi"),
    "params": ({"members": [{"kind": "rsi", "params": {"periods": 3}}]}, "did you mean period"),
    "lacking": ({"members": [{"params": {}}]}, r"members\[0\] must have kind"),
    "key": ({"members": [{"kind": "rsi", "wait": 3}]}, "unknown key 'wait'; did you mean weight"),
    "object": ({"members": [3]}, r"members\[0\] is not a strategy"),
    "method": ({"members": ONE, "method": "majority"}, "did you mean majority_vote"),
    "window": ({"members": ONE, "window": 0}, "window must be at least 1, got 0"),
    "weights": ({"members": ONE, "weights": [1, 2]}, "weights must list one number for each of the 1 members, got 2"),
    "negative": ({"members": ONE, "weights": [-1]}, "weights must be at least 0"),
    "both": ({"members": [{"kind": "rsi", "weight": 2}], "weights": [1]}, "must not be given beside the weight"),
    "include": ({"members": [{"kind": "rsi", "params": {"include": ["A"]}}]}, "must be set on the ensemble"),
    "unknown": ({"members": ONE, "metod": "unanimous"}, "unknown key 'metod'; did you mean method"),
    "mixed": ({"members": ["stay_out"], "warm_up": 3}, "must not be set unless all members are signal strategies"),
    "recent": ({"members": ["stay_out"], "method": "best_of_recent"}, "needs the votes of past bars"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_error_for_an_invalid_ensemble_names_the_cause(case: str) -> None:
    params, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        make_strategy("ensemble", params)


def test_incompatible_members_are_an_error() -> None:
    agents = [make_agent(ScriptedLLM([])), make_agent(ScriptedLLM([]))]
    with pytest.raises(ConfigError, match="must use the same model"):
        create_strategy("ensemble", members=agents)
    llm = ScriptedLLM([])
    with pytest.raises(ConfigError, match="must use the same summary"):
        AgentEnsemble([make_agent(llm, summary="calendar"), make_agent(llm, summary="rolling")])
    with pytest.raises(ConfigError, match="best_of_recent needs the votes"):
        AgentEnsemble([make_agent(llm)], "best_of_recent")
    with pytest.raises(ConfigError, match="must include an agent"):
        AgentEnsemble([create_strategy("rsi")])
    with pytest.raises(ConfigError, match=r"must be a signal strategy, got .*; create_strategy"):
        EnsembleSignalGenerator([make_agent(llm)])  # type: ignore[list-item]
    own = Own(Decision.hold())
    own.features = (OTHER,)
    with pytest.raises(ConfigError, match="column rsi_14 must be one feature"):
        create_strategy("ensemble", members=["rsi", own])


def test_unknown_kinds_name_the_agents_too() -> None:
    with pytest.raises(ConfigError, match=r"did you mean agent_ranker\? \(agent, agent_ranker, bollinger, "):
        create_strategy("agent_rankr")
    with pytest.raises(ConfigError, match="which a run of a config creates"):
        create_strategy("agent")
