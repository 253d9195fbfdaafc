"""Invariants of every account: the accounting identity, the limits, and a reason for every cut."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_accounts import CASH, Case, random_case, run_decisions
from reference import whole_lots

from agent_bt.core.types import SizedOrders
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer

EVEN_WHAT_REDUCES = {"max_turnover", "min_size"}
"""The only rules that cut an order that makes a position smaller."""


def check_account(case: Case) -> None:
    """Run the case bar by bar, and check everything at every bar."""
    broker = case.broker()
    sizer = RiskLimitedSizer(symbols=case.prices.symbols, rules=broker.rules, limits=case.limit_records())
    decisions = {bar: at for at, bar in enumerate(case.bars.tolist())}
    for bar in range(case.first, len(case.prices.times)):
        halted = broker.halted
        fills = broker.advance(bar)
        if halted:
            assert {fill.reason for fill in fills} <= {broker.halted_by, "stop_loss", "take_profit", "delisted"}
        check_bar(case, broker, bar)
        if bar in decisions and not broker.halted:
            check_decision(case, broker, sizer, decisions[bar], bar)
            check_bar(case, broker, bar)


def check_bar(case: Case, broker: SimulatedBroker, bar: int) -> None:
    now = broker.portfolio()
    prices = dict(zip(case.prices.symbols, case.prices.close[bar].tolist(), strict=True))
    gained = now.realised_pnl + now.unrealised_pnl(prices) - now.fees - now.funding
    turned_over = 1e-9 * max(CASH, abs(now.cash), abs(now.realised_pnl), now.fees)
    assert now.equity(prices) == pytest.approx(CASH + gained, rel=1e-9, abs=turned_over)
    assert broker.equity[bar] == pytest.approx(now.equity(prices), rel=1e-12, abs=1e-9)
    assert int(broker.account[0]["held"]) == len(now.positions)
    assert int(broker.account[0]["waiting"]) == np.count_nonzero(broker.queue["lots"])
    step = Decimal(repr(case.rules["lot_step"]))
    for symbol, record in zip(case.prices.symbols, broker.positions, strict=True):
        lots = int(record["lots"])
        assert float(record["quantity"]) == float(lots * step)
        assert lots >= 0 or case.rules["allow_short"]
        assert lots == 0 or bar < case.prices.ends[case.prices.symbols.index(symbol)]
    if not case.rules["margin"]:
        assert now.cash >= 0


def check_decision(case: Case, broker: SimulatedBroker, sizer: RiskLimitedSizer, at: int, bar: int) -> None:
    equity, closes = float(broker.equity[bar]), case.prices.close[bar]
    coming = broker.positions["lots"] + broker.queue["lots"].sum(axis=1)
    if not case.rules["allow_short"]:
        coming = np.maximum(coming, 0)
    previous = broker.positions["target"].copy()
    sized = sizer.size(case.decision(at), broker.state())
    asked = [
        lots_asked(case, target, int(held), equity, close, case.on_change and target == last)
        for target, held, close, last in zip(case.targets[at].tolist(), coming, closes.tolist(), previous, strict=True)
    ]
    check_cuts(case, sized, asked, coming, case.targets[at], closes)
    before = broker.positions["lots"].copy()
    broker.submit(sized.orders, sized.targets)
    if case.rules["fill"] == "close" and case.rules["latency_bars"] == 0:
        prices = np.nan_to_num(closes) * case.rules["lot_step"]
        after, waiting = broker.positions["lots"], broker.queue["lots"].sum(axis=1)
        assert not waiting[case.prices.traded[bar]].any()
        # Orders keep to the limits; at the fill, cash or leverage may reduce one leg only.
        lots = {order.symbol: order.lots for order in sized.orders}
        ordered = coming + np.array([lots.get(symbol, 0) for symbol in case.prices.symbols])
        check_limits(case, coming * prices, ordered * prices, equity, closes)
        assert np.abs((after + waiting) * prices).sum() <= max(
            np.abs(ordered * prices).sum(), np.abs(coming * prices).sum()
        ) + 1e-9 * equity  # fmt: skip
        if case.rules["margin"] and opened_value(before * prices, after * prices).any():
            now = float(broker.account[0]["equity"])
            assert np.abs(after * prices).sum() <= case.rules["max_leverage"] * now * (1 + 1e-9)


def lots_asked(case: Case, target: float, held: int, equity: float, close: float, same: bool) -> int | None:
    """The lots of the order for a target before any limit, computed slowly; None where a symbol has no price."""
    if np.isnan(target) or same:
        return 0
    if target == 0.0:
        return -held
    if np.isnan(close):
        return None
    step = case.rules["lot_step"]
    if held and abs(target - held * step * close / equity) <= case.limits["no_trade_band"]:
        return 0
    wanted = round(float(whole_lots(abs(target) * equity / close, repr(step))) / step)
    return (wanted if target > 0 else -wanted) - held


def check_cuts(
    case: Case, sized: SizedOrders, asked: list[int | None], coming: np.ndarray, targets: np.ndarray, closes: np.ndarray
) -> None:
    ordered = {order.symbol: order.lots for order in sized.orders}
    cuts = {cut.symbol: cut for cut in sized.cuts}
    assert len(cuts) == len(sized.cuts)
    for number, symbol in enumerate(case.prices.symbols):
        got, wanted, cut = ordered.get(symbol, 0), asked[number], cuts.get(symbol)
        if wanted is None:
            assert got == 0
            assert cut is not None
            assert cut.reason == "not_eligible"
        elif abs(got - wanted) <= 1 and (got == wanted or cut is None):
            # The slow way may round a quantity the other way that lies on a lot boundary.
            assert cut is None, (symbol, got, wanted, cut)
        else:
            assert cut is not None, (symbol, got, wanted)
            assert cut.reason
            assert cut.verdict == ("clipped" if got else "rejected")
            held = int(coming[number])
            if held and 0 <= (held + wanted) / held <= 1:
                assert cut.reason in EVEN_WHAT_REDUCES, (symbol, held, wanted, got, cut)


def check_limits(case: Case, old: np.ndarray, new: np.ndarray, equity: float, closes: np.ndarray) -> None:
    """Check the values of the positions before and after a decision, waiting orders included."""
    opened = opened_value(old, new)
    limits, near = case.limits, 1e-9 * equity
    # A leg may be missing where it fell below the smallest order.
    small = len(old) * max(case.rules["min_notional"], case.rules["min_quantity"] * float(np.nanmax(closes)))
    for was, now, grew in zip(old, new, opened, strict=True):
        allowed = limits["max_position"] * equity
        if limits["max_turnover"] is not None and was * now >= 0:
            allowed = max(allowed, abs(was))
        assert grew <= near or abs(now) <= allowed + near
    most = min(limits["max_gross"], limits["max_leverage"]) * equity
    gross_before, gross = np.abs(old).sum(), np.abs(new).sum()
    if limits["max_turnover"] is None:
        assert opened.sum() <= near or gross <= most + near
    else:
        # Both what makes room and what takes it are rounded down to lots.
        lots = len(old) * case.rules["lot_step"] * float(np.nanmax(closes))
        assert gross <= max(most, gross_before) + near + small + lots
        assert 0.5 * np.abs(new - old).sum() <= limits["max_turnover"] * equity + near
    if limits["max_net"] is not None and limits["max_turnover"] is None and opened.sum() > near:
        # Reducing orders may move the net by themselves; opening ones must not add to that, except by rounding to lots.
        near += len(old) * case.rules["lot_step"] * float(np.nanmax(closes))
        kept = np.where(opened > 0, np.where(old * new < 0, 0.0, old), new)
        assert abs(new.sum()) <= max(limits["max_net"] * equity, abs(kept.sum())) + near + small


def opened_value(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """How much of each position is new: what it grew by, or all of it where it changed sides."""
    return np.where(old * new < 0, np.abs(new), np.maximum(np.abs(new) - np.abs(old), 0.0))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_account_limits_and_cuts(seed: int) -> None:
    check_account(random_case(seed))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_account_limits_and_cuts_with_fills_at_the_close(seed: int) -> None:
    check_account(random_case(seed, fill="close", latency_bars=0))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_a_halted_account_never_trades_again(seed: int) -> None:
    case = random_case(seed, max_drawdown=0.05, rows=60)
    stepwise = run_decisions(case)
    ends = [fill.bar for fill in stepwise.fills if fill.reason in ("drawdown", "used_up")]
    if ends:
        assert max(fill.bar for fill in stepwise.fills if fill.reason == "order") <= min(ends)
    if stepwise.broker.halted:
        # What is still held waits for a trade that did not come.
        for symbol in np.flatnonzero(stepwise.broker.positions["lots"]):
            assert not case.prices.traded[-1, symbol]


@pytest.mark.verify
@pytest.mark.parametrize("start", range(0, 10_000, 1_000))
def test_account_limits_and_cuts_over_thousands_of_accounts(start: int) -> None:
    for seed in range(start, start + 1_000):
        check_account(random_case(seed))
        check_account(random_case(seed, fill="close", latency_bars=0))
