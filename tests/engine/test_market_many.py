"""A market of several symbols: one time axis, listings, delistings, and no look-ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trade import trade

from agent_bt.core.clock import DAY, HOUR, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import Decision
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.engine.market import Market
from agent_bt.engine.vectorised import run_targets
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules

T0 = time_us("2024-07-01")
STEP = 6 * HOUR
A_DAY = DAY // STEP


def bars_of(
    rows: Mapping[str, Sequence[int]], closes: np.ndarray, quiet: Mapping[str, Sequence[int]] | None = None
) -> pl.DataFrame:
    """Bars of each symbol in the rows that it has, from closes (T, N); no volume in the `quiet` ones."""
    parts = []
    for number, (symbol, own) in enumerate(rows.items()):
        close = closes[list(own), number]
        unchanged = np.isin(own, list((quiet or {}).get(symbol, ())))
        opened = T0 + STEP * np.array(own, np.int64)
        parts.append(
            pl.DataFrame(
                {
                    "open_time": opened, "close_time": opened + STEP, "open": close * 0.99, "high": close * 1.02,
                    "low": close * 0.98, "close": close, "volume": np.where(unchanged, 0.0, 5.0 + close),
                    "quote_asset_volume": 7.0 * close, "trades": 3, "taker_base": 2.0, "taker_quote": 200.0,
                    "filled": False,
                }
            ).cast(dict(BAR_SCHEMA)).select(pl.lit(symbol).alias("symbol"), *BAR_SCHEMA.names())
        )  # fmt: skip
    return pl.concat(parts)


def market_of(bars: pl.DataFrame, symbols: Sequence[str], start: int = T0, lookback: int = 3) -> Market:
    """With one feature: ten times the close."""
    feature = 10.0 * bars["close"].to_numpy().reshape(-1, 1)
    return Market(
        symbols=symbols, bars=bars, interval=STEP, start=start, features=feature, feature_names=["tens"],
        lookback=lookback,
    )  # fmt: skip


ROWS = {"A": range(12), "B": range(3, 12), "C": (0, 1, 2, 3, 6, 7, 8, 9, 10, 11), "D": range(6)}
CLOSES = 100.0 * (1 + np.arange(4)) + np.arange(12)[:, None]


@pytest.fixture
def ragged() -> Market:
    """A in all rows; B listed at row 3; C without bars at rows 4 and 5; D with its last bar at row 5."""
    return market_of(bars_of(ROWS, CLOSES, quiet={"A": (2,)}), tuple(ROWS))


def test_the_axis_is_the_union_of_the_symbols_bars(ragged: Market) -> None:
    assert ragged.times.tolist() == [T0 + STEP * (row + 1) for row in range(12)]
    assert ragged.close.shape == (12, 4)
    there = [(row, number) for number, own in enumerate(ROWS.values()) for row in own]
    assert all(ragged.close[at] == CLOSES[at] and ragged.column("tens")[at] == 10 * CLOSES[at] for at in there)
    for array in (ragged.open, ragged.high, ragged.low, ragged.close, ragged.traded, ragged.ends, ragged.special):
        assert array.flags.c_contiguous


def test_an_axis_has_no_row_in_which_no_symbol_has_a_bar() -> None:
    market = market_of(bars_of({"A": (0, 1, 5), "B": (1, 5, 6)}, CLOSES), ("A", "B"))
    assert ((market.times - T0) // STEP).tolist() == [1, 2, 6, 7]


def test_before_its_listing_a_symbol_has_no_values_and_is_not_eligible(ragged: Market) -> None:
    assert all(np.isnan(ragged.column(name)[:3, 1]).all() for name in ragged.columns)
    assert ragged.eligible[:, 1].tolist() == [False] * 3 + [True] * 9
    assert ragged.traded[:, 1].tolist() == [False] * 3 + [True] * 9


def test_a_gap_of_a_listed_symbol_is_flat_flagged_and_without_a_trade(ragged: Market) -> None:
    for row in (4, 5):
        view = ragged.at(row)
        assert [view.latest(name, "C") for name in ("open", "high", "low", "close")] == [303.0] * 4
        assert [view.latest(name, "C") for name in ("volume", "quote_asset_volume", "trades", "taker_base")] == [0] * 4
        assert view.latest("filled", "C") == 1.0
    assert np.flatnonzero(~ragged.traded[:, 2]).tolist() == [4, 5] == np.flatnonzero(ragged.filled[:, 2]).tolist()
    assert ragged.eligible[:, 2].all()


def test_the_features_of_a_gap_do_not_depend_on_whether_the_symbol_trades_again() -> None:
    for rows in ((*range(10), 11), range(10)):
        market = market_of(bars_of({"A": range(12), "B": rows}, CLOSES), ("A", "B"))
        assert market.at(10).column("tens", "B").tolist() == [2080.0, 2090.0, 2090.0]


def test_a_bar_without_volume_is_no_trade_and_no_gap(ragged: Market) -> None:
    assert np.flatnonzero(~ragged.traded[:, 0]).tolist() == [2]
    assert not ragged.filled[:, 0].any()


def test_a_symbol_is_delisted_after_its_last_trade_if_that_is_a_day_ago(ragged: Market) -> None:
    assert ragged.ends.tolist() == [12, 12, 12, 5]
    assert ragged.special.tolist() == [5]
    assert ragged.eligible[:, 3].tolist() == [True] * 5 + [False] * 7
    assert ragged.close[6:, 3].tolist() == [405.0] * 6
    assert np.isnan(ragged.column("tens")[6:, 3]).all()
    assert not ragged.traded[6:, 3].any()


@pytest.mark.parametrize(("last", "end"), [(11 - A_DAY, 11 - A_DAY), (12 - A_DAY, 12)])
@pytest.mark.parametrize("tail", ["no bars", "bars without volume"])
def test_the_day_is_counted_from_the_last_trade_whatever_follows_it(last: int, end: int, tail: str) -> None:
    rows = {"A": range(12), "B": range(last + 1 if tail == "no bars" else 12)}
    quiet = {"B": range(last + 1, 12)}
    assert market_of(bars_of(rows, CLOSES, quiet), ("A", "B")).ends.tolist() == [12, end]


def test_settlements_are_placed_on_the_axis_and_make_their_rows_special() -> None:
    bars = bars_of(ROWS, CLOSES)
    rate = pl.when(pl.col("close_time").to_physical() % DAY == 0).then(pl.col("close") / 1e6)
    market = market_of(bars.with_columns(rate.alias("funding_rate")), tuple(ROWS))
    assert market.special.tolist() == [3, 5, 7, 11]
    assert market.funding[3].tolist() == pytest.approx([103e-6, 203e-6, 303e-6, 403e-6])
    assert market.funding[7].tolist() == pytest.approx([107e-6, 207e-6, 307e-6, 0.0])
    assert not market.funding[[0, 1, 2, 4, 5, 6, 8, 9, 10]].any()
    assert market_of(bars, tuple(ROWS)).funding.shape == (0, 4)


def test_a_pool_only_removes_eligibility(ragged: Market) -> None:
    pool = np.ones((12, 4), bool)
    pool[:, 0] = False
    ragged.restrict(pool)
    assert ragged.at(4).eligible.tolist() == [False, True, True, True]
    assert ragged.at(2).eligible.tolist() == [False, False, True, True]
    assert ragged.at(4).eligibility().tolist() == ragged.eligible[2:5].tolist()


def test_the_head_of_a_market_is_the_same_market_ended_earlier(ragged: Market) -> None:
    head = ragged.head(8)
    assert len(head) == 8
    for name in ("times", "open", "high", "low", "close", "traded", "filled", "eligible"):
        assert np.array_equal(getattr(head, name), getattr(ragged, name)[:8], equal_nan=name not in ("traded", "times"))
    assert (head.ends < 8).tolist() == [False, False, False, True]
    assert head.bars["close_time"].to_physical().max() == head.times[-1]
    assert same_view(head, ragged, 7)
    assert len(ragged) == 12


def test_a_symbol_is_the_same_in_a_market_of_its_own_and_among_others() -> None:
    bars = bars_of(ROWS, CLOSES, quiet={"A": (2, 5)})
    single = market_of(bars.filter(symbol="A"), ("A",))
    joint = market_of(bars, tuple(ROWS))
    for name in (*BAR_COLUMNS, "tens"):
        assert np.array_equal(single.column(name)[:, 0], joint.column(name)[:, 0])
    for name in ("traded", "filled", "eligible"):
        assert np.array_equal(getattr(single, name)[:, 0], getattr(joint, name)[:, 0])
    assert single.ends.tolist() == [12]
    assert single.first == joint.first == 0
    assert single.ready == joint.ready


def same_view(one: Market, other: Market, bar: int) -> bool:
    a, b = one.at(bar), other.at(bar)
    assert (a.now, a.symbols, a.columns) == (b.now, b.symbols, b.columns)
    return (
        np.array_equal(a.times, b.times)
        and np.array_equal(a.eligibility(), b.eligibility())
        and all(np.array_equal(a.table(name), b.table(name), equal_nan=True) for name in a.columns)
    )


def random_panel(rng: np.random.Generator, rows: int = 24) -> tuple[dict[str, list[int]], np.ndarray, dict[str, Any]]:
    """Rows of four symbols with late listings, gaps and ends; their closes; rows without volume."""
    own: dict[str, list[int]] = {"A": list(range(rows))}
    for symbol in "BCD":
        first = int(rng.integers(0, rows // 2))
        last = int(rng.integers(first + 1, rows)) if rng.random() < 0.5 else rows - 1
        kept = [row for row in range(first, last + 1) if rng.random() < 0.8]
        own[symbol] = sorted({first, last, *kept})
    quiet = {symbol: [row for row in each if rng.random() < 0.15] for symbol, each in own.items()}
    return own, 100.0 * np.exp(0.1 * rng.normal(size=(rows, 4))), quiet


@given(seed=st.integers(0, 2**32), bar=st.integers(0, 22))
@settings(max_examples=60)
def test_later_bars_do_not_change_a_view(seed: int, bar: int) -> None:
    check_look_ahead(seed, bar)


@pytest.mark.verify
def test_later_bars_do_not_change_a_view_in_thousands_of_markets() -> None:
    for seed in range(4_000):
        check_look_ahead(seed, seed % 23)


def check_look_ahead(seed: int, bar: int) -> None:
    """Change prices, gaps and volumes after the bar; only whether a symbol trades again is kept."""
    rng = np.random.default_rng(seed)
    rows, closes, quiet = random_panel(rng)
    later, _, unchanged = random_panel(rng)
    changed = closes.copy()
    changed[bar + 1 :] *= np.exp(rng.normal(size=changed[bar + 1 :].shape))
    for symbol, own in rows.items():
        trades = [row for row in own if row not in quiet[symbol]]
        goes_on = bool(trades) and trades[-1] > bar
        ahead = {row for row in later[symbol] if row > bar} | ({23} if symbol == "A" else set())
        listed = own[0] <= bar
        if goes_on:
            ahead.add(int(rng.integers(bar + 1, 24)))
        rest = unchanged[symbol] if goes_on or not trades or not listed else list(range(24))
        later[symbol] = [row for row in own if row <= bar] + sorted(ahead)
        unchanged[symbol] = [row for row in quiet[symbol] if row <= bar] + [row for row in rest if row > bar]
        if goes_on:
            unchanged[symbol] = [row for row in unchanged[symbol] if row <= bar or row != max(ahead)]
        if not later[symbol]:
            later[symbol], unchanged[symbol] = [23], []
    before = market_of(bars_of(rows, closes, quiet), tuple(rows))
    after = market_of(bars_of(later, changed, unchanged), tuple(rows))
    assert before.times[: bar + 1].tolist() == after.times[: bar + 1].tolist()
    assert same_view(before, after, bar)


@given(seed=st.integers(0, 2**32), head=st.booleans())
@settings(max_examples=25)
def test_both_drivers_run_a_market_to_the_same_bits(seed: int, head: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, closes, quiet = random_panel(rng)
    bars = bars_of(rows, closes, quiet).with_columns(funding_rate=pl.col("close") / 1e5 - 1e-3)
    market = market_of(bars, tuple(rows), start=T0 + 2 * STEP)
    market = market.head(17) if head else market
    rules = make_rules(
        fill="close", latency_bars=0, slippage_bps=5.0, fee_rate=0.001, lot_step=0.001, min_quantity=0.0,
        min_notional=5.0, stop_loss=0.1, take_profit=None, max_drawdown=None, allow_short=True, margin=True,
        max_leverage=2.0,
    )  # fmt: skip
    limits = make_limits(max_position=1.0, max_gross=2.0, no_trade_band=0.0, allow_short=True, max_daily_loss=0.05)
    decisions = np.arange(market.first, len(market))
    targets = np.round(rng.uniform(-0.6, 0.6, (len(decisions), 4)), 2)
    slow, fast = (SimulatedBroker(prices=market, rules=rules, cash=10_000.0, first=market.first) for _ in range(2))
    sizer, fills = RiskLimitedSizer(symbols=market.symbols, rules=rules, limits=limits), []
    for at, row in enumerate(decisions.tolist()):
        fills += slow.advance(row)
        if not slow.halted:
            wanted = dict(zip(market.symbols, targets[at].tolist(), strict=True))
            fills += trade(slow, sizer, Decision.to(wanted))
    assert run_targets(broker=fast, limits=limits, bars=decisions, targets=targets) == fills
    assert fast.equity.tobytes() == slow.equity.tobytes()
    assert fast.positions.tobytes() == slow.positions.tobytes()
    assert len(fills) > 0
    gone = np.flatnonzero(market.ends < len(market))
    assert not fast.positions["lots"][gone].any()
