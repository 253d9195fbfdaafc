"""The contracts of the account, over random markets, decisions and costs."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from price_arrays import Candles, account
from reference import SlowAccount
from trade import trade

from agent_bt.core.lots import floor_to_lots, parse_lot_step
from agent_bt.core.types import Decision
from agent_bt.engine.vectorised import run_targets
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizing import make_limits

STEPS = ["1", "0.5", "0.1", "0.01", "0.001", "0.00001", "0.25", "10", "0.00000001"]


@st.composite
def markets(draw: st.DrawFn, size: int = 40) -> list[tuple[Any, ...]]:
    price = draw(st.floats(0.5, 50_000))
    moves = draw(st.lists(st.tuples(*[st.floats(-0.2, 0.2)] * 4, st.booleans()), min_size=2, max_size=size))
    rows = []
    for a, b, c, d, traded in moves:
        opened = price * (1 + a / 4)
        closed = opened * (1 + b)
        high, low = max(opened, closed) * (1 + abs(c)), min(opened, closed) * (1 - abs(d))
        rows.append((opened, high, low, closed, True) if traded or not rows else (price, price, price, price, False))
        price = rows[-1][3]
    return rows


def costs() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "slippage_bps": st.sampled_from([0.0, 5.0, 30.0]),
            "fee_rate": st.sampled_from([0.0, 0.001, 0.02]),
            "lot_step": st.sampled_from([0.00001, 0.001, 0.01]),
            "min_notional": st.sampled_from([0.0, 5.0]),
            "stop_loss": st.sampled_from([None, 0.02, 0.1]),
            "take_profit": st.sampled_from([None, 0.03, 0.2]),
            "fill": st.sampled_from(["close", "next_open"]),
            "latency_bars": st.sampled_from([0, 0, 1, 3]),
        }
    )


fractions = st.lists(st.sampled_from([0.0, 0.1, 0.37, 0.5, 1.0, -0.2, -0.5, -1.0, -1.0, 1.0]), min_size=40, max_size=40)


@given(quantity=st.decimals(min_value=0, max_value=10**6, places=8), step=st.sampled_from(STEPS))
@settings(max_examples=300)
def test_lots_equal_decimal_arithmetic(quantity: Decimal, step: str) -> None:
    multiple, scale = parse_lot_step(float(step))
    assert multiple / scale == float(step)
    expected = (Decimal(repr(float(quantity))) / Decimal(step)).to_integral_value(ROUND_FLOOR)
    assert floor_to_lots(float(quantity), multiple, scale) == int(expected)


@pytest.mark.parametrize("step", [0.0, -0.1, float("nan"), float("inf"), 1e-16])
def test_a_lot_step_that_is_not_a_decimal_is_an_error(step: float) -> None:
    with pytest.raises(ValueError, match="lot step"):
        parse_lot_step(step)


@given(rows=markets(), decisions=fractions, changes=costs())
@settings(max_examples=60)
def test_account_identity_holds_at_every_bar(rows: list[Any], decisions: list[float], changes: dict[str, Any]) -> None:
    broker, sizer = account(rows, **changes)
    for bar, row in enumerate(rows):
        broker.advance(bar)
        if decisions[bar] and row[4]:
            wanted = Decision.buy if decisions[bar] > 0 else Decision.sell
            trade(broker, sizer, wanted("BTCUSDT", abs(decisions[bar])))
        now = broker.portfolio()
        prices = {"BTCUSDT": row[3]}
        gained = now.realised_pnl + now.unrealised_pnl(prices) - now.fees
        assert now.equity(prices) == pytest.approx(10_000 + gained, rel=1e-9)
        assert broker.equity[bar] == now.equity(prices)
        assert now.cash >= 0
        assert all(held.quantity > 0 for held in now.positions.values())


@given(rows=markets(), decisions=fractions, changes=costs())
@settings(max_examples=60)
def test_compiled_account_equals_the_slow_one(rows: list[Any], decisions: list[float], changes: dict[str, Any]) -> None:
    # The limits are wide, so that only the account limits an order that meets waiting ones.
    broker, sizer = account(rows, max_position=100.0, max_gross=100.0, **changes)
    slow = SlowAccount(
        cash=10_000.0, slippage=changes["slippage_bps"] / 1e4, fee=changes["fee_rate"],
        step=format(changes["lot_step"], "f"), min_notional=changes["min_notional"], stop=changes["stop_loss"],
        take=changes["take_profit"], at_close=changes["fill"] == "close",
        delay=changes["latency_bars"] + (changes["fill"] != "close"),
    )  # fmt: skip
    fills = []
    for at, row in enumerate(rows):
        bar = dict(zip(("open", "high", "low", "close"), row, strict=False))
        fills += broker.advance(at)
        slow.run_bar(at, bar, row[4])
        if decisions[at] and row[4]:
            wanted = Decision.buy if decisions[at] > 0 else Decision.sell
            fills += trade(broker, sizer, wanted("BTCUSDT", abs(decisions[at])))
            slow.decide(at, bar, decisions[at])
    # One lot of difference is allowed where a quantity lies within rounding of a lot boundary.
    lot = changes["lot_step"] * max(row[1] for row in rows)
    assert [(f.bar, f.reason) for f in fills] == [entry[:2] for entry in slow.log]
    assert broker.equity == pytest.approx(slow.equity, rel=1e-9, abs=2 * lot * len(rows))


@given(
    rows=markets(),
    targets=st.lists(st.sampled_from([0.0, 0.3, 1.0, float("nan")]), min_size=40, max_size=40),
    changes=costs(),
)
@settings(max_examples=60)
def test_both_drivers_give_the_same_bits(rows: list[Any], targets: list[float], changes: dict[str, Any]) -> None:
    broker, sizer = account(rows, **changes)
    bars = [bar for bar, row in enumerate(rows) if row[4]]
    fills = []
    for bar in bars:
        fills += broker.advance(bar)
        if targets[bar] == targets[bar]:
            fills += trade(broker, sizer, Decision.to({"BTCUSDT": targets[bar]}))
    fills += broker.advance(len(rows) - 1)
    fast = SimulatedBroker(prices=Candles(rows), rules=broker.rules, cash=10_000.0)
    limits = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=False)
    wanted = np.array([[targets[bar]] for bar in bars])
    assert run_targets(broker=fast, limits=limits, bars=np.array(bars), targets=wanted) == fills
    assert fast.equity.tobytes() == broker.equity.tobytes()
    assert fast.exposure.tobytes() == broker.exposure.tobytes()


@given(rows=markets(), decisions=fractions)
@settings(max_examples=30)
def test_a_fork_does_not_change_the_account(rows: list[Any], decisions: list[float]) -> None:
    broker, sizer = account(rows, stop_loss=0.05, latency_bars=1)
    half = len(rows) // 2
    for bar in range(half):
        broker.advance(bar)
        if decisions[bar] > 0:
            trade(broker, sizer, Decision.buy("BTCUSDT", decisions[bar]))
    before = (broker.account.tobytes(), broker.positions.tobytes(), broker.queue.tobytes(), broker.equity.tobytes())
    fork = broker.fork()
    fork.advance(len(rows) - 1)
    trade(fork, sizer, Decision.sell("BTCUSDT"))
    assert before == (
        broker.account.tobytes(),
        broker.positions.tobytes(),
        broker.queue.tobytes(),
        broker.equity.tobytes(),
    )
