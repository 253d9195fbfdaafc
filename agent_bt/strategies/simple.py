"""The plainest strategies: what an agent is compared with, and examples of how one is written."""

from __future__ import annotations

from agent_bt.core.types import Decision, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.strategies.base import Strategy


class BuyAndHold(Strategy):
    """Buys once with all cash, and keeps it."""

    name = "buy_and_hold"

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Buy when there is no position and none was ever closed."""
        bought = portfolio.positions or portfolio.fees > 0
        return Decision.hold() if bought else Decision.buy(view.symbols[0])


class StayOut(Strategy):
    """Never trades."""

    name = "stay_out"

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:  # noqa: ARG002
        """Hold."""
        return Decision.hold()
