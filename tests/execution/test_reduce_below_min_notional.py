"""A perpetual position may be reduced below the smallest notional; a spot position, or what opens, may not."""

from __future__ import annotations

import numpy as np
import pytest
from price_arrays import DEFAULTS, Candles

from agent_bt.core.types import Decision
from agent_bt.engine.vectorised import run_targets
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules


def fills_of(
    targets: list[float], closes: list[float], *, margin: bool = True, stepwise: bool, **changes: object
) -> list[tuple[int, float]]:
    """Return bar and quantity of the fills of 1,000 cash with a smallest notional of 100, by one of the two drivers."""
    rules = make_rules(
        **{**DEFAULTS, "lot_step": 0.1, "min_notional": 100.0, "allow_short": margin, **changes},
        margin=margin,
        max_leverage=2.0,
    )
    limits = make_limits(max_position=2.0, max_gross=2.0, no_trade_band=0.0, allow_short=margin)
    prices = Candles([(close,) * 4 for close in [*closes, closes[-1], closes[-1]]])
    broker = SimulatedBroker(prices=prices, rules=rules, cash=1_000.0)
    if not stepwise:
        rows, weights = np.arange(len(targets)), np.array(targets)[:, None]
        fills = run_targets(broker=broker, limits=limits, bars=rows, targets=weights)
        return [(fill.bar, fill.quantity) for fill in fills]
    sizer = RiskLimitedSizer(symbols=prices.symbols, rules=rules, limits=limits)
    found = []
    for bar in range(len(prices.times)):
        found += broker.advance(bar)
        if bar < len(targets) and not np.isnan(targets[bar]):
            sized = sizer.size(Decision.to({"BTCUSDT": targets[bar]}), broker.state())
            found += broker.submit(sized.orders, sized.targets)
    return [(fill.bar, fill.quantity) for fill in found]


@pytest.mark.parametrize("stepwise", [True, False])
@pytest.mark.parametrize(
    ("targets", "closes", "fills"),
    [
        # 2 units at 100; at 20 they are worth 40, below 100, and are closed.
        ([0.2, 0.0], [100.0, 20.0], [(0, 2.0), (1, -2.0)]),
        # The same for a short position, bought back at 40: 80.
        ([-0.2, 0.0], [100.0, 40.0], [(0, -2.0), (1, 2.0)]),
        # From 5 units to 4.5, a sale of 50.
        ([0.5, 0.45], [100.0, 100.0], [(0, 5.0), (1, -0.5)]),
        # A short of 5 to 4.5.
        ([-0.5, -0.45], [100.0, 100.0], [(0, -5.0), (1, 0.5)]),
        # To add 0.5 units, 50, opens: rejected.
        ([0.5, 0.55], [100.0, 100.0], [(0, 5.0)]),
        # 2 units at 20 to 1 short (weight -20 / 840): an order of 60 that changes sides opens too: rejected.
        ([0.2, -0.0239], [100.0, 20.0], [(0, 2.0)]),
    ],
)
def test_what_only_reduces_a_perpetual_may_be_small(
    targets: list[float], closes: list[float], fills: list[tuple[int, float]], stepwise: bool
) -> None:
    assert fills_of(targets, closes, stepwise=stepwise) == fills


@pytest.mark.parametrize("stepwise", [True, False])
def test_it_may_be_small_where_it_fills_at_the_next_open_too(stepwise: bool) -> None:
    # 2 units are sold by an order at 100, 200, which fills at the open of 20, 40.
    found = fills_of([0.2, 0.0], [100.0, 100.0, 20.0], stepwise=stepwise, fill="next_open")
    assert found == [(1, 2.0), (2, -2.0)]


@pytest.mark.parametrize("stepwise", [True, False])
def test_a_spot_position_below_the_smallest_notional_stays(stepwise: bool) -> None:
    assert fills_of([0.2, 0.0], [100.0, 20.0], margin=False, stepwise=stepwise) == [(0, 2.0)]


@pytest.mark.parametrize("stepwise", [True, False])
def test_the_smallest_quantity_holds_for_what_reduces(stepwise: bool) -> None:
    found = fills_of([0.5, 0.45], [100.0, 100.0], stepwise=stepwise, min_quantity=1.0)
    assert found == [(0, 5.0)]
