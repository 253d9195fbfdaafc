"""The simplest strategies: buy and hold, and no trades; also examples for user strategies."""

from __future__ import annotations

from agent_bt.core.types import Decision, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.strategies.base import Strategy
from agent_bt.strategies.registration import register_strategy


@register_strategy("buy_and_hold")
class BuyAndHold(Strategy):
    """Buys once, with all cash, and holds: the only symbol, or an equal weight of every eligible symbol."""

    name = "buy_and_hold"

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Return a buy of what `view` has while `portfolio` has no position and has paid no fees, else a hold."""
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
        """Return a hold, whatever `view` and `portfolio` are."""
        return Decision.hold()
