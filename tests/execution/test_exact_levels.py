"""A price that equals a stop-loss or take-profit in decimals triggers it, one tick away does not, in every driver."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from price_arrays import DEFAULTS, Candles, account
from trade import trade

from agent_bt.core.types import Decision, Fill
from agent_bt.engine.vectorised import run_targets
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizing import make_limits, make_rules

TICK = Decimal("0.0001")


def bars(entry: Decimal, extreme: Decimal) -> list[tuple[float, float, float, float]]:
    """Return bars that open the position at the first close and reach `extreme` in the third."""
    at, far = float(entry), float(extreme)
    return [(at, at, at, at), (at, at, at, at), (at, max(at, far), min(at, far), at), (at, at, at, at)]


def closing_fills(rows: list[Any], *, weight: float = 1.0, **changes: Any) -> list[Fill]:
    """Return what closed the position, by `run_targets`."""
    short = weight < 0
    rules = make_rules(**{**DEFAULTS, **changes, "allow_short": short}, margin=short, max_leverage=2.0)
    limits = make_limits(max_position=1.0, max_gross=1.0, no_trade_band=0.0, allow_short=short)
    broker = SimulatedBroker(prices=Candles(rows), rules=rules, cash=10_000.0)
    fills = run_targets(broker=broker, limits=limits, bars=np.array([0]), targets=np.array([[weight]]))
    return [fill for fill in fills if fill.reason != "order"]


@pytest.mark.parametrize(
    ("weight", "rule", "entry", "fraction", "level"),
    [
        (1.0, "stop_loss", "1.01", "0.05", "0.9595"),
        (1.0, "stop_loss", "1.07", "0.07", "0.9951"),
        (1.0, "stop_loss", "64321.5", "0.02", "63035.07"),
        (1.0, "stop_loss", "0.00001234", "0.05", "0.000011723"),
        (1.0, "take_profit", "1.1", "0.1", "1.21"),
        (1.0, "take_profit", "3.3", "0.07", "3.531"),
        (1.0, "take_profit", "0.29", "0.15", "0.3335"),
        (-1.0, "stop_loss", "1.1", "0.1", "1.21"),
        (-1.0, "stop_loss", "3.3", "0.07", "3.531"),
        (-1.0, "stop_loss", "0.29", "0.15", "0.3335"),
        (-1.0, "take_profit", "1.01", "0.05", "0.9595"),
        (-1.0, "take_profit", "1.07", "0.07", "0.9951"),
        (-1.0, "take_profit", "64321.5", "0.02", "63035.07"),
    ],
)
def test_a_level_that_is_touched_exactly_triggers(
    weight: float, rule: str, entry: str, fraction: str, level: str
) -> None:
    (fill,) = closing_fills(bars(Decimal(entry), Decimal(level)), weight=weight, **{rule: float(fraction)})
    assert (fill.bar, fill.reason) == (2, rule)
    assert fill.price == pytest.approx(float(level), rel=1e-15)


def exact_stops() -> list[tuple[Decimal, Decimal]]:
    """Entries in cents and stops in whole percents: every level is a multiple of 0.0001."""
    return [(Decimal(cents) / 100, Decimal(share) / 100) for cents in range(101, 331, 2) for share in range(1, 21)]


@pytest.mark.parametrize("rule", ["stop_loss", "take_profit"])
def test_of_thousands_of_exact_levels_none_is_missed_and_none_triggers_a_tick_early(rule: str) -> None:
    sign = -1 if rule == "stop_loss" else 1
    rounded_away = 0
    for entry, share in exact_stops():
        level = entry * (1 + sign * share)
        assert level % TICK == 0
        in_floats = float(entry) * (1.0 + sign * float(share))
        rounded_away += in_floats < float(level) if rule == "stop_loss" else in_floats > float(level)
        changes = {rule: float(share)}
        (fill,) = closing_fills(bars(entry, level), **changes)
        assert (fill.bar, fill.price) == (2, pytest.approx(float(level), rel=1e-15)), (entry, share)
        assert not closing_fills(bars(entry, level - sign * TICK), **changes), (entry, share)
    assert rounded_away > 100  # levels that a comparison of floats misses are among them


def test_both_drivers_close_at_the_exact_level_with_the_same_bits() -> None:
    for entry, share in exact_stops()[::7]:
        rows = bars(entry, entry * (1 - share))
        broker, sizer = account(rows, stop_loss=float(share))
        broker.advance(0)
        trade(broker, sizer, Decision.buy("BTCUSDT", 1.0))
        fills = [fill for bar in range(1, 4) for fill in broker.advance(bar)]
        assert fills == closing_fills(rows, stop_loss=float(share))


def test_a_level_below_the_range_of_the_bar_fills_at_the_price_that_was_traded() -> None:
    # In float64, 1.01 * 0.95 is below 0.9595: the fill is at the low, not below it.
    (fill,) = closing_fills(bars(Decimal("1.01"), Decimal("0.9595")), stop_loss=0.05)
    assert fill.price == 0.9595


def test_the_stop_of_a_bar_that_opens_at_the_level_fills_there() -> None:
    rows = [(1.01,) * 4, (0.9595, 0.99, 0.9595, 0.97), (0.97,) * 4]
    (fill,) = closing_fills(rows, stop_loss=0.05)
    assert (fill.bar, fill.price) == (1, 0.9595)
