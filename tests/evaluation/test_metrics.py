"""The measures against published numbers, independent ways to compute them, and their undefined cases."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import DAY, HOUR, MINUTE, time_us
from agent_bt.core.types import Fill
from agent_bt.evaluation import metrics
from agent_bt.evaluation.performance import Performance, performance

START = time_us("2024-07-01")


def fill(quantity: float, price: float, fee: float = 0.0, realised: float = 0.0, time: int = START + HOUR) -> Fill:
    return Fill(
        time=time,
        bar=0,
        symbol="A",
        quantity=quantity,
        price=price,
        reference_price=price,
        fee=fee,
        slippage=0.0,
        realised_pnl=realised,
        reason="order",
    )


def test_sortino_of_published_returns() -> None:
    returns = np.array([17, 15, 23, -5, 12, 9, 13, -4]) / 100
    assert metrics.sortino_ratio(returns, periods_per_year=1) == pytest.approx(4.4173, abs=5e-5)


def test_win_rate_and_profit_factor_of_published_trades() -> None:
    trades = [100, 200, 50, -150, 300, -100, 80, -30]
    assert metrics.win_rate(trades) == 0.625
    assert metrics.profit_factor(trades) == pytest.approx(2.607143, abs=5e-7)


def test_max_drawdown_of_published_returns_counts_the_start() -> None:
    returns = np.array([-2, -6, -7, -1, -9, -2, -6, -8, -5]) / 100
    assert metrics.max_drawdown(np.cumprod(1 + returns), 1.0) == pytest.approx(-0.378589, abs=5e-7)


def test_fees_of_published_round_trip_are_borne_by_its_trade() -> None:
    # 10 + 1 % of notional, 100 units in at 1, out at 4: fees 11 + 14 = 25
    fills = [fill(100, 1.0, fee=11.0), fill(-100, 4.0, fee=14.0, realised=300.0)]
    assert metrics.trade_results(fills) == [pytest.approx(300 - 25)]


def test_turnover_of_an_equity_that_is_used_up_counts_as_nothing() -> None:
    assert metrics.turnover(np.array([100.0, -900.0, 50.0]), np.array([100.0, -2.0, 0.0])) == 0.5


def test_turnover_of_published_rebalance() -> None:
    # weights .5/.5, returns +10 % / -10 %, back to .5/.5: .55 -> .5 and .45 -> .5 of an equity of 1
    assert metrics.turnover(np.array([-0.05, 0.05]), np.array([1.0, 1.0])) == pytest.approx(0.05)


def test_daily_returns_take_the_last_mark_of_each_utc_day() -> None:
    times = np.array([START + HOUR, START + DAY, START + DAY + MINUTE, START + 2 * DAY, START + 2 * DAY + 1])
    equity = np.array([90.0, 110.0, 50.0, 121.0, 60.5])
    assert metrics.daily_returns(times, equity, 100.0) == pytest.approx([0.1, 0.1, -0.5])


def test_sharpe_and_volatility_by_the_statistics_module() -> None:
    returns = [0.01, -0.02, 0.03, 0.005, -0.001]
    spread = statistics.stdev(returns)
    array = np.array(returns)
    assert metrics.volatility(array) == pytest.approx(spread * math.sqrt(365))
    assert metrics.sharpe_ratio(array) == pytest.approx(statistics.mean(returns) / spread * math.sqrt(365))


def test_annualised_return_compounds_over_365_days() -> None:
    assert metrics.annualised_return(100.0, 121.0, 2 * 365 * DAY) == pytest.approx(0.1)
    assert metrics.annualised_return(100.0, 101.0, DAY) == pytest.approx(1.01**365 - 1)
    assert metrics.annualised_return(100.0, 0.0, 30 * DAY) == -1.0


def test_undefined_measures_are_none() -> None:
    flat, growing = np.zeros(10), np.full(10, 0.01)
    assert metrics.sharpe_ratio(flat) is metrics.sharpe_ratio(growing) is metrics.sharpe_ratio(np.array([0.1])) is None
    assert metrics.sortino_ratio(growing) is metrics.sortino_ratio(flat) is None
    assert metrics.volatility(np.array([0.1])) is None
    assert metrics.calmar_ratio(0.5, 0.0) is metrics.calmar_ratio(None, -0.5) is None
    assert metrics.win_rate([]) is metrics.profit_factor([]) is metrics.profit_factor([1.0]) is None
    assert metrics.annualised_return(100.0, 200.0, HOUR) is None
    assert metrics.annualised_return(1.0, 1e6, DAY) is None


def test_partial_sales_are_trades_that_share_the_entry_fee() -> None:
    fills = [fill(2, 10.0, fee=4.0), fill(-0.5, 12.0, fee=1.0, realised=1.0), fill(-1.5, 9.0, fee=1.0, realised=-1.5)]
    assert metrics.trade_results(fills) == pytest.approx([1.0 - 1.0 - 1.0, -1.5 - 1.0 - 3.0])


def test_fill_through_zero_closes_one_trade_and_opens_the_next() -> None:
    fills = [fill(1, 10.0, fee=1.0), fill(-3, 12.0, fee=3.0, realised=2.0), fill(2, 11.0, fee=1.0, realised=2.0)]
    assert metrics.trade_results(fills) == pytest.approx([2.0 - 1.0 - 1.0, 2.0 - 1.0 - 2.0])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 100), st.floats(1, 100), st.floats(0, 1)), min_size=1, max_size=30))
def test_trades_and_what_is_open_bear_every_fee(orders: list[tuple[int, float, float]]) -> None:
    """Buy and sell back in random parts by average cost: once flat, the trades add up to the change of cash."""
    held, average, cash, fills = 0, 0.0, 0.0, []
    for at, (lots, price, fee) in enumerate(orders):
        quantity = lots if at % 2 == 0 else -min(lots, held)
        if quantity == 0:
            continue
        realised = (price - average) * -quantity if quantity < 0 else 0.0
        average = (average * held + price * quantity) / (held + quantity) if quantity > 0 else average
        held += quantity
        cash -= quantity * price + fee
        fills.append(fill(quantity, price, fee, realised))
    if held:
        fills.append(fill(-held, 50.0, 1.0, (50.0 - average) * held))
        cash += held * 50.0 - 1.0
    assert sum(metrics.trade_results(fills)) == pytest.approx(cash, abs=1e-6)


def measure(equity: list[float], fills: list[Fill] | None = None) -> Performance:
    times = START + HOUR * np.arange(1, len(equity) + 1)
    exposure = np.linspace(0.0, 1.0, len(equity))
    return performance(
        times=times,
        equity=np.array(equity),
        exposure=exposure,
        fills=fills or [],
        initial_cash=1000.0,
        start=START,
    )


def test_performance_of_a_round_trip() -> None:
    # Buy 5 at 100, fee 1; the price is 110 later: sell 2 there, fee 1; 3 stay open at 110.
    fills = [
        fill(5, 100.0, fee=1.0, time=START + HOUR),
        fill(-2, 110.0, fee=1.0, realised=20.0, time=START + 2 * HOUR),
    ]
    result = measure([999.0, 1048.0, 1048.0], fills)
    assert result.final_equity == 1048.0
    assert result.total_pnl == 48.0
    assert (result.realised_pnl, result.fees) == (20.0, 2.0)
    assert result.unrealised_pnl == pytest.approx(30.0)
    assert result.total_return == pytest.approx(0.048)
    assert result.max_drawdown == pytest.approx(-0.001)
    assert (result.trades, result.win_rate) == (1, 1.0)
    assert result.turnover == pytest.approx(0.5 * (500 / 999 + 220 / 1048))
    assert result.exposure == pytest.approx(0.5)
    assert result.annualised_return is None


def test_performance_has_the_keys_of_the_summary_in_their_order() -> None:
    names = (
        "final_equity total_pnl realised_pnl unrealised_pnl total_return annualised_return max_drawdown volatility "
        "sharpe sortino calmar win_rate profit_factor trades turnover exposure fees slippage funding"
    )
    assert [field.name for field in fields(Performance)] == names.split()


@settings(max_examples=50)
@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=100))
def test_performance_is_json_whatever_the_curve(equity: list[float]) -> None:
    json.dumps(asdict(measure(equity)), allow_nan=False)


def test_performance_of_an_account_that_never_trades() -> None:
    result = measure([1000.0] * 100)
    assert (result.total_pnl, result.max_drawdown, result.trades, result.turnover) == (0.0, 0.0, 0, 0.0)
    assert result.sharpe is result.sortino is result.calmar is result.win_rate is None
    assert result.volatility == 0.0
