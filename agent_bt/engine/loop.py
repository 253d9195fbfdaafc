"""The loop: one decision after another; no I/O happens here.

For every decision bar:
  1. the market runs up to it: waiting orders, stops, marks     `broker.advance`
  2. what may be seen now                                       `market.at`, `broker.portfolio`
  3. the decision                                               `strategy.decide`
  4. sized and checked against the limits                       `sizer.size`
  5. submitted; fills due at this close belong to this bar      `broker.submit`
  6. kept                                                       `journal.append`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agent_bt.core.errors import StrategyError
from agent_bt.core.protocols import Broker, OrderSizer, Strategy
from agent_bt.core.step import Journal, Step
from agent_bt.core.types import NO_ORDERS, Decision, Fill, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.engine.market import Market
from agent_bt.engine.strategy_errors import as_strategy_error, blames_strategy

Decide = Callable[[int, MarketView, Portfolio], Decision]

_NO_DECISION = object()


def run_decisions(
    *,
    market: Market,
    bars: Iterable[int],
    strategy: Strategy,
    sizer: OrderSizer,
    broker: Broker,
    journal: Journal,
    fills: list[Fill],
    decide: Decide | None = None,
) -> None:
    """Make the decisions at `bars`, then run the market to its end.

    Args:
        market: what is traded.
        bars: rows of the decision bars, ascending.
        strategy: decides; its name is in what is raised.
        sizer: turns decisions into orders.
        broker: the account; any that has the members of the protocol.
        journal: receives every step.
        fills: receives every fill as it happens, so that nothing is lost when the run is interrupted.
        decide: stands in for `strategy.decide` where it comes to the same decisions sooner (prefetch); it reports what
            the strategy's code raises as a StrategyError itself.

    Raises:
        StrategyError: the strategy failed, or its decision is not valid; the message names it, the decision and the
            bar. What fails in the sizer, the broker or the journal is raised as it is.
    """
    last: object = _NO_DECISION
    for index, bar in enumerate(bars):
        events = broker.advance(bar)
        fills += events
        if broker.halted:
            break
        view, portfolio = market.at(bar), broker.portfolio()
        if decide is not None:
            decision = decide(index, view, portfolio)
        else:
            try:
                decision = strategy.decide(view, portfolio)
            except (Exception, SystemExit) as error:
                if not blames_strategy(error):
                    raise
                raise as_strategy_error(error, strategy.name, index, view.now) from error
        sized = NO_ORDERS
        due: Sequence[Fill] = ()
        # Targets that are traded on change only, and are unchanged, need no decision.
        if decision is not last:
            try:
                if not isinstance(decision, Decision):
                    raise StrategyError(f"decide must return a Decision, got {decision!r}")
                sized = sizer.size(decision, broker.state())
            except StrategyError as error:
                raise as_strategy_error(error, strategy.name, index, view.now) from error
            due = broker.submit(sized.orders, sized.targets)
            fills += due
            last = decision if decision.on_change else _NO_DECISION
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
