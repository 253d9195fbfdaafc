"""Ensembles: several strategies vote, and their votes become one target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent_bt.core.errors import ConfigError
from agent_bt.core.params import choice, number, whole
from agent_bt.core.protocols import Strategy
from agent_bt.core.targets import standing_targets
from agent_bt.core.types import FeatureSpec
from agent_bt.strategies.signals import Columns, SignalStrategy
from agent_bt.strategies.votes import COMBINE, METHODS, best_of_recent


def member_weights(members: Sequence[Any], weights: Sequence[float] | None) -> np.ndarray:
    """The weight of each member's vote; float64 (M,), 1 each if none are given.

    Raises:
        ConfigError: there are no members, or the weights are not one number of at least 0 for each, one above 0.
    """
    if not members:
        raise ConfigError("members: an ensemble needs at least one")
    if weights is None:
        return np.ones(len(members))
    if len(weights) != len(members):
        raise ConfigError(f"weights: {len(weights)} for {len(members)} members")
    values = np.array([number(f"weights[{at}]", weight) for at, weight in enumerate(weights)])
    if (values < 0).any() or not values.any():
        raise ConfigError("weights: each is at least 0, and one is more")
    return values


def united_features(members: Sequence[Strategy]) -> tuple[FeatureSpec, ...]:
    """The features of all members, each once.

    Raises:
        ConfigError: two members call different features by the same name.
    """
    found: dict[str, FeatureSpec] = {}
    for spec in (spec for member in members for spec in member.features):
        if found.setdefault(spec.column, spec) != spec:
            raise ConfigError(f"members: {spec.column} is {found[spec.column].kind} to one and {spec.kind} to another")
    return tuple(found.values())


def rows_of_votes(member: SignalStrategy, window: int) -> int:
    """Rows that a member's vote depends on."""
    return window - 1 + (member.reach or member.lookback)


class EnsembleSignalGenerator(SignalStrategy):
    """Signal strategies that vote on every symbol; its targets act when they change.

    A member's vote at a row is the last target it gave within the trailing `window` rows, 0 if it gave none. Methods:
    `weighted_average`; `majority_vote`: the mean vote of those who are long, or short, if they have more than half of
    the weight, else 0; `unanimous`: the mean vote where all are on one side, else 0; `best_of_recent`: the vote of
    the member whose votes earned most over the last `window` bars (see `votes`). What is not eligible gets 0.

    Ensembles with an agent or another strategy that only decides are a `MixedEnsemble`; `create_strategy("ensemble",
    members=...)` makes the one that fits.
    """

    name = "ensemble"
    on_change = True

    def __init__(
        self,
        members: Sequence[SignalStrategy],
        method: str = "weighted_average",
        *,
        weights: Sequence[float] | None = None,
        window: int = 50,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
    ) -> None:
        """Set who votes and how.

        Args:
            members: the strategies.
            method: weighted_average, majority_vote, unanimous or best_of_recent.
            weights: of the members' votes; None: 1 each.
            window: rows for which a vote stands, and over which best_of_recent looks back.
            include: the only symbols to trade; empty: all.
            exclude: symbols not to trade.
            warm_up: bars before the first decision, beyond those the votes need.

        Raises:
            ConfigError: a parameter is not valid.
        """
        self.method = choice("method", method, METHODS)
        self.window = whole("window", window, 1)
        self.weights = member_weights(members, weights)
        for at, member in enumerate(members):
            if not isinstance(member, SignalStrategy):
                raise ConfigError(
                    f'members[{at}]: {member!r} is no signal strategy; create_strategy("ensemble", members=...) takes'
                    " agents, strategies of your own and {kind, params, weight} as well"
                )
            if member.include or member.exclude:
                raise ConfigError(f"members[{at}]: include and exclude belong to the ensemble, not to {member.name}")
        self.members = tuple(members)
        rows = max(rows_of_votes(member, self.window) for member in members)
        if self.method == "best_of_recent":
            rows += self.window
        super().__init__(reach=rows, warm_up=warm_up, include=include, exclude=exclude)
        self.lookback = max(self.lookback, *(member.lookback for member in members))
        self.features = united_features(members)

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the combined votes of the members by `columns` where `eligible`; float64 (rows, symbols)."""
        votes = np.stack([standing_targets(member.targets(columns, eligible), self.window) for member in self.members])
        if self.method == "best_of_recent":
            shares = best_of_recent(votes, np.array(columns("close")), self.window)
        else:
            shares = COMBINE[self.method](votes, self.weights)
        return np.where(eligible, shares, 0.0)
