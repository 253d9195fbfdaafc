"""Ensembles with members that only decide: an agent, or a strategy of one's own, among signals."""

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
        window: rows for which a vote stands, and over which best_of_recent looks back; default 50.
        include: the only symbols to trade; default: all. Of an ensemble of signal strategies alone, as the next two.
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
        raise ConfigError("include, exclude, warm_up: only an ensemble of signal strategies alone takes these")
    asks = any(isinstance(member, AgentStrategy) for member in members)
    return (AgentEnsemble if asks else MixedEnsemble)(members, method, weights=weights, window=window)


class MixedEnsemble(Strategy):
    """Strategies of any kind vote at every decision; the targets act even if they are the same as before.

    A signal strategy votes as in `EnsembleSignalGenerator`. Any other votes by its decision now: its targets; BUY p:
    the share held and p of the rest of the equity, at most 1; SELL p: (1 - p) of the share held; under sizing
    `equity` the share held plus or minus p, between 0 and 1. What it leaves alone it votes to hold as it is.
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
        """Parameters as in `EnsembleSignalGenerator`; `window` counts for signal strategies only.

        Raises:
            ConfigError: the method looks back on votes that are not known, or something is not what it should be.
        """
        self.method = choice("method", method, METHODS)
        if self.method not in COMBINE:
            raise ConfigError(
                f"method: {method} needs the votes of past bars, which an agent or a strategy of your own does not"
                f" have; choose {', '.join(COMBINE)}, or let all members be signal strategies"
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
            raise ConfigError("members: one wants the calendar summary and another the rolling one; set one for all")
        self.summary = next(iter(summaries), None)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """The targets that the votes amount to."""
        return self._combined(view, portfolio, [self._opinion(member, view, portfolio) for member in self.members])

    def _opinion(self, member: AnyStrategy, view: MarketView, portfolio: Portfolio) -> Decision | None:
        """What a member decides; None for a signal strategy, whose targets are asked for."""
        return None if isinstance(member, SignalStrategy) else member.decide(narrowed(view, member), portfolio)

    def _combined(self, view: MarketView, portfolio: Portfolio, opinions: Sequence[Decision | None]) -> Decision:
        votes = [
            self._standing(member, view) if opinion is None else vote_of(opinion, view, portfolio)
            for member, opinion in zip(self.members, opinions, strict=True)
        ]
        shares = COMBINE[self.method](np.stack(votes)[:, np.newaxis], self.weights)[0]
        shares = np.where(view.eligible, shares, 0.0).tolist()
        notes = [opinion.note for opinion in opinions if opinion is not None and opinion.note]
        return Decision.to(dict(zip(view.symbols, shares, strict=True)), note="; ".join(notes))

    def _standing(self, member: AnyStrategy, view: MarketView) -> np.ndarray:
        assert isinstance(member, SignalStrategy)
        rows = rows_of_votes(member, self.window)
        given = member.shares(lambda name: view.table(name)[-rows:], view.eligibility()[-rows:], view.symbols)
        votes: np.ndarray = standing_targets(given, self.window)[-1]
        return votes


class AgentEnsemble(MixedEnsemble):
    """An ensemble that is an agent, because one of its members is: it asks what they ask.

    A reply that is not valid counts as a HOLD of its agent; the decision carries its provenance, and all exchanges.
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
        """As for `MixedEnsemble`.

        Raises:
            ConfigError: there is no agent, its agents ask different models, or as for `MixedEnsemble`.
        """
        super().__init__(members, method, weights=weights, window=window)
        self.agents = [member for member in members if isinstance(member, AgentStrategy)]
        if not self.agents:
            raise ConfigError("members: there is no agent among them; use MixedEnsemble or EnsembleSignalGenerator")
        self.llm = self.agents[0].llm
        if any(agent.llm is not self.llm for agent in self.agents):
            raise ConfigError("members: the agents of an ensemble ask the same model")

    def requests(self, view: MarketView, portfolio: Portfolio) -> tuple[Request, ...]:
        """The questions of the agents, one agent after another."""
        return tuple(request for agent in self.agents for request in agent.requests(narrowed(view, agent), portfolio))

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:
        """The decision that the replies and the other votes amount to."""
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
        told = next((each for each in asked if each is not None and each.provenance.kind != "model"), asked[0])
        assert told is not None
        return replace(
            self._combined(view, portfolio, opinions),
            provenance=told.provenance,
            detail=told.detail,
            calls=tuple(calls),
        )

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Ask and wait."""
        asked = self.requests(view, portfolio)
        replies = [self.llm.submit(request) for request in asked]
        calls = [ModelCall(request=r, reply=result_of(f)) for r, f in zip(asked, replies, strict=True)]
        return self.interpret(view, portfolio, calls)


def narrowed(view: MarketView, strategy: AnyStrategy) -> MarketView:
    """The view that a strategy alone would get: its columns and rows, its summary or none."""
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
    """The share each symbol would have after a decision; float64 (N,). See `MixedEnsemble`."""
    shares = {symbol: portfolio.share(symbol, view.prices) for symbol in view.symbols}
    votes = shares | dict(decision.targets or {})
    rest = max(0.0, 1.0 - sum(abs(share) for share in shares.values()))
    for symbol, size in (decision.trades or {}).items():
        if decision.sizing == "equity":
            votes[symbol] = min(max(shares[symbol] + size, 0.0), 1.0)
        else:
            votes[symbol] = min(shares[symbol] + size * rest, 1.0) if size > 0 else shares[symbol] * (1.0 + size)
    return _array(votes, view.symbols)


def _array(votes: Mapping[str, float], symbols: Sequence[str]) -> np.ndarray:
    return np.array([votes[symbol] for symbol in symbols], np.float64)
