"""The step: one decision of a run as the journal receives it, with what was seen, decided, ordered and filled."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from agent_bt.core.types import Decision, Fill, Order, Portfolio, RiskCut
from agent_bt.core.view import MarketView


class Step(NamedTuple):
    """One decision of a run.

    A named tuple, because one is made at every decision and nothing is cheaper to make.

    Attributes:
        index: number of the decision, from 0.
        bar: row of the decision bar in the market.
        view: what the strategy saw.
        portfolio: the account before the decision.
        decision: what it decided.
        orders: the orders that were submitted.
        cuts: what the risk limits clipped or rejected.
        fills: what filled since the step before, the fills of this decision included.
    """

    index: int  # type: ignore[assignment]  # hides `tuple.index`, which nobody needs
    bar: int
    view: MarketView
    portfolio: Portfolio
    decision: Decision
    orders: tuple[Order, ...]
    cuts: tuple[RiskCut, ...]
    fills: tuple[Fill, ...]


class Journal(Protocol):
    """A receiver of the steps of a run, in order."""

    def append(self, step: Step) -> None:
        """Keep the step."""
        ...


class NullJournal:
    """A journal that keeps nothing."""

    def append(self, step: Step) -> None:
        """Drop the step."""
