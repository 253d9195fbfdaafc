"""The compiled account equals the slow one: several symbols, spot and margin, every rule and limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_accounts import CASH, Case, random_case, run_decisions
from slow_account import SlowSimulation, fill_rows


def check_against_slow(case: Case) -> int:
    """Compare every fill, the equity at every bar, and the account at the end; return the number of fills."""
    stepwise, slow = run_decisions(case), SlowSimulation(case=case)
    slow.run()
    fills = fill_rows(stepwise.fills, case)
    assert [fill[:4] for fill in fills] == [fill[:4] for fill in slow.log]
    for got, expected in zip(fills, slow.log, strict=True):
        assert got[4:6] == pytest.approx(expected[4:6], rel=1e-9)
        assert got[6] == pytest.approx(expected[6], rel=1e-9, abs=1e-9 * CASH)
    broker = stepwise.broker
    equity = broker.equity[case.first :].tolist()
    assert equity == pytest.approx(list(slow.equity.values()), rel=1e-9, abs=1e-9 * CASH)
    now = broker.portfolio()
    for got, wanted in ((now.cash, slow.cash), (now.fees, slow.fees), (now.funding, slow.funding)):
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-9 * CASH)
    assert now.realised_pnl == pytest.approx(slow.realised, rel=1e-9, abs=1e-9 * CASH)
    assert broker.halted_by == slow.halted
    return len(fills)


@pytest.mark.parametrize("margin", [False, True], ids=["spot", "margin"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_the_compiled_account_equals_the_slow_one(margin: bool, seed: int) -> None:
    check_against_slow(random_case(seed, margin=margin))


@pytest.mark.verify
@pytest.mark.parametrize("start", range(0, 10_000, 1_000))
def test_the_compiled_account_equals_the_slow_one_over_thousands_of_accounts(start: int) -> None:
    assert sum(check_against_slow(random_case(seed)) for seed in range(start, start + 1_000)) > 7_000
