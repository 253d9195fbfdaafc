"""Ensembles: several strategies vote, and their votes are combined into one target."""

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
    """Return the weight of each member's vote; float64 (M,).

    Args:
        members: the M members of an ensemble.
        weights: weight of each member's vote, at least 0; None: 1 each.

    Raises:
        ConfigError: there are no members, or the weights are not one number of at least 0 for each, one above 0.
    """
    if not members:
        raise ConfigError("members must list at least one strategy, got none")
    if weights is None:
        return np.ones(len(members))
    if len(weights) != len(members):
        raise ConfigError(f"weights must list one number for each of the {len(members)} members, got {len(weights)}")
    values = np.array([number(f"weights[{at}]", weight) for at, weight in enumerate(weights)])
    if (values < 0).any() or not values.any():
        raise ConfigError(f"weights must be at least 0, with at least one above 0, got {values.tolist()}")
    return values


def united_features(members: Sequence[Strategy]) -> tuple[FeatureSpec, ...]:
    """Return the features of all members, without duplicates.

    Raises:
        ConfigError: two members define different features under the same name.
    """
    found: dict[str, FeatureSpec] = {}
    for spec in (spec for member in members for spec in member.features):
        if found.setdefault(spec.column, spec) != spec:
            raise ConfigError(
                f"members: column {spec.column} must be one feature, but one member defines it as"
                f" {found[spec.column].kind} and another as {spec.kind}; rename one"
            )
    return tuple(found.values())


def rows_of_votes(member: SignalStrategy, window: int) -> int:
    """Return the number of rows that a member's vote depends on.

    Args:
        member: the signal strategy.
        window: rows for which a vote remains valid.
    """
    return window - 1 + (member.reach or member.lookback)


class EnsembleSignalGenerator(SignalStrategy):
    """Combines the votes of signal strategies on every symbol; its targets are traded when they change.

    A member's vote at a row is the last target it gave within the trailing `window` rows, 0 if it gave none. Methods:
    `weighted_average`; `majority_vote`: the mean vote of those who are long, or short, if they have more than half of
    the weight, else 0; `unanimous`: the mean vote where all are on one side, else 0; `best_of_recent`: the vote of
    the member whose votes earned most over the last `window` bars (see `votes`). Symbols that are not eligible get 0.

    Ensembles with an agent, or with another strategy without `targets`, are a `MixedEnsemble`;
    `create_strategy("ensemble", members=...)` selects the class.
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
        """Set the members and the voting method.

        Args:
            members: the strategies.
            method: weighted_average (default), majority_vote, unanimous or best_of_recent.
            weights: of the members' votes; default 1 each.
            window: rows for which a vote remains valid, and over which best_of_recent looks back; default 50.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.
            warm_up: bars before the first decision, beyond those the votes need; default 0.

        Raises:
            ConfigError: a parameter is not valid.
        """
        self.method = choice("method", method, METHODS)
        self.window = whole("window", window, 1)
        self.weights = member_weights(members, weights)
        for at, member in enumerate(members):
            if not isinstance(member, SignalStrategy):
                raise ConfigError(
                    f"members[{at}] must be a signal strategy, got {member!r};"
                    ' create_strategy("ensemble", members=...) takes'
                    " agents, user strategies and {kind, params, weight} as well"
                )
            if member.include or member.exclude:
                raise ConfigError(
                    f"members[{at}]: include and exclude must be set on the ensemble, not on {member.name}"
                )
        self.members = tuple(members)
        rows = max(rows_of_votes(member, self.window) for member in members)
        if self.method == "best_of_recent":
            rows += self.window
        super().__init__(reach=rows, warm_up=warm_up, include=include, exclude=exclude)
        self.lookback = max(self.lookback, *(member.lookback for member in members))
        self.features = united_features(members)

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the combined votes of the members, 0 for symbols that are not eligible; float64 (R, N).

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """
        votes = np.stack([standing_targets(member.targets(columns, eligible), self.window) for member in self.members])
        if self.method == "best_of_recent":
            combined = best_of_recent(votes, np.array(columns("close")), self.window)
        else:
            combined = COMBINE[self.method](votes, self.weights)
        return np.where(eligible, combined, 0.0)
