"""Ensembles of signal strategies with agents and other strategies that have no `targets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agent_bt.core.errors import ConfigError
from agent_bt.core.futures import result_of
from agent_bt.core.params import choice, whole
from agent_bt.core.protocols import AgentStrategy
from agent_bt.core.protocols import Strategy as AnyStrategy
from agent_bt.core.targets import standing_targets
from agent_bt.core.types import Decision, ModelCall, Portfolio, Request
from agent_bt.core.view import BAR_COLUMNS, MarketView
from agent_bt.strategies.base import Strategy
from agent_bt.strategies.ensemble import EnsembleSignalGenerator, member_weights, rows_of_votes, united_features
from agent_bt.strategies.registration import register_strategy
from agent_bt.strategies.signals import SignalStrategy
from agent_bt.strategies.votes import COMBINE, METHODS


@register_strategy("ensemble")
def make_ensemble(
    members: Sequence[Any],
    method: str = "weighted_average",
    *,
    weights: Sequence[float] | None = None,
    window: int = 50,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    warm_up: int = 0,
) -> AnyStrategy:
    """Return the ensemble that fits its members: of signal strategies, with an agent, or mixed.

    Args:
        members: strategies.
        method: weighted_average (default), majority_vote, unanimous or best_of_recent.
        weights: of the members' votes; default 1 each.
        window: rows for which a vote remains valid, and over which best_of_recent looks back; default 50.
        include: the only symbols to trade; default: all. Like the next two, only if all members are signal strategies.
        exclude: symbols not to trade; default: none.
        warm_up: bars before the first decision; default 0.

    Raises:
        ConfigError: a parameter is not valid.
    """
    if all(isinstance(member, SignalStrategy) for member in members):
        return EnsembleSignalGenerator(
            members, method, weights=weights, window=window, include=include, exclude=exclude, warm_up=warm_up
        )
    if include or exclude or warm_up:
        raise ConfigError(
            "include, exclude, warm_up must not be set unless all members are signal strategies; remove them"
        )
    asks = any(isinstance(member, AgentStrategy) for member in members)
    return (AgentEnsemble if asks else MixedEnsemble)(members, method, weights=weights, window=window)


class MixedEnsemble(Strategy):
    """Combines the votes of strategies of any kind; targets are traded at every decision, changed or not.

    A signal strategy votes as in `EnsembleSignalGenerator`. Any other votes with its current decision: its
    targets; BUY p: the current weight plus p of the uninvested equity, at most 1; SELL p: (1 - p) of the current
    weight; with sizing `equity` the current weight plus or minus p, between 0 and 1. For symbols that its decision
    does not name, its vote is the current weight.
    """

    name = "ensemble"

    def __init__(
        self,
        members: Sequence[AnyStrategy],
        method: str = "weighted_average",
        *,
        weights: Sequence[float] | None = None,
        window: int = 50,
    ) -> None:
        """Set the members and the voting method.

        Args:
            members: the strategies.
            method: weighted_average (default), majority_vote or unanimous.
            weights: of the members' votes; default 1 each.
            window: rows for which the vote of a signal strategy remains valid; default 50.

        Raises:
            ConfigError: the method needs the votes of past bars, or a parameter is not valid.
        """
        self.method = choice("method", method, METHODS)
        if self.method not in COMBINE:
            raise ConfigError(
                f"method: {method} needs the votes of past bars, which an agent or another strategy without targets"
                f" does not have; choose {', '.join(COMBINE)}, or use signal strategies as members only"
            )
        self.window = whole("window", window, 1)
        self.weights = member_weights(members, weights)
        self.members = tuple(members)
        self.lookback = max(
            max(member.lookback, rows_of_votes(member, self.window) if isinstance(member, SignalStrategy) else 1)
            for member in members
        )
        self.features = united_features(members)
        summaries = {member.summary for member in members} - {None}
        if len(summaries) > 1:
            raise ConfigError("members must use the same summary, got calendar and rolling; set one for all")
        self.summary = next(iter(summaries), None)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Return the combined votes as target weights.

        Args:
            view: bars and features up to the decision bar.
            portfolio: snapshot of the account.
        """
        return self._combined(view, portfolio, [self._opinion(member, view, portfolio) for member in self.members])

    def _opinion(self, member: AnyStrategy, view: MarketView, portfolio: Portfolio) -> Decision | None:
        """Return the decision of a member; None for a signal strategy, whose targets are used instead."""
        return None if isinstance(member, SignalStrategy) else member.decide(narrowed(view, member), portfolio)

    def _combined(self, view: MarketView, portfolio: Portfolio, opinions: Sequence[Decision | None]) -> Decision:
        votes = [
            self._standing(member, view) if opinion is None else vote_of(opinion, view, portfolio)
            for member, opinion in zip(self.members, opinions, strict=True)
        ]
        weights = COMBINE[self.method](np.stack(votes)[:, np.newaxis], self.weights)[0]
        weights = np.where(view.eligible, weights, 0.0).tolist()
        notes = [opinion.note for opinion in opinions if opinion is not None and opinion.note]
        return Decision.to(dict(zip(view.symbols, weights, strict=True)), note="; ".join(notes))

    def _standing(self, member: AnyStrategy, view: MarketView) -> np.ndarray:
        assert isinstance(member, SignalStrategy)
        rows = rows_of_votes(member, self.window)
        given = member.target_weights(lambda name: view.table(name)[-rows:], view.eligibility()[-rows:], view.symbols)
        votes: np.ndarray = standing_targets(given, self.window)[-1]
        return votes


class AgentEnsemble(MixedEnsemble):
    """An ensemble with an agent among its members, and therefore an agent itself: it sends the requests of its agents.

    An invalid reply counts as a HOLD of its agent; the decision has its provenance, and all model calls.
    """

    name = "ensemble"

    def __init__(
        self,
        members: Sequence[AnyStrategy],
        method: str = "weighted_average",
        *,
        weights: Sequence[float] | None = None,
        window: int = 50,
    ) -> None:
        """Set the members and the voting method.

        Args:
            members: the strategies, with at least one agent; all agents use the same model.
            method: weighted_average (default), majority_vote or unanimous.
            weights: of the members' votes; default 1 each.
            window: rows for which the vote of a signal strategy remains valid; default 50.

        Raises:
            ConfigError: no member is an agent, the agents use different models, or as for `MixedEnsemble`.
        """
        super().__init__(members, method, weights=weights, window=window)
        self.agents = [member for member in members if isinstance(member, AgentStrategy)]
        if not self.agents:
            raise ConfigError("members must include an agent, got none; use MixedEnsemble or EnsembleSignalGenerator")
        self.llm = self.agents[0].llm
        if any(agent.llm is not self.llm for agent in self.agents):
            raise ConfigError("members: the agents of an ensemble must use the same model; pass the same llm to each")

    def requests(self, view: MarketView, portfolio: Portfolio) -> tuple[Request, ...]:
        """Return the requests of the agents, in the order of the members.

        Args:
            view: bars and features up to the decision bar.
            portfolio: snapshot of the account.
        """
        return tuple(request for agent in self.agents for request in agent.requests(narrowed(view, agent), portfolio))

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:
        """Return the decision that results from the replies and the other votes.

        Args:
            view: bars and features up to the decision bar.
            portfolio: snapshot of the account.
            calls: the model calls, in the order of `requests`.
        """
        left = list(calls)
        opinions = []
        for member in self.members:
            if not isinstance(member, AgentStrategy):
                opinions.append(self._opinion(member, view, portfolio))
                continue
            seen = narrowed(view, member)
            own = len(left) if len(self.agents) == 1 else len(member.requests(seen, portfolio))
            opinions.append(member.interpret(seen, portfolio, left[:own]))
            left = left[own:]
        asked = [opinion for opinion, member in zip(opinions, self.members, strict=True) if member in self.agents]
        failed_or_first = next(
            (each for each in asked if each is not None and each.provenance.kind != "model"), asked[0]
        )
        assert failed_or_first is not None
        return replace(
            self._combined(view, portfolio, opinions),
            provenance=failed_or_first.provenance,
            detail=failed_or_first.detail,
            calls=tuple(calls),
        )

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Send the requests, wait for the replies, and return the decision.

        Args:
            view: bars and features up to the decision bar.
            portfolio: snapshot of the account.
        """
        asked = self.requests(view, portfolio)
        replies = [self.llm.submit(request) for request in asked]
        calls = [ModelCall(request=r, reply=result_of(f)) for r, f in zip(asked, replies, strict=True)]
        return self.interpret(view, portfolio, calls)


def narrowed(view: MarketView, strategy: AnyStrategy) -> MarketView:
    """Return the view that a strategy would get outside an ensemble: its own columns, rows and summary.

    Args:
        view: the view of the ensemble.
        strategy: the member.
    """
    columns = (*BAR_COLUMNS, *(spec.column for spec in strategy.features))
    rows = min(len(view), strategy.lookback)
    if rows == len(view) and tuple(view.columns) == columns and (strategy.summary or not view.summary):
        return view
    return MarketView(
        now=view.now,
        interval=view.interval,
        symbols=view.symbols,
        columns=columns,
        times=view.times[-rows:].copy(),
        data=np.stack([view.table(name)[-rows:] for name in columns], axis=-1),
        summary=view.summary if strategy.summary else (),
        eligible=view.eligible,
        eligibility=view.eligibility()[-rows:],
    )


def vote_of(decision: Decision, view: MarketView, portfolio: Portfolio) -> np.ndarray:
    """Return the weight that each symbol would have after a decision; float64 (N,). See `MixedEnsemble`.

    Args:
        decision: the decision of a member.
        view: prices and symbols (N).
        portfolio: the account, with the current weights.
    """
    held = {symbol: portfolio.share(symbol, view.prices) for symbol in view.symbols}
    votes = held | dict(decision.targets or {})
    rest = max(0.0, 1.0 - sum(abs(weight) for weight in held.values()))
    for symbol, size in (decision.trades or {}).items():
        if decision.sizing == "equity":
            votes[symbol] = min(max(held[symbol] + size, 0.0), 1.0)
        else:
            votes[symbol] = min(held[symbol] + size * rest, 1.0) if size > 0 else held[symbol] * (1.0 + size)
    return _array(votes, view.symbols)


def _array(votes: Mapping[str, float], symbols: Sequence[str]) -> np.ndarray:
    return np.array([votes[symbol] for symbol in symbols], np.float64)
