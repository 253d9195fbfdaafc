"""The base class of user strategies: define `decide`, and override the attributes that it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from agent_bt.core.types import Decision, FeatureSpec, Portfolio
from agent_bt.core.view import MarketView


class Strategy(ABC):
    """Makes a decision at each decision bar, from the view and the account only.

    Derive a strategy that reads columns only, not the account, from `SignalStrategy`: it can then run vectorised.

    Attributes:
        name: shown in records and reports; default: the name of the class.
        lookback: rows of bars and features that the view must hold; decisions start when there are as many; default 1.
        features: columns needed in addition to those of the bars, as `FeatureSpec`s; default: none.
        summary: `calendar` or `rolling` if the 7-day summary is needed; default None.
        on_change: whether targets are traded only where they change (rules), not at every decision (rankers); default
            False.
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
        """Return the decision at `view.now`; it must depend on the arguments only, and keep no state between calls.

        Args:
            view: bars and features up to the decision bar.
            portfolio: snapshot of the account.
        """
