"""The loop: one decision after another, straight through the house. No I/O happens here.

For every decision bar:
  1. the market runs up to it: waiting orders, stops, marks     `broker.advance`
  2. what may be seen now                                       `market.at`, `broker.portfolio`
  3. the decision                                               `strategy.decide`
  4. sized and checked against the limits                       `desk.size`
  5. sent; fills due at this close belong to this bar           `broker.submit`
  6. kept                                                       `journal.append`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent_bt.core.protocols import Strategy
from agent_bt.core.step import Journal, Step
from agent_bt.core.types import Decision, Fill, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.engine.market import Market
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.desk import Desk

Decide = Callable[[int, MarketView, Portfolio], Decision]


def walk(
    *,
    market: Market,
    bars: Iterable[int],
    strategy: Strategy,
    desk: Desk,
    broker: SimulatedBroker,
    journal: Journal,
    fills: list[Fill],
    decide: Decide | None = None,
) -> None:
    """Make the decisions at `bars` (rows of the market, ascending), then let the market run to its end.

    `fills` receives every fill as it happens, so that nothing is lost when the walk is interrupted. `decide` stands
    in for `strategy.decide` where it comes to the same decisions sooner (prefetch).
    """
    for index, bar in enumerate(bars):
        events = broker.advance(bar)
        fills += events
        if broker.halted:
            break
        view, portfolio = market.at(bar), broker.portfolio()
        decision = decide(index, view, portfolio) if decide else strategy.decide(view, portfolio)
        sized = desk.size(decision, broker)
        due = broker.submit(sized.orders)
        fills += due
        journal.append(
            Step(
                index=index,
                bar=bar,
                view=view,
                portfolio=portfolio,
                decision=decision,
                orders=sized.orders,
                cuts=sized.cuts,
                fills=(*events, *due),
            )
        )
    fills += broker.advance(len(market) - 1)
