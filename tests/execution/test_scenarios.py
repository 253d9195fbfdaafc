"""Candles in, fills out: one table a convention. Rows are open, high, low, close, and False where nothing traded."""

from __future__ import annotations

from typing import Any

import pytest
from price_arrays import account
from trade import trade

from agent_bt.core.types import Decision

BUY, SELL = Decision.buy("BTCUSDT"), Decision.sell("BTCUSDT")
FLAT = (100, 100, 100, 100)

SCENARIOS: dict[
    str, tuple[list[tuple[Any, ...]], dict[int, Decision], dict[str, Any], list[tuple[int, str, float]]]
] = {
    "a decision fills at the close of its own bar": (
        [(100, 105, 95, 102), FLAT],
        {0: BUY},
        {},
        [(0, "order", 102)],
    ),
    "next_open fills at the open of the next bar": (
        [(100, 105, 95, 102), (103, 110, 90, 104), FLAT],
        {0: BUY},
        {"fill": "next_open"},
        [(1, "order", 103)],
    ),
    "latency of two bars fills at the close two bars later": (
        [FLAT, FLAT, (100, 108, 100, 107), FLAT],
        {0: BUY},
        {"latency_bars": 2},
        [(2, "order", 107)],
    ),
    "latency of one bar with next_open fills at the open two bars later": (
        [FLAT, FLAT, (101, 108, 100, 107), FLAT],
        {0: BUY},
        {"latency_bars": 1, "fill": "next_open"},
        [(2, "order", 101)],
    ),
    "slippage is adverse on both sides": (
        [FLAT, FLAT],
        {0: BUY, 1: SELL},
        {"slippage_bps": 10.0},
        [(0, "order", 100.1), (1, "order", 99.9)],
    ),
    "an order waits through bars without trades and fills at the first traded open": (
        [FLAT, (100, 100, 100, 100, False), (100, 100, 100, 100, False), (106, 107, 105, 106)],
        {0: BUY},
        {"fill": "next_open"},
        [(3, "order", 106)],
    ),
    "an order due at a close without trades fills at the next traded open": (
        [FLAT, (100, 100, 100, 100, False), (106, 107, 105, 105)],
        {0: BUY},
        {"latency_bars": 1},
        [(2, "order", 106)],
    ),
    "a stop inside the bar fills at its level": (
        [FLAT, (102, 103, 89, 95)],  # stop at 90: open above, low below
        {0: BUY},
        {"stop_loss": 0.1},
        [(0, "order", 100), (1, "stop_loss", 90)],
    ),
    "a gap through the stop fills at the open": (
        [FLAT, (85, 88, 80, 86)],  # stop at 90: opens below it
        {0: BUY},
        {"stop_loss": 0.1},
        [(0, "order", 100), (1, "stop_loss", 85)],
    ),
    "stop comes before take-profit in one bar": (
        [FLAT, (100, 125, 80, 110)],  # both 90 and 120 are inside
        {0: BUY},
        {"stop_loss": 0.1, "take_profit": 0.2},
        [(0, "order", 100), (1, "stop_loss", 90)],
    ),
    "take-profit fills at its level": (
        [FLAT, (100, 125, 99, 110)],
        {0: BUY},
        {"stop_loss": 0.1, "take_profit": 0.2},
        [(0, "order", 100), (1, "take_profit", 120)],
    ),
    "a gap beyond take-profit fills at the open": (
        [FLAT, (130, 135, 129, 131)],
        {0: BUY},
        {"take_profit": 0.2},
        [(0, "order", 100), (1, "take_profit", 130)],
    ),
    "a position opened at a close is not stopped by the range of that bar": (
        [(100, 100, 50, 100), FLAT],
        {0: BUY},
        {"stop_loss": 0.1},
        [(0, "order", 100)],
    ),
    "a position opened at an open can be stopped in the same bar": (
        [FLAT, (100, 101, 85, 95)],
        {0: BUY},
        {"stop_loss": 0.1, "fill": "next_open"},
        [(1, "order", 100), (1, "stop_loss", 90)],
    ),
    "nothing is stopped on a bar without trades": (
        [FLAT, (80, 80, 80, 80, False), (70, 71, 69, 70)],
        {0: BUY},
        {"stop_loss": 0.1},
        [(0, "order", 100), (2, "stop_loss", 70)],
    ),
    "a sell that waits behind a stop finds nothing left to sell": (
        [FLAT, FLAT, (100, 101, 85, 95), FLAT],
        {0: BUY, 1: SELL},
        {"stop_loss": 0.1, "latency_bars": 2},
        [(2, "order", 95)],  # the sell is sized at bar 1, when nothing is held yet: no order
    ),
    "selling when flat is no order": ([FLAT, FLAT], {0: SELL}, {}, []),
    "an order below the smallest notional is no fill": (
        [FLAT, FLAT],
        {0: Decision.buy("BTCUSDT", 0.0001)},
        {"min_notional": 5.0},
        [],
    ),
    "passing the drawdown limit closes everything at that close": (
        [FLAT, (100, 100, 88, 89), FLAT],
        {0: BUY, 2: BUY},
        {"max_drawdown": 0.1},
        [(0, "order", 100), (1, "drawdown", 89)],
    ),
    "a drawdown passed on a bar without trades closes at the next traded open": (
        [FLAT, (80, 80, 80, 80, False), (78, 79, 77, 78)],
        {0: BUY},
        {"max_drawdown": 0.1},
        [(0, "order", 100), (2, "drawdown", 78)],
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_fills(name: str) -> None:
    rows, decisions, changes, expected = SCENARIOS[name]
    broker, sizer = account(rows, **changes)
    fills = []
    for bar in range(len(rows)):
        fills += broker.advance(bar)
        if bar in decisions and not broker.halted:
            fills += trade(broker, sizer, decisions[bar])
    assert [(f.bar, f.reason, pytest.approx(f.price, rel=1e-12)) for f in fills] == expected


def test_fee_of_published_example() -> None:
    """1% of notional, 100 units in at 1 and out at 4: 1 + 4 = 5 of fees (the 25 of the source add 10 a side)."""
    broker, sizer = account([(1, 1, 1, 1), (4, 4, 4, 4)], cash=101.0, fee_rate=0.01)
    broker.advance(0)
    trade(broker, sizer, BUY)
    assert broker.portfolio().positions["BTCUSDT"].quantity == 100
    broker.advance(1)
    trade(broker, sizer, SELL)
    assert broker.portfolio().fees == pytest.approx(5.0, rel=1e-12)


def test_selling_everything_leaves_no_dust() -> None:
    broker, sizer = account([FLAT, (123.45, 123.45, 123.45, 123.45)], fee_rate=0.001, slippage_bps=5.0)
    broker.advance(0)
    trade(broker, sizer, Decision.buy("BTCUSDT", 0.37))
    broker.advance(1)
    trade(broker, sizer, SELL)
    assert broker.portfolio().positions == {}


def test_equity_sizing_changes_the_position_by_a_fraction_of_equity() -> None:
    broker, sizer = account([FLAT, FLAT, FLAT])
    for bar, decision in enumerate(
        [Decision.buy("BTCUSDT", 0.5, sizing="equity"), Decision.buy("BTCUSDT", 0.25, sizing="equity"),
         Decision.sell("BTCUSDT", 0.1, sizing="equity")]
    ):  # fmt: skip
        broker.advance(bar)
        trade(broker, sizer, decision)
    assert broker.exposure.tolist() == pytest.approx([0.5, 0.75, 0.65])


@pytest.mark.parametrize(
    ("decision", "changes", "cut"),
    [
        (BUY, {"max_position": 0.4}, ("clipped", "max_position")),
        (BUY, {"max_gross": 0.3}, ("clipped", "max_gross")),
        (Decision.to({"BTCUSDT": -0.5}), {}, ("rejected", "allow_short")),
        (Decision.buy("BTCUSDT", 0.0001), {"min_notional": 5.0}, ("rejected", "min_size")),
        (Decision.buy("BTCUSDT", 1e-9), {}, ("rejected", "no_cash")),
    ],
)
def test_each_cut_says_its_reason(decision: Decision, changes: dict[str, float], cut: tuple[str, str]) -> None:
    broker, sizer = account([FLAT, FLAT], **changes)
    broker.advance(0)
    sized = sizer.size(decision, broker.state())
    assert [(c.verdict, c.reason) for c in sized.cuts] == [cut]
    broker.submit(sized.orders, sized.targets)
    assert broker.exposure[0] <= changes.get("max_position", changes.get("max_gross", 1.0)) + 1e-9


def test_no_trade_band_leaves_small_drifts_alone() -> None:
    broker, sizer = account([FLAT, (104, 104, 104, 104), (150, 150, 150, 150)], no_trade_band=0.02)
    target = Decision.to({"BTCUSDT": 0.5})
    fills = []
    for bar in range(3):
        broker.advance(bar)
        fills += trade(broker, sizer, target)
    assert [fill.bar for fill in fills] == [0, 2]
