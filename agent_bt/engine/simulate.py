"""Run a strategy through a market; every backtest, replay, audit and refill goes through `simulate`.

Two drivers give the same bits: the loop over single decisions (`engine.loop`), and one compiled loop for targets that
are known beforehand (`engine.vectorised`). The compiled one makes no steps, so it is taken where nobody records them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_bt.core.protocols import Strategy, VectorisedStrategy
from agent_bt.core.step import Journal, NullJournal
from agent_bt.core.types import Fill
from agent_bt.engine.loop import Decide, run_decisions
from agent_bt.engine.market import Market
from agent_bt.engine.vectorised import run_targets
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.setup import ExecutionSetup


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The result of a simulation.

    Attributes:
        broker: the account at the end, with equity and exposure of every bar.
        fills: all fills, in order.
    """

    broker: SimulatedBroker
    fills: list[Fill]

    @property
    def funding(self) -> float:
        """Funding paid (negative: received), quote units."""
        return float(self.broker.account[0]["funding"])


def simulate(
    *,
    market: Market,
    bars: np.ndarray,
    strategy: Strategy,
    setup: ExecutionSetup,
    broker: SimulatedBroker | None = None,
    targets: np.ndarray | None = None,
    journal: Journal | None = None,
    decide: Decide | None = None,
    fills: list[Fill] | None = None,
) -> Simulation:
    """Make the decisions of a strategy, execute them, and run the market to its end.

    Args:
        market: what is traded; the account begins at its row `first`.
        bars: rows of the decision bars, int64 (D,), ascending.
        strategy: decides.
        setup: how orders fill and what limits them.
        broker: a fresh account of `setup` on `market`, for callers that need it before or after an interruption;
            None: one is opened.
        targets: target weights at `bars`, float64 (D, N), of a strategy that computed them already; None: a vectorised
            strategy computes them here. Not used with `journal` or `decide`.
        journal: receives every step; None: none is recorded, and a vectorised strategy runs in one compiled loop.
        decide: takes the place of `strategy.decide`, with the same decisions (prefetch).
        fills: receives every fill as it happens, so that an interruption loses none; None: a new list.

    Raises:
        StrategyError: the strategy failed, or its decision is not valid.
    """
    broker = setup.broker(market) if broker is None else broker
    fills = [] if fills is None else fills
    if journal is None and decide is None and isinstance(strategy, VectorisedStrategy):
        if targets is None:
            targets = strategy.decide_all(market, bars)
        fills += run_targets(
            broker=broker, limits=setup.limits, bars=bars, targets=targets, on_change=strategy.on_change
        )
    else:
        run_decisions(
            market=market,
            bars=bars.tolist(),
            strategy=strategy,
            sizer=setup.sizer(market),
            broker=broker,
            journal=NullJournal() if journal is None else journal,
            fills=fills,
            decide=decide,
        )
    return Simulation(broker=broker, fills=fills)
