"""Random markets of a few symbols, and random accounts on them: everything that can happen to an account, in few rows.

Everything follows from one seed, so that a failing case is named by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent_bt.core.types import Decision, Fill, RiskCut
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules

INTERVAL = 2 * 3_600_000_000
CASH = 10_000.0


@dataclass
class PriceArrays:
    """What a broker reads; see `core.accounting`."""

    symbols: Sequence[str]
    times: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    traded: np.ndarray
    eligible: np.ndarray
    funding: np.ndarray
    ends: np.ndarray
    special: np.ndarray


def make_prices(
    candles: np.ndarray,
    traded: np.ndarray | None = None,
    funding: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    eligible: np.ndarray | None = None,
) -> PriceArrays:
    """Prices from candles, float64 (T, N, 4), NaN before a listing; `ends`: the last row of each symbol, T for none."""
    rows, symbols = candles.shape[:2]
    opens, highs, lows, closes = (np.ascontiguousarray(candles[:, :, at]) for at in range(4))
    listed = ~np.isnan(closes)
    ends = np.full(symbols, rows, np.int64) if ends is None else np.asarray(ends, np.int64)
    funding = np.empty((0, symbols)) if funding is None else np.ascontiguousarray(funding)
    tradable = listed & (np.arange(rows)[:, None] < ends)
    return PriceArrays(
        symbols=tuple(f"S{at}" for at in range(symbols)),
        times=(np.arange(rows, dtype=np.int64) + 1) * INTERVAL,
        open=opens, high=highs, low=lows, close=closes,
        traded=listed & (np.arange(rows)[:, None] <= ends) & (True if traded is None else traded),
        eligible=tradable if eligible is None else tradable & eligible,
        funding=funding,
        ends=ends,
        special=np.union1d(ends[ends < rows], np.flatnonzero(funding.any(axis=1))).astype(np.int64),
    )  # fmt: skip


def random_prices(rng: np.random.Generator, symbols: int, rows: int, *, perpetual: bool) -> PriceArrays:
    """Jumpy prices; bars without a trade, late listings, symbols that are delisted or leave the pool, settlements."""
    candles = np.empty((rows, symbols, 4))
    traded = rng.random((rows, symbols)) > rng.choice([0.0, 0.1, 0.4])
    ends = np.full(symbols, rows)
    for symbol in range(symbols):
        listed = 0 if symbol == 0 or rng.random() < 0.6 else int(rng.integers(1, rows))
        if rng.random() < 0.4 and listed + 2 < rows:
            ends[symbol] = rng.integers(listed + 1, rows - 1)
            traded[ends[symbol], symbol] = True
        price, spread = 10.0 ** rng.uniform(-1, 4), rng.choice([0.005, 0.03, 0.12])
        for row in range(rows):
            if row < listed:
                candles[row, symbol] = np.nan
            elif row > ends[symbol] or not traded[row, symbol]:
                candles[row, symbol] = price
            else:
                opened = price * (1.0 + spread / 3 * rng.normal())
                opened = max(opened, 0.3 * price)
                closed = opened * max(1.0 + spread * rng.normal(), 0.3)
                high = max(opened, closed) * (1.0 + spread * rng.random())
                low = min(opened, closed) * (1.0 - spread * rng.random())
                candles[row, symbol] = (opened, high, low, closed)
                price = closed
    funding = None
    if perpetual and rng.random() < 0.7:
        settled = (rng.random((rows, symbols)) < 0.3) & ~np.isnan(candles[:, :, 3])
        funding = np.where(settled, 0.004 * rng.normal(size=(rows, symbols)), 0.0)
    eligible = rng.random((rows, symbols)) < rng.choice([0.8, 1.0])
    return make_prices(candles, traded, funding, ends, eligible)


@dataclass
class Case:
    """One account on one market, and its `targets` (D, N) at the rows `bars` (D,)."""

    prices: PriceArrays
    rules: dict[str, Any]
    limits: dict[str, Any]
    bars: np.ndarray
    targets: np.ndarray
    on_change: bool
    first: int = 0

    def broker(self) -> SimulatedBroker:
        return SimulatedBroker(prices=self.prices, rules=make_rules(**self.rules), cash=CASH, first=self.first)

    def limit_records(self) -> np.ndarray:
        return make_limits(**self.limits)

    def decision(self, at: int) -> Decision:
        wanted = {
            symbol: float(weight)
            for symbol, weight in zip(self.prices.symbols, self.targets[at], strict=True)
            if not np.isnan(weight)
        }
        return Decision.to(wanted, on_change=self.on_change)


def random_case(seed: int, *, symbols: int | None = None, rows: int | None = None, **fixed: Any) -> Case:
    """A case with every rule and limit switched on or off at random; `fixed` rules and limits override."""
    rng = np.random.default_rng(seed)
    margin = bool(fixed.get("margin", rng.random() < 0.5))
    short = margin and rng.random() < 0.8
    rows = rows or int(rng.integers(5, 70))
    count = symbols or int(rng.integers(1, 5))
    prices = random_prices(rng, count, rows, perpetual=margin)

    def some(*values: Any, off: Any = None, chance: float = 0.3) -> Any:
        return values[rng.integers(len(values))] if rng.random() < chance else off

    leverage = float(rng.choice([1.0, 2.0, 5.0])) if margin else 1.0
    rules = {
        "fill": some("next_open", off="close"), "latency_bars": some(1, 2, 4, off=0),
        "slippage_bps": some(5.0, 40.0, off=0.0, chance=0.7), "fee_rate": some(0.001, 0.01, off=0.0, chance=0.7),
        "lot_step": [0.00001, 0.001, 0.01][rng.integers(3)], "min_quantity": some(0.002, off=0.0),
        "min_notional": some(5.0, 300.0, off=0.0), "stop_loss": some(0.03, 0.15), "take_profit": some(0.04, 0.2),
        "max_drawdown": some(0.05, 0.2, 0.5), "allow_short": short, "margin": margin, "max_leverage": leverage,
    }  # fmt: skip
    limits = {
        "max_position": some(0.2, 0.5, off=leverage), "max_gross": some(0.6, 1.0, off=leverage),
        "no_trade_band": some(0.01, 0.1, off=0.0), "allow_short": short, "max_net": some(0.0, 0.3),
        "max_leverage": some(0.9 * leverage, off=leverage), "max_turnover": some(0.1, 0.4),
        "max_daily_loss": some(0.01, 0.05),
    }  # fmt: skip
    for key, value in fixed.items():
        if key in rules:
            rules[key] = value
        if key in limits:
            limits[key] = value
    every = int(rng.choice([1, 1, 3, 7]))
    bars = np.flatnonzero(prices.traded.any(axis=1))[::every].astype(np.int64)
    size = (len(bars), count)
    low = -1.3 * leverage if short else (-0.1 if rng.random() < 0.1 else 0.0)
    targets = np.round(rng.uniform(low, 1.3 * leverage, size) / (1 if rng.random() < 0.3 else count), 2)
    targets[rng.random(size) < 0.2] = 0.0
    targets[rng.random(size) < rng.choice([0.0, 0.3, 0.9])] = np.nan
    again = rng.random(len(bars)) < 0.5  # Repeat many of the targets: that is what rules and rankers do.
    for at in np.flatnonzero(again[1:]) + 1:
        targets[at] = targets[at - 1]
    return Case(
        prices=prices, rules=rules, limits=limits, bars=bars, targets=targets, on_change=bool(rng.random() < 0.5),
        first=0 if rng.random() < 0.7 or not len(bars) else int(rng.integers(0, bars[0] + 1)),
    )  # fmt: skip


@dataclass
class AccountRun:
    """The result of a run, decision by decision."""

    broker: SimulatedBroker
    fills: list[Fill] = field(default_factory=list)
    cuts: list[tuple[int, RiskCut]] = field(default_factory=list)


def run_decisions(case: Case) -> AccountRun:
    """Run a case decision by decision."""
    broker = case.broker()
    sizer = RiskLimitedSizer(symbols=case.prices.symbols, rules=broker.rules, limits=case.limit_records())
    done = AccountRun(broker=broker)
    for at, bar in enumerate(case.bars.tolist()):
        done.fills += broker.advance(bar)
        if broker.halted:
            break
        sized = sizer.size(case.decision(at), broker.state())
        done.cuts += [(bar, cut) for cut in sized.cuts]
        done.fills += broker.submit(sized.orders, sized.targets)
    done.fills += broker.advance(len(case.prices.times) - 1)
    return done
