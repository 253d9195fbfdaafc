"""Holdings computed from fills equal the account itself at every bar, and plain loops."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import polars as pl
import pytest
from trade import trade

from agent_bt.config.model import ExecutionConfig
from agent_bt.core.clock import HOUR, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import Decision, Fill
from agent_bt.engine.market import Market
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.records.holdings import Holdings, compute_holdings, summarise_holdings
from agent_bt.records.tables import compute_benchmark_price, fills_frame

T0, ROWS, CASH = time_us("2024-07-01"), 300, 50_000.0
LISTED = {"A": (0, ROWS), "B": (60, ROWS), "C": (0, 200), "D": (0, ROWS), "E": (0, ROWS)}
"""First bar and end of each symbol: B is listed late, C is delisted, D has gaps."""


def make_market(seed: int, *, funded: bool = True) -> Market:
    tables = []
    for number, (symbol, (first, end)) in enumerate(LISTED.items()):
        draw = np.random.default_rng([seed, number])
        close = np.round(10.0 * 3**number * np.exp(np.cumsum(draw.normal(0, 0.01, ROWS))), 3)
        # Some bars open and close at the same price: there the price does not determine when a fill happened.
        opens = np.where(draw.random(ROWS) < 0.2, close, np.concatenate([close[:1], close[:-1]]))
        opened = T0 + HOUR * np.arange(ROWS)
        volume = np.where(draw.random(ROWS) < 0.1, 0.0, 5.0)
        volume[end - 1] = 5.0
        rate = np.where((opened + HOUR) // HOUR % 8 == 0, np.round(draw.normal(1e-4, 5e-4, ROWS), 8), 0.0)
        table = pl.DataFrame(
            {
                "symbol": symbol, "open_time": opened, "close_time": opened + HOUR, "open": opens,
                "high": np.maximum(opens, close) * 1.004, "low": np.minimum(opens, close) * 0.996, "close": close,
                "volume": volume, "quote_asset_volume": volume * close, "trades": 3, "taker_base": 1.0,
                "taker_quote": 1.0, "filled": False, "funding_rate": rate,
            }
        ).cast(dict(BAR_SCHEMA))  # fmt: skip
        there = (np.arange(ROWS) >= first) & (np.arange(ROWS) < end)
        if symbol == "D":
            there &= (np.arange(ROWS) % 70) > 5
        tables.append(table.filter(pl.Series(there)))
    bars = pl.concat(tables)
    if not funded:
        bars = bars.drop("funding_rate")
    return Market(
        symbols=tuple(LISTED), bars=bars, interval=HOUR, start=T0 + 10 * HOUR, features=np.empty((len(bars), 0)),
        feature_names=(), lookback=1,
    )  # fmt: skip


class Account:
    """An account with random trades, long and short, and everything that can close a position."""

    def __init__(self, seed: int, execution: ExecutionConfig, *, times: float = 1.0, **risk: Any) -> None:
        self.market = make_market(seed)
        self.execution = execution
        given = {"stop_loss": 0.05, "take_profit": 0.06, "max_drawdown": None, "max_leverage": 3.0 * times, **risk}
        rules = make_rules(
            **execution.model_dump(exclude={"no_trade_band", "funding"}), **given, allow_short=True, margin=True
        )
        limits = make_limits(max_position=times, max_gross=2.0 * times, no_trade_band=0.0, allow_short=True)
        self.broker = SimulatedBroker(prices=self.market, rules=rules, cash=CASH, first=self.market.first)
        sizer = RiskLimitedSizer(symbols=self.market.symbols, rules=rules, limits=limits)
        draw = np.random.default_rng(seed)
        self.fills: list[Fill] = []
        self.decisions: list[int] = []
        self.held: list[dict[str, float]] = []
        for bar in np.arange(self.market.first + 2, ROWS, int(draw.integers(1, 9))).tolist():
            self.fills += self.broker.advance(bar)
            if self.broker.halted:
                break
            named = [symbol for symbol in LISTED if draw.random() < 0.4]
            wanted = {symbol: times * float(draw.choice([-0.4, -0.2, 0.0, 0.3, 0.5])) for symbol in named}
            self.fills += trade(self.broker, sizer, Decision.to(wanted))
            self.decisions.append(bar)
            self.held.append({s: held.quantity for s, held in self.broker.portfolio().positions.items()})
        self.fills += self.broker.advance(ROWS - 1)
        self.equity = self.broker.equity[self.market.first :]

    def compute(self) -> Holdings:
        return compute_holdings(
            market=self.market, fills=fills_frame(self.fills), equity=self.equity, decisions=np.array(self.decisions),
            execution=self.execution,
        )  # fmt: skip


EXECUTIONS = {
    "close": {},
    "next open": {"fill": "next_open"},
    "late close": {"latency_bars": 2},
    "coarse lots": {"lot_step": 0.25, "min_notional": 0},
}


@pytest.fixture(params=[(name, seed) for name in EXECUTIONS for seed in range(4)], ids=str)
def account(request: pytest.FixtureRequest) -> Account:
    name, seed = request.param
    return Account(seed, ExecutionConfig(**EXECUTIONS[name]))


def test_legs_add_up_to_the_equity_at_every_bar(account: Account) -> None:
    """total = long + short - fees - funding; funding too equals what the account was charged."""
    legs = account.compute().legs
    computed = CASH + (legs["long_pnl"] + legs["short_pnl"] - legs["fees"] - legs["funding"]).to_numpy()
    assert computed == pytest.approx(account.equity, rel=1e-9)
    assert {fill.reason for fill in account.fills} >= {"order", "stop_loss", "take_profit"}
    state = account.broker.account[0]
    assert legs["funding"][-1] == pytest.approx(state["funding"], rel=1e-9)
    assert state["funding"] != 0.0
    net = (legs["long"] + legs["short"]).to_numpy()
    assert net == pytest.approx(account.broker.exposure[account.market.first :], rel=1e-9, abs=1e-12)
    assert legs["gross"].to_numpy() == pytest.approx((legs["long"] - legs["short"]).to_numpy())
    assert (legs["long"].min(), legs["short"].max()) == (0.0, 0.0)


def test_attribution_adds_up_and_equals_plain_loops(account: Account) -> None:
    market, attribution = account.market, account.compute().attribution
    total = float(account.equity[-1]) - CASH
    assert attribution["pnl"].sum() == pytest.approx(total, rel=1e-9, abs=1e-9 * CASH)
    assert attribution["symbol"].to_list() == list(LISTED)
    for row in attribution.iter_rows(named=True):
        number = market.symbols.index(row["symbol"])
        own = [fill for fill in account.fills if fill.symbol == row["symbol"]]
        held, average, closed = 0.0, 0.0, 0
        gains = {1.0: 0.0, -1.0: 0.0}
        bars_held, after = 0, defaultdict(float)
        for fill in own:
            rest = fill.quantity
            if held * rest < 0:
                part = min(abs(rest), abs(held))
                side = 1.0 if held > 0 else -1.0
                gains[side] += side * part * (fill.price - average)
                closed += 1
                held, rest = held - side * part, rest + side * part
            if abs(rest) > 1e-9:
                average = (average * held + rest * fill.price) / (held + rest)
                held += rest
            held = 0.0 if abs(held) < 1e-9 else held
            after[fill.bar] = held
        current = 0.0
        for bar in range(market.first, ROWS):
            current = after.get(bar, current)
            bars_held += current != 0.0
        if held:
            side = 1.0 if held > 0 else -1.0
            gains[side] += held * (float(market.close[-1, number]) - average)
        assert row["long_pnl"] == pytest.approx(gains[1.0], abs=1e-6)
        assert row["short_pnl"] == pytest.approx(gains[-1.0], abs=1e-6)
        assert row["trades"] == closed
        assert row["share_of_time"] == pytest.approx(bars_held / len(account.equity))
        assert row["fees"] == pytest.approx(sum(fill.fee for fill in own))
        assert row["slippage"] == pytest.approx(sum(fill.slippage for fill in own))
        turned = sum(abs(fill.quantity * fill.price) / account.equity[fill.bar - market.first] for fill in own) / 2
        assert row["turnover"] == pytest.approx(turned)


def test_snapshots_equal_the_positions_of_the_account_after_each_decision(account: Account) -> None:
    rows = account.compute().snapshots.partition_by("bar", maintain_order=True, as_dict=True)
    assert sum(map(len, rows.values())) == sum(map(len, account.held)) > 50
    for bar, held in zip(account.decisions, account.held, strict=True):
        snapshot = rows.get((bar,))
        assert ({} if snapshot is None else dict(snapshot.select("symbol", "quantity").iter_rows())) == held
        if snapshot is not None:
            equity = account.broker.equity[bar]
            assert snapshot["share"].sum() == pytest.approx(account.broker.exposure[bar], abs=1e-9)
            assert snapshot["value"].to_numpy() == pytest.approx(snapshot["share"].to_numpy() * equity)


def test_rebalances_count_every_ordered_fill_once(account: Account) -> None:
    holdings = account.compute()
    table = holdings.rebalances
    assert table["bar"].to_list() == account.decisions
    ordered = [fill for fill in account.fills if fill.reason == "order"]
    traded = (2.0 * table["turnover"] * table["equity"]).sum()
    assert traded == pytest.approx(sum(abs(fill.quantity * fill.price) for fill in ordered))
    assert table["fees"].sum() == pytest.approx(sum(fill.fee for fill in ordered))
    assert table["positions"].to_list() == [len(held) for held in account.held]
    assert table["net"].to_numpy() == pytest.approx(account.broker.exposure[account.decisions], abs=1e-9)


def test_turnover_belongs_to_the_decision_whose_orders_filled() -> None:
    """Filled at the next open, the orders of a decision fill in the bar of the next one: they still belong to it."""
    account = Account(1, ExecutionConfig(fill="next_open"), stop_loss=None, take_profit=None)
    table = account.compute().rebalances
    first = [fill for fill in account.fills if fill.bar <= account.decisions[1]]
    assert table["turnover"][0] == pytest.approx(
        sum(abs(fill.quantity * fill.price) for fill in first) / 2 / account.broker.equity[account.decisions[0]]
    )
    assert table["gross"][0] == 0.0


def test_the_portfolio_summary_names_delisted_symbols_winners_and_losers() -> None:
    account = Account(2, ExecutionConfig())
    holdings = account.compute()
    portfolio = summarise_holdings(account.market, holdings, fills_frame(account.fills))
    assert portfolio["delisted"] == ["C"]
    assert (portfolio["symbols"], portfolio["rebalances"]) == (5, len(account.decisions))
    ranked = sorted(holdings.attribution.select("pnl", "symbol").iter_rows(), reverse=True)
    assert [one["symbol"] for one in portfolio["best"]] == [symbol for pnl, symbol in ranked if pnl > 0]
    assert [one["symbol"] for one in portfolio["worst"]] == [symbol for pnl, symbol in reversed(ranked) if pnl < 0]
    assert portfolio["long_pnl"] == pytest.approx(holdings.attribution["long_pnl"].sum())
    assert portfolio["short_pnl"] == pytest.approx(holdings.attribution["short_pnl"].sum())
    assert 0.0 < portfolio["mean_gross"] <= portfolio["max_gross"] <= 3.0


def test_an_account_that_never_trades_has_empty_tables() -> None:
    market = make_market(0, funded=False)
    equity = np.full(len(market) - market.first, CASH)
    holdings = compute_holdings(
        market=market, fills=fills_frame([]), equity=equity, decisions=np.array([20, 40]), execution=ExecutionConfig()
    )
    assert len(holdings.snapshots) == 0
    assert holdings.rebalances["turnover"].to_list() == [0.0, 0.0]
    assert holdings.attribution["pnl"].to_list() == [0.0] * 5
    assert holdings.legs.drop("time").sum().row(0) == (0.0,) * 7
    portfolio = summarise_holdings(market, holdings, fills_frame([]))
    assert (portfolio["best"], portfolio["worst"], portfolio["mean_positions"]) == ([], [], 0.0)


def test_an_account_that_is_used_up_still_adds_up() -> None:
    account = Account(3, ExecutionConfig(), times=20.0, stop_loss=None, take_profit=None)
    assert account.broker.halted_by == "used_up"
    assert account.fills[-1].reason == "used_up"
    legs = account.compute().legs
    computed = CASH + (legs["long_pnl"] + legs["short_pnl"] - legs["fees"] - legs["funding"]).to_numpy()
    assert computed == pytest.approx(account.equity, rel=1e-9, abs=1e-6)


def test_the_benchmark_price_follows_the_mean_return_of_symbols_eligible_at_the_previous_bar() -> None:
    market = make_market(5)
    price = compute_benchmark_price(market)
    level, expected = 1.0, [1.0]
    for bar in range(market.first + 1, ROWS):
        moves = [
            float(market.close[bar, n] / market.close[bar - 1, n]) - 1 for n in range(5) if market.eligible[bar - 1, n]
        ]
        level *= 1 + sum(moves) / len(moves)
        expected.append(level)
    assert price == pytest.approx(np.array(expected), rel=1e-12)
