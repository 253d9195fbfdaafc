"""The base class of a strategy of your own: give it a name and a `decide`, and override what it needs beside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from agent_bt.core.types import Decision, FeatureSpec, Portfolio
from agent_bt.core.view import MarketView


class Strategy(ABC):
    """Decides at each decision bar from the view and the account, and from nothing else.

    A strategy that looks at columns only, not at the account, is better derived from `SignalStrategy`: it then runs
    vectorised as well.

    Attributes:
        name: shown in records and reports; left out, it is the name of the class.
        lookback: rows of bars and features the view must hold; decisions start when there are so many.
        features: columns needed beside the bars', as `FeatureSpec`s.
        summary: `calendar` or `rolling` if the 7-day summary is needed.
        on_change: whether targets act only where they change (rules), not at every decision (rankers).
    """

    name: str = "strategy"
    lookback: int = 1
    features: Sequence[FeatureSpec] = ()
    summary: str | None = None
    on_change: bool = False

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """The decision at `view.now`; it must depend on the arguments only, and keep nothing between calls."""
