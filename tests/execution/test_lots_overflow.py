"""Quantities that cannot be held exactly are refused by every driver, with a lot step that holds them."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from price_arrays import DEFAULTS, Candles, account
from trade import trade

from agent_bt.core.errors import ConfigError
from agent_bt.core.types import Decision
from agent_bt.engine.batch import OUTCOME, Accounts, BatchRunner
from agent_bt.engine.vectorised import run_targets
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizing import make_limits, make_rules

LIMITS = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=False)


def flat(price: float) -> list[tuple[float, float, float, float]]:
    return [(price, price, price, price)] * 4


def buy_by_decision(price: float, cash: float, step: float) -> SimulatedBroker:
    broker, sizer = account(flat(price), cash=cash, lot_step=step)
    broker.advance(0)
    trade(broker, sizer, Decision.buy("BTCUSDT", 1.0))
    broker.advance(3)
    return broker


def buy_by_target(price: float, cash: float, step: float) -> SimulatedBroker:
    rules = make_rules(**{**DEFAULTS, "lot_step": step})
    broker = SimulatedBroker(prices=Candles(flat(price)), rules=rules, cash=cash)
    run_targets(broker=broker, limits=LIMITS, bars=np.array([0]), targets=np.array([[1.0]]))
    return broker


def buy_in_batch(price: float, cash: float, step: float) -> np.ndarray:
    rules = make_rules(**{**DEFAULTS, "lot_step": step})
    runner = BatchRunner(Candles(flat(price)), cash=cash, first=0, delay=0)
    outcomes, marks = np.zeros(1, OUTCOME), np.zeros((1, runner.days))
    accounts = Accounts(
        rules=rules,
        limits=LIMITS,
        on_change=np.array([False]),
        starts=np.array([0, 1]),
        rows=np.array([0]),
        targets=np.array([[1.0]]),
    )
    runner.run_batch(accounts, outcomes, marks)
    return outcomes


DRIVERS = [buy_by_decision, buy_by_target, buy_in_batch]


def step_to_use(error: ConfigError) -> float:
    found = re.search(r"set execution\.lot_step to (\S+) or more", str(error))
    assert found, error
    return float(found[1])


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("price", "cash", "step"),
    [
        (1e-5, 1e6, 1e-8),  # 1e19 lots
        (1e-5, 1e9, 1e-5),  # 1e19 lots
        (1e-12, 1e12, 1e3),  # 1e21 lots
        (1e-7, 1e3, 1e-8),  # 1e18 lots: within int64, above 2^53
        (0.01, 1e12, 1e-3),  # 1e17 lots
    ],
)
def test_too_many_lots_are_refused_with_the_step_to_use(driver: Any, price: float, cash: float, step: float) -> None:
    with pytest.raises(ConfigError, match="cannot be held exactly") as caught:
        driver(price, cash, step)
    driver(price, cash, step_to_use(caught.value))


def test_the_named_step_is_the_smallest_power_of_ten_that_holds_the_quantity() -> None:
    # 1e11 units; 2^53 = 9.007e15 lots of 1e-5 hold 9.007e10 units, of 1e-4 they hold 9.007e11.
    with pytest.raises(ConfigError) as caught:
        buy_by_decision(1e-5, 1e6, 1e-8)
    assert step_to_use(caught.value) == 1e-4


@given(
    price=st.floats(-12, 9).map(lambda power: 10.0**power),
    cash=st.floats(0, 12).map(lambda power: 10.0**power),
    step=st.integers(-8, 3).map(lambda power: float(f"1e{power}")),
)
@settings(max_examples=300, deadline=None)
def test_a_buy_has_the_exact_lots_or_is_refused_by_both_drivers(price: float, cash: float, step: float) -> None:
    exact = Fraction(cash) / Fraction(price) / Fraction(Decimal(repr(step)))
    assume(abs(exact / 2**53 - 1) > Fraction(1, 10**9))
    if exact > 2**53:
        for driver in (buy_by_decision, buy_by_target):
            with pytest.raises(ConfigError, match="cannot be held exactly") as caught:
                driver(price, cash, step)
            driver(price, cash, step_to_use(caught.value))
        return
    one, other = (driver(price, cash, step) for driver in (buy_by_decision, buy_by_target))
    for broker in (one, other):
        lots, cash_left = int(broker.positions[0]["lots"]), float(broker.account[0]["cash"])
        # Rounding of the cash and the quotient: a few units in the last place.
        assert lots == pytest.approx(int(exact), rel=1e-15, abs=1)
        assert 0 <= lots <= exact * (1 + Fraction(1, 10**15))
        assert cash_left >= 0.0
        assert broker.equity[3] == pytest.approx(cash, rel=1e-9)
    assert np.array_equal(one.equity, other.equity)


def test_what_is_held_and_what_waits_count_together() -> None:
    # 2^53 lots of 1 are 9,007,199,254,740,992 units; 60% of them waits when 60% more is ordered.
    broker, sizer = account(
        [(1.0, 1.0, 1.0, 1.0)] * 6, cash=0.6 * 2**53, lot_step=1.0, latency_bars=2, max_position=2.0, max_gross=2.0
    )
    broker.advance(0)
    trade(broker, sizer, Decision.buy("BTCUSDT", 1.0))
    broker.advance(1)
    with pytest.raises(ConfigError, match="cannot be held exactly"):
        trade(broker, sizer, Decision.buy("BTCUSDT", 1.0))


def test_a_position_limit_that_keeps_the_quantity_representable_is_no_refusal() -> None:
    # All of the cash would be 2e16 lots; a tenth of it, 2e15, is below 2^53 = 9.007e15.
    broker, sizer = account(flat(1.0), cash=2e16, lot_step=1.0, max_position=0.1)
    broker.advance(0)
    trade(broker, sizer, Decision.buy("BTCUSDT", 1.0))
    assert broker.positions[0]["lots"] == 2 * 10**15


def test_a_smallest_order_of_too_many_lots_is_an_error() -> None:
    with pytest.raises(ValueError, match="min_quantity"):
        make_rules(**{**DEFAULTS, "lot_step": 1e-8, "min_quantity": 1e9})
