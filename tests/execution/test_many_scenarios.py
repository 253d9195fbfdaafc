"""Small scenarios with round numbers: funding, delistings, targets, positions that change sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from price_arrays import DEFAULTS
from random_accounts import PriceArrays, make_prices

from agent_bt.core.types import Decision, Fill
from agent_bt.evaluation.metrics import turnover
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules

LONG, SHORT, FLAT = Decision.to({"S0": 1.0}), Decision.to({"S0": -1.0}), Decision.to({"S0": 0.0})
WIDE: dict[str, Any] = {"max_position": 5.0, "max_gross": 5.0, "no_trade_band": 0.0, "max_leverage": 5.0}
PERPETUAL: dict[str, Any] = {"margin": True, "allow_short": True, "max_leverage": 5.0}


def flat(*closes: Sequence[float]) -> np.ndarray:
    """Candles (T, N, 4) without a range: one list of closes for each symbol."""
    return np.repeat(np.array(closes, np.float64).T[:, :, None], 4, axis=2)


class Scenario:
    """Decisions at rows of a market, without costs by default; `fills` and `cuts` in order."""

    def __init__(
        self, prices: PriceArrays, decisions: Mapping[int, Decision], cash: float = 10_000.0, **changes: Any
    ) -> None:
        limits = {**WIDE, **{key: changes.pop(key) for key in list(changes) if key in ("no_trade_band", "max_net")}}
        rules = make_rules(**{**DEFAULTS, **changes})
        self.broker = SimulatedBroker(prices=prices, rules=rules, cash=cash)
        self.fills: list[Fill] = []
        self.cuts: dict[int, list[tuple[str, str]]] = {}
        sizer = RiskLimitedSizer(
            symbols=prices.symbols, rules=rules, limits=make_limits(allow_short=bool(rules[0]["allow_short"]), **limits)
        )
        for row in range(len(prices.times)):
            self.fills += self.broker.advance(row)
            if row in decisions and not self.broker.halted:
                sized = sizer.size(decisions[row], self.broker.state())
                self.cuts[row] = [(cut.symbol, cut.reason) for cut in sized.cuts]
                self.fills += self.broker.submit(sized.orders, sized.targets)

    @property
    def filled(self) -> list[tuple[int, str, str, float]]:
        return [(fill.bar, fill.symbol, fill.reason, round(fill.quantity, 9)) for fill in self.fills]

    @property
    def cash(self) -> float:
        return self.broker.portfolio().cash


def settled(rows: int, row: int, rate: float) -> np.ndarray:
    rates = np.zeros((rows, 1))
    rates[row] = rate
    return rates


@pytest.mark.parametrize(
    ("decision", "rate", "paid"), [(LONG, 0.001, 10.0), (SHORT, 0.001, -10.0), (LONG, -0.002, -20.0), (FLAT, 0.001, 0)]
)
def test_longs_pay_a_positive_rate_and_shorts_receive_it(decision: Decision, rate: float, paid: float) -> None:
    """100 units at a mark of 100: 0.1 % of 10,000."""
    prices = make_prices(flat([100, 100, 100]), funding=settled(3, 1, rate))
    ran = Scenario(prices, {0: decision}, **PERPETUAL)
    assert ran.broker.portfolio().funding == pytest.approx(paid)
    assert ran.broker.equity.tolist() == pytest.approx([10_000.0, 10_000.0 - paid, 10_000.0 - paid])


def test_what_is_opened_at_the_close_of_a_settlement_does_not_pay_it_and_what_is_closed_there_does() -> None:
    prices = make_prices(flat([100, 100, 100]), funding=settled(3, 1, 0.001))
    assert Scenario(prices, {1: LONG}, **PERPETUAL).broker.portfolio().funding == 0.0
    assert Scenario(prices, {0: LONG, 1: FLAT}, **PERPETUAL).broker.portfolio().funding == pytest.approx(10.0)
    # The same with orders that fill at that close.
    assert Scenario(prices, {0: LONG}, latency_bars=1, **PERPETUAL).broker.portfolio().funding == 0.0


def test_a_position_that_was_stopped_in_the_bar_of_a_settlement_does_not_pay_it() -> None:
    candles = flat([100, 100, 100])
    candles[1, 0] = (100, 100, 89, 100)
    ran = Scenario(make_prices(candles, funding=settled(3, 1, 0.001)), {0: LONG}, stop_loss=0.1, **PERPETUAL)
    assert [fill.reason for fill in ran.fills] == ["order", "stop_loss"]
    assert ran.broker.portfolio().funding == 0.0


def test_a_delisted_symbol_is_closed_at_its_last_traded_close_and_never_bought_again() -> None:
    prices = make_prices(flat([100, 110, 120, 120, 120], [50, 50, 50, 50, 50]), ends=np.array([2, 5]))
    both = Decision.to({"S0": 0.5, "S1": 0.5})
    ran = Scenario(prices, {0: both, 2: both, 3: both})
    # 12,000 in all at row 2: half of it is 6,000, and the delisted symbol may not be bought.
    assert ran.filled == [
        (0, "S0", "order", 50.0), (0, "S1", "order", 100.0), (2, "S0", "delisted", -50.0),
        (2, "S1", "order", 10.0),
    ]  # fmt: skip
    assert ran.fills[2].reference_price == 120
    assert ran.cuts == {0: [], 2: [("S0", "not_eligible")], 3: [("S0", "not_eligible")]}
    # 5,500 of S1 is half of the 11,000 that 50 x 120 + 5,000 make.
    assert ran.broker.equity.tolist() == [10_000.0, 10_500.0, 11_000.0, 11_000.0, 11_000.0]


def test_a_waiting_order_for_a_delisted_symbol_is_dropped() -> None:
    prices = make_prices(flat([100, 100, 100, 100]), ends=np.array([2]))
    ran = Scenario(prices, {1: LONG}, latency_bars=2)
    assert ran.filled == []
    assert ran.broker.dropped == 1
    assert ran.broker.account[0]["waiting"] == 0


def test_a_rule_that_repeats_its_target_stays_out_after_a_stop_until_the_target_changes() -> None:
    candles = flat([100, 100, 95, 95, 95, 95])
    candles[1, 0] = (100, 100, 85, 95)
    half, rest = Decision.to({"S0": 0.5}, on_change=True), Decision.to({"S0": 0.4}, on_change=True)
    ran = Scenario(make_prices(candles), {0: half, 1: half, 2: half, 3: rest, 4: rest}, stop_loss=0.1)
    # 9,500 after the stop at 90; 40 % of it at 95 is 40 units.
    assert ran.filled == [(0, "S0", "order", 50.0), (1, "S0", "stop_loss", -50.0), (3, "S0", "order", 40.0)]


def test_a_ranker_that_repeats_its_target_trades_to_it_again() -> None:
    candles = flat([100, 100, 95, 95])
    candles[1, 0] = (100, 100, 85, 95)
    ran = Scenario(make_prices(candles), {0: Decision.to({"S0": 0.5}), 2: Decision.to({"S0": 0.5})}, stop_loss=0.1)
    assert ran.filled == [(0, "S0", "order", 50.0), (1, "S0", "stop_loss", -50.0), (2, "S0", "order", 50.0)]


def test_a_long_position_turns_short_in_one_order() -> None:
    ran = Scenario(make_prices(flat([100, 110, 99])), {0: LONG, 1: SHORT}, **PERPETUAL)
    assert ran.filled == [(0, "S0", "order", 100.0), (1, "S0", "order", -200.0)]
    assert ran.fills[1].realised_pnl == pytest.approx(1_000.0)
    assert ran.broker.portfolio().positions["S0"].average_price == 110
    # Short 100 units from 110 to 99: 1,100 more.
    assert ran.broker.equity.tolist() == pytest.approx([10_000.0, 11_000.0, 12_100.0])


def test_a_reversed_position_keeps_to_the_leverage_after_its_costs() -> None:
    rules = {**PERPETUAL, "max_leverage": 1.0, "fee_rate": 0.01}
    broker = Scenario(make_prices(flat([100, 100])), {0: LONG, 1: SHORT}, **rules).broker
    held = broker.portfolio().positions["S0"].quantity
    # Both legs are paid for: 1 % of what is closed, 1 % of what is opened.
    assert held < 0
    assert 0.999 < -held * 100 / broker.equity[1] <= 1.0


def test_sells_come_first_and_buys_share_the_cash_in_the_order_of_the_symbols() -> None:
    """9,900 of cash after selling at 1 % of costs buys 9,801.98 at the same costs, in the same proportion."""
    prices = make_prices(flat([100, 100], [100, 100], [100, 100]))
    first = Decision.to({"S2": 1.0})
    ran = Scenario(
        prices, {0: first, 1: Decision.to({"S1": 0.75, "S0": 0.25, "S2": 0.0})}, cash=10_100.0, fee_rate=0.01
    )
    assert [(fill.symbol, fill.quantity > 0) for fill in ran.fills[1:]] == [
        ("S2", False), ("S0", True), ("S1", True),
    ]  # fmt: skip
    sold, small, large = (abs(fill.quantity) * fill.price for fill in ran.fills[1:])
    assert sold == pytest.approx(10_000.0)
    assert small + large == pytest.approx(9_900.0 / 1.01, rel=1e-6)
    assert large / small == pytest.approx(3.0, rel=1e-6)
    assert 0.0 <= ran.cash < 0.01


def test_a_target_that_is_repeated_while_nothing_trades_is_bought_once() -> None:
    traded = np.array([[False, True], [False, True], [False, True], [True, True]])
    half = Decision.to({"S0": 0.5})
    ran = Scenario(make_prices(flat([100] * 4, [100] * 4), traded), {0: half, 1: half, 2: half})
    assert ran.filled == [(3, "S0", "order", 50.0)]


def test_a_target_that_is_repeated_while_its_order_waits_is_bought_once() -> None:
    ran = Scenario(make_prices(flat([100] * 6)), dict.fromkeys(range(4), Decision.to({"S0": 0.5})), latency_bars=2)
    assert ran.filled == [(2, "S0", "order", 50.0)]


def test_targets_that_change_while_nothing_trades_end_at_the_last_one() -> None:
    traded = np.array([[False, True]] * 4 + [[True, True]])
    weights = (0.1, 0.2, 0.3, 0.45)
    decisions = {row: Decision.to({"S0": weight}) for row, weight in enumerate(weights)}
    ran = Scenario(make_prices(flat([100] * 5, [100] * 5), traded), decisions)
    assert sum(fill.quantity for fill in ran.fills) == pytest.approx(45.0)
    assert {fill.bar for fill in ran.fills} == {4}


@pytest.mark.parametrize(("wanted", "left"), [(FLAT, []), (SHORT, [(2, "S0", "order", -100.0)])])
def test_a_stop_reduces_a_waiting_order_that_would_close_or_reverse_the_position(
    wanted: Decision, left: list[Any]
) -> None:
    candles = flat([100, 100, 100, 100])
    candles[2, 0] = (100, 100, 85, 100)
    # Long from row 1 on, when the other order is made, which is due at the close of row 2; the stop at 90 comes first.
    ran = Scenario(make_prices(candles), {0: LONG, 1: wanted}, stop_loss=0.1, latency_bars=1, **PERPETUAL)
    assert ran.filled == [(1, "S0", "order", 100.0), (2, "S0", "stop_loss", -100.0), *left]


def test_turnover_is_measured_against_drifted_weights() -> None:
    """Weights .5/.5, returns +10 % / -10 %, back to .5/.5: 0.05 one-way."""
    halves = Decision.to({"S0": 0.5, "S1": 0.5})
    ran = Scenario(make_prices(flat([100, 110], [100, 90])), {0: halves, 1: halves}, lot_step=1e-8)
    again = [fill for fill in ran.fills if fill.bar == 1]
    notionals = np.array([fill.quantity * fill.price for fill in again])
    assert turnover(notionals, ran.broker.equity[[fill.bar for fill in again]]) == pytest.approx(0.05, rel=1e-6)


def test_margin_account_is_closed_when_its_equity_is_used_up() -> None:
    decisions = {0: Decision.to({"S0": 4.0}), 2: LONG}
    ran = Scenario(make_prices(flat([100, 70, 100, 100])), decisions, **PERPETUAL)
    assert [fill.reason for fill in ran.fills] == ["order", "used_up"]
    assert ran.broker.halted_by == "used_up"
    assert ran.broker.equity.tolist() == pytest.approx([10_000.0, -2_000.0, -2_000.0, -2_000.0])


@pytest.mark.parametrize(
    ("bar", "changes", "reason", "price"),
    [
        ((100, 112, 99, 105), {"stop_loss": 0.1}, "stop_loss", 110.0),
        ((115, 120, 114, 116), {"stop_loss": 0.1}, "stop_loss", 115.0),
        ((100, 101, 88, 95), {"take_profit": 0.1}, "take_profit", 90.0),
        ((85, 86, 80, 84), {"take_profit": 0.1}, "take_profit", 85.0),
        ((100, 112, 88, 100), {"stop_loss": 0.1, "take_profit": 0.1}, "stop_loss", 110.0),
    ],
)
def test_shorts_are_stopped_above_and_take_profit_below(
    bar: tuple[float, ...], changes: dict[str, float], reason: str, price: float
) -> None:
    candles = flat([100, 100])
    candles[1, 0] = bar
    ran = Scenario(make_prices(candles), {0: SHORT}, **changes, **PERPETUAL)
    assert [(fill.reason, fill.price) for fill in ran.fills[1:]] == [(reason, pytest.approx(price))]


@pytest.mark.parametrize(("bar", "price"), [((90, 92, 88, 91), 90.0), ((102, 103, 98, 101), 100.0)])
def test_a_sell_stop_at_100_of_published_example(bar: tuple[float, ...], price: float) -> None:
    """Entered at 125 with a stop of 20 %: an open at 90 fills at 90; an open at 102 with a low of 98 fills at 100."""
    candles = flat([125, 125])
    candles[1, 0] = bar
    ran = Scenario(make_prices(candles), {0: LONG}, stop_loss=0.2)
    assert [fill.price for fill in ran.fills] == [125.0, pytest.approx(price)]


def test_net_limit_holds_for_a_position_that_changes_sides() -> None:
    ran = Scenario(make_prices(flat([100, 100])), {0: Decision.to({"S0": -0.25}), 1: LONG}, max_net=0.25, **PERPETUAL)
    assert ran.filled == [(0, "S0", "order", -25.0), (1, "S0", "order", 50.0)]
    assert ran.cuts == {0: [], 1: [("S0", "max_net")]}


def test_a_symbol_without_a_target_is_not_reported_as_cut() -> None:
    candles = flat([100, 100, 100], [np.nan, np.nan, 100])
    asked = Decision.to({"S0": 0.5, "S1": 0.5}, on_change=True)
    ran = Scenario(make_prices(candles), {0: LONG, 1: asked})
    assert ran.cuts == {0: [], 1: [("S1", "not_eligible")]}
    # The same target again under on_change is left alone, which is not a cut.
    assert (
        Scenario(make_prices(candles), {0: asked, 1: Decision.to(dict(asked.targets or {}), on_change=True)}).cuts[1]
        == []
    )
