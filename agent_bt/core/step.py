"""One decision of a run as the engine hands it to the journal: what was seen, decided, ordered, and what filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent_bt.core.types import Decision, Fill, Order, Portfolio, RiskCut
from agent_bt.core.view import MarketView


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Everything about one decision.

    `index` counts decisions from 0, `bar` is the row of the decision bar in the market, `portfolio` the account before
    the decision, `fills` what filled since the step before, this decision's own fills included.
    """

    index: int
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
