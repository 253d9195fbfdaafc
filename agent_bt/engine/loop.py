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

import traceback
from collections.abc import Callable, Iterable

from agent_bt.core.clock import iso
from agent_bt.core.errors import AgentBtError, StrategyError
from agent_bt.core.protocols import Strategy
from agent_bt.core.step import Journal, Step
from agent_bt.core.types import Decision, Fill, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.engine.market import Market
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer

Decide = Callable[[int, MarketView, Portfolio], Decision]


def run_decisions(
    *,
    market: Market,
    bars: Iterable[int],
    strategy: Strategy,
    sizer: RiskLimitedSizer,
    broker: SimulatedBroker,
    journal: Journal,
    fills: list[Fill],
    decide: Decide | None = None,
) -> None:
    """Make the decisions at `bars` (rows of the market, ascending), then let the market run to its end.

    `fills` receives every fill as it happens, so that nothing is lost when the walk is interrupted. `decide` stands
    in for `strategy.decide` where it comes to the same decisions sooner (prefetch).

    Raises:
        StrategyError: the strategy failed or decided what cannot be; the message names it, the decision and the bar.
    """
    for index, bar in enumerate(bars):
        events = broker.advance(bar)
        fills += events
        if broker.halted:
            break
        view, portfolio = market.at(bar), broker.portfolio()
        try:
            decision = decide(index, view, portfolio) if decide else strategy.decide(view, portfolio)
            if not isinstance(decision, Decision):
                raise StrategyError(f"decide returned {decision!r}, which is no Decision")
            sized = sizer.size(decision, broker)
        except (Exception, SystemExit) as error:
            if isinstance(error, AgentBtError) and not isinstance(error, StrategyError):
                raise
            raise _strategy_error(error, strategy, index, view) from error
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


def _strategy_error(error: BaseException, strategy: Strategy, index: int, view: MarketView) -> StrategyError:
    """What a strategy's mistake is told as: who made it, at which bar, and where in the code."""
    words = str(error)
    if not isinstance(error, StrategyError):
        at = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {words} ({at.filename}, line {at.lineno})"
    return StrategyError(f"strategy {strategy.name}, decision {index} at {iso(view.now)}: {words}")
