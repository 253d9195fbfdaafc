"""One decision of a run as the engine hands it to the journal: what was seen, decided, ordered, and what filled."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from agent_bt.core.types import Decision, Fill, Order, Portfolio, RiskCut
from agent_bt.core.view import MarketView


class Step(NamedTuple):
    """Everything about one decision; a named tuple, because one is made at every decision, and nothing is cheaper.

    `index` counts decisions from 0, `bar` is the row of the decision bar in the market, `portfolio` the account before
    the decision, `fills` what filled since the step before, this decision's own fills included.
    """

    index: int  # type: ignore[assignment]  # it is no sequence to be searched
    bar: int
    view: MarketView
    portfolio: Portfolio
    decision: Decision
    orders: tuple[Order, ...]
    cuts: tuple[RiskCut, ...]
    fills: tuple[Fill, ...]


class Journal(Protocol):
    """Where steps go, one after another."""

    def append(self, step: Step) -> None:
        """Keep the step."""
        ...


class NullJournal:
    """A journal that keeps nothing."""

    def append(self, step: Step) -> None:
        """Drop the step."""
