"""The plainest strategies: what an agent is compared with, and examples of how one is written."""

from __future__ import annotations

from agent_bt.core.types import Decision, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.strategies.base import Strategy
from agent_bt.strategies.registration import register_strategy


@register_strategy("buy_and_hold")
class BuyAndHold(Strategy):
    """Buys once, with all cash, and keeps it: the one symbol, or an equal share of every symbol there is."""

    name = "buy_and_hold"

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Buy when there is no position and none was ever closed."""
        there = [symbol for symbol, eligible in zip(view.symbols, view.eligible.tolist(), strict=True) if eligible]
        if portfolio.positions or portfolio.fees > 0 or not there:
            return Decision.hold()
        if len(view.symbols) == 1:
            return Decision.buy(there[0])
        return Decision.to(dict.fromkeys(there, 1.0 / len(there)))


@register_strategy("stay_out")
class StayOut(Strategy):
    """Never trades."""

    name = "stay_out"

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:  # noqa: ARG002
        """Hold."""
        return Decision.hold()
