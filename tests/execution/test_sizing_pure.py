"""Sizing is a function of the decision and the account's state; targets are remembered when orders are submitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from price_arrays import account
from random_accounts import random_case

from agent_bt.core.types import Decision
from agent_bt.execution.sizer import RiskLimitedSizer


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_decision_sized_twice_gives_the_same_orders_and_leaves_the_account_as_it_is(seed: int) -> None:
    case = random_case(seed)
    broker = case.broker()
    sizer = RiskLimitedSizer(symbols=case.prices.symbols, rules=broker.rules, limits=case.limit_records())
    given = np.full(len(case.prices.symbols), np.nan)
    for at, bar in enumerate(case.bars.tolist()):
        broker.advance(bar)
        if broker.halted:
            break
        decision = case.decision(at)
        records = [each.tobytes() for each in (broker.account, broker.positions, broker.queue)]
        sized = sizer.size(decision, broker.state())
        # In between another one, which leaves nothing behind either.
        sizer.size(Decision.to({case.prices.symbols[0]: 0.123}), broker.state())
        assert sizer.size(decision, broker.state()) == sized
        assert [each.tobytes() for each in (broker.account, broker.positions, broker.queue)] == records
        broker.submit(sized.orders, sized.targets)
        given = np.where(np.isnan(case.targets[at]), given, case.targets[at])
        assert np.array_equal(broker.positions["target"], given, equal_nan=True)


def test_a_state_cannot_be_written_to() -> None:
    broker, _ = account([(100, 100, 100, 100)])
    broker.advance(0)
    for broker_now in (broker, broker.fork()):
        state = broker_now.state()
        for array in (state.account["cash"], state.positions["target"], state.closes, state.eligible):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


def test_targets_are_remembered_by_the_account_they_were_submitted_to() -> None:
    broker, sizer = account([(100, 100, 100, 100)] * 2)
    broker.advance(0)
    fork, target = broker.fork(), Decision.to({"BTCUSDT": 0.5}, on_change=True)
    sized = sizer.size(target, fork.state())
    fork.submit(sized.orders, sized.targets)
    assert sizer.size(target, fork.state()).orders == ()
    assert sizer.size(target, broker.state()).orders == sized.orders
    assert np.isnan(broker.positions["target"]).all()
