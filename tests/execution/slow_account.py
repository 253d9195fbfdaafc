"""An account of several symbols in plain, slow Python: the oracle of sizing, limits and the accounting step.

An order has two parts, what it closes of a position and what it opens; every rule is about one of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from random_accounts import CASH, INTERVAL, Case

DAY = 86_400_000_000


def parts(lots: int, held: int) -> tuple[int, int]:
    """What an order closes of a position of `held` lots, and what it opens; both signed like the order."""
    if lots * held >= 0:
        return 0, lots
    closes = min(abs(lots), abs(held)) * (1 if lots > 0 else -1)
    return closes, lots - closes


def towards_zero(lots: int, fraction: float) -> int:
    return math.floor(abs(lots) * fraction) * (1 if lots > 0 else -1)


@dataclass
class Waiting:
    """One order in its slot."""

    lots: int
    due: int
    at_close: bool
    forced: str = ""


@dataclass
class Holding:
    """One symbol of the account; `slots` are the places in which its orders wait."""

    slots: list[Waiting | None]
    short: bool
    lots: int = 0
    average: float = 0.0
    last_target: float = math.nan

    @property
    def coming(self) -> int:
        """The position once all orders have filled; without shorts at least 0."""
        lots = self.lots + sum(order.lots for order in self.slots if order)
        return lots if self.short else max(lots, 0)


@dataclass
class SlowSimulation:
    """A simulation of one account over one case."""

    case: Case
    cash: float = CASH
    realised: float = 0.0
    fees: float = 0.0
    funding: float = 0.0
    peak: float = CASH
    halted: str | None = None
    equity: dict[int, float] = field(default_factory=dict)
    log: list[tuple[int, str, str, int, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rules = self.case.rules
        self.symbols = range(len(self.case.prices.symbols))
        self.step = rules["lot_step"]
        self.at_close = rules["fill"] == "close"
        self.delay = rules["latency_bars"] + (not self.at_close)
        self.slippage = rules["slippage_bps"] / 1e4
        self.held = [Holding(slots=[None] * (self.delay + 2), short=rules["allow_short"]) for _ in self.symbols]

    def run(self) -> None:
        prices = self.case.prices
        decisions = {bar: at for at, bar in enumerate(self.case.bars.tolist())}
        for row in range(self.case.first, len(prices.times)):
            self.live(row)
            if row in decisions and not self.halted:
                self.decide(row, self.case.targets[decisions[row]].tolist())
                self.fill_due(row, prices.close[row].tolist(), closing=True)
                self.mark(row)

    # One bar.

    def live(self, row: int) -> None:
        prices = self.case.prices
        closes = prices.close[row].tolist()
        self.fill_due(row, prices.open[row].tolist(), closing=False)
        for symbol in self.symbols:
            if prices.traded[row, symbol] and self.held[symbol].lots:
                self.protect(row, symbol)
        if len(prices.funding):
            for symbol in self.symbols:
                if self.held[symbol].lots:
                    paid = self.value(symbol, closes) * float(prices.funding[row, symbol])
                    self.cash -= paid
                    self.funding += paid
        self.fill_due(row, closes, closing=True)
        for symbol in self.symbols:
            if prices.ends[symbol] == row:
                self.held[symbol].slots = [None] * (self.delay + 2)
                self.trade(row, symbol, -self.held[symbol].lots, closes[symbol], "delisted")
        self.mark(row)
        self.halt_at_limits(row, closes)

    def value(self, symbol: int, prices: list[float]) -> float:
        lots = self.held[symbol].lots
        return lots * self.step * prices[symbol] if lots else 0.0

    def mark(self, row: int) -> None:
        closes = self.case.prices.close[row].tolist()
        self.equity[row] = self.cash + sum(self.value(symbol, closes) for symbol in self.symbols)
        self.peak = max(self.peak, self.equity[row])

    def halt_at_limits(self, row: int, closes: list[float]) -> None:
        rules = self.case.rules
        if self.halted:
            return
        if rules["margin"] and self.equity[row] <= 0:
            self.halted = "used_up"
        elif rules["max_drawdown"] and self.equity[row] < self.peak * (1 - rules["max_drawdown"]):
            self.halted = "drawdown"
        else:
            return
        for symbol in self.symbols:
            held = self.held[symbol]
            held.slots = [None] * (self.delay + 2)
            if self.case.prices.traded[row, symbol]:
                self.trade(row, symbol, -held.lots, closes[symbol], self.halted)
            elif held.lots:
                held.slots[0] = Waiting(lots=-held.lots, due=row, at_close=True, forced=self.halted)
        self.mark(row)

    def protect(self, row: int, symbol: int) -> None:
        prices, rules, held = self.case.prices, self.case.rules, self.held[symbol]
        opened, high, low = (float(prices[row, symbol]) for prices in (prices.open, prices.high, prices.low))
        long = held.lots > 0
        for rule, against in (("stop_loss", True), ("take_profit", False)):
            if rules[rule] is None:
                continue
            below = long == against
            level = held.average * (1 - rules[rule] if below else 1 + rules[rule])
            extreme = low if below else high
            exact = math.isclose(extreme, level, rel_tol=1e-12)
            if exact or ((low < level) if below else (high > level)):
                price = min(opened, level) if below else max(opened, level)
                closing = -held.lots
                self.trade(row, symbol, closing, price, rule)
                for slot, order in enumerate(held.slots):
                    if order and order.lots * closing > 0:
                        done = min(abs(order.lots), abs(closing)) * (1 if closing > 0 else -1)
                        order.lots -= done
                        closing -= done
                        held.slots[slot] = order if order.lots else None
                return

    # Fills.

    def fill_due(self, row: int, prices: list[float], *, closing: bool) -> None:
        """Orders that only close fill first; those that open are scaled to the cash or leverage."""
        due = [
            (symbol, slot, order)
            for symbol in self.symbols
            for slot, order in enumerate(self.held[symbol].slots)
            if order and self.case.prices.traded[row, symbol] and self.is_due(order, row, closing)
        ]
        later = []
        for symbol, slot, order in due:
            lots = self.allowed(symbol, order.lots)
            if parts(lots, self.held[symbol].lots)[1]:
                later.append((symbol, slot, order))
            else:
                self.fill(row, symbol, slot, order, lots, prices[symbol])
        scale = self.opening_scale(later, prices)
        for symbol, slot, order in later:
            lots = self.allowed(symbol, order.lots)
            closes, opens = parts(lots, self.held[symbol].lots)
            if scale < 1:
                opens = self.whole_lots(abs(opens) * self.step * scale) * (1 if opens > 0 else -1)
            self.fill(row, symbol, slot, order, closes + opens, prices[symbol])

    def is_due(self, order: Waiting, row: int, closing: bool) -> bool:
        if closing:
            return order.at_close and order.due == row
        return order.due < row or (order.due == row and not order.at_close)

    def allowed(self, symbol: int, lots: int) -> int:
        return lots if self.case.rules["allow_short"] or lots > 0 else -min(-lots, self.held[symbol].lots)

    def opening_scale(self, due: list[tuple[int, int, Waiting]], prices: list[float]) -> float:
        rules = self.case.rules
        opens, closes, costs = 0.0, 0.0, 0.0
        before = [held.lots for held in self.held]
        for symbol, _, order in due:
            closed, opened = parts(order.lots, before[symbol])
            before[symbol] += order.lots
            # One that only closes by then needs nothing.
            if opened:
                opens += abs(opened) * self.step * prices[symbol]
                closes += abs(closed) * self.step * prices[symbol]
                traded = abs(order.lots) * self.step * prices[symbol]
                costs += traded * self.slippage + traded * (1 + self.slippage) * rules["fee_rate"]
        if not opens:
            return 1.0
        if not rules["margin"]:
            return min(1.0, max(self.cash, 0.0) / (opens + costs))
        values = [self.value(symbol, prices) for symbol in self.symbols]
        room = rules["max_leverage"] * (self.cash + sum(values) - costs) - (sum(map(abs, values)) - closes)
        return min(1.0, max(room, 0.0) / opens)

    def fill(self, row: int, symbol: int, slot: int, order: Waiting, lots: int, price: float) -> None:
        rules = self.case.rules
        self.held[symbol].slots[slot] = None
        if not rules["margin"] and lots > 0:
            each = price * (1 + self.slippage) * (1 + rules["fee_rate"])
            lots = min(lots, self.whole_lots(max(self.cash, 0.0) / each))
            while lots > 0 and lots * self.step * each > self.cash * (1 + 1e-15):
                lots -= 1
        if order.forced or (lots and not self.small(lots, price, self.held[symbol].lots)):
            self.trade(row, symbol, lots, price, order.forced or "order")

    def trade(self, row: int, symbol: int, lots: int, reference: float, why: str) -> None:
        if not lots:
            return
        held = self.held[symbol]
        price = reference * (1 + self.slippage if lots > 0 else 1 - self.slippage)
        closes, opens = parts(lots, held.lots)
        realised = -closes * self.step * (price - held.average)
        kept = held.lots + closes
        if opens:
            held.average = (held.average * abs(kept) + price * abs(opens)) / (abs(kept) + abs(opens))
        held.lots += lots
        fee = abs(lots) * self.step * price * self.case.rules["fee_rate"]
        self.cash -= lots * self.step * price + fee
        self.realised += realised
        self.fees += fee
        self.log.append((row, self.case.prices.symbols[symbol], why, lots, price, fee, realised))

    def small(self, lots: int, price: float, held: int) -> bool:
        rules = self.case.rules
        quantity = abs(lots) * self.step
        if quantity < rules["min_quantity"] * (1 - 1e-9):
            return True
        # A perpetual position may always be made smaller.
        reduces = abs(held + lots) < abs(held) and (held + lots) * held >= 0
        return quantity * price < rules["min_notional"] and not (rules["margin"] and reduces)

    def whole_lots(self, quantity: float) -> int:
        lots = quantity / self.step
        return round(lots) if abs(lots - round(lots)) <= 1e-15 * lots else math.floor(lots)

    # Decisions.

    def decide(self, row: int, targets: list[float]) -> None:
        prices, limits, now = self.case.prices, self.case.limits, self.equity[row]
        closes = prices.close[row].tolist()
        closed, opened = [0 for _ in self.symbols], [0 for _ in self.symbols]
        lost = limits["max_daily_loss"] is not None and now < self.opening(row) * (1 - limits["max_daily_loss"])
        for symbol in self.symbols:
            held, close = self.held[symbol].coming, closes[symbol]
            asked = self.asked(symbol, targets[symbol], now, close)
            if not limits["allow_short"] and held + asked < 0:
                asked = -held
            shut, new = parts(asked, held)
            if not new and self.small(shut, close, held):
                shut = 0
            if new and (lost or not prices.eligible[row, symbol]):
                new = 0
                shut = 0 if self.small(shut, close, held) else shut
            if new:
                most = self.whole_lots(limits["max_position"] * now / close)
                new = min(abs(new), max(most - abs(held + shut), 0)) * (1 if new > 0 else -1)
            closed[symbol], opened[symbol] = shut, new
        worth = [0.0 if math.isnan(close) else self.step * close for close in closes]
        self.limit(closed, opened, worth, now, limits["max_gross"] * now, 0)
        self.limit(closed, opened, worth, now, limits["max_leverage"] * now, 0)
        if limits["max_net"] is not None:
            self.limit(closed, opened, worth, now, limits["max_net"] * now, 1)
            self.limit(closed, opened, worth, now, limits["max_net"] * now, -1)
        orders = [shut + new for shut, new in zip(closed, opened, strict=True)]
        if limits["max_turnover"] is not None:
            traded = sum(abs(lots) * each for lots, each in zip(orders, worth, strict=True))
            most = 2 * limits["max_turnover"] * now
            if traded > most * (1 + 1e-9):
                orders = [towards_zero(lots, most / traded) for lots in orders]
        for symbol, lots in enumerate(orders):
            if lots and not self.small(lots, closes[symbol], self.held[symbol].coming):
                self.wait(symbol, lots, row)

    def opening(self, row: int) -> float:
        """The equity at the last close of the UTC day before."""
        midnight = (int(self.case.prices.times[row]) - 1) // DAY * DAY
        return self.equity.get(midnight // INTERVAL - 1, CASH)

    def asked(self, symbol: int, target: float, now: float, close: float) -> int:
        held = self.held[symbol]
        if math.isnan(target) or (self.case.on_change and target == held.last_target):
            return 0
        held.last_target = target
        if target == 0:
            return -held.coming
        if math.isnan(close):
            return 0
        weight = held.coming * self.step * close / now
        if held.coming and abs(target - weight) <= self.case.limits["no_trade_band"]:
            return 0
        return self.whole_lots(abs(target) * now / close) * (1 if target > 0 else -1) - held.coming

    def limit(
        self, closed: list[int], opened: list[int], worth: list[float], now: float, most: float, side: int
    ) -> None:
        """Scale what is opened until the absolute values, or with a side the net value on it, sum to `most`."""
        after = [self.held[s].coming + closed[s] + opened[s] for s in self.symbols]
        counted = [s for s in self.symbols if opened[s] and (not side or opened[s] * side > 0)]
        total = sum((side * after[s] if side else abs(after[s])) * worth[s] for s in self.symbols)
        added = sum(abs(opened[s]) * worth[s] for s in counted)
        if added and total - most > 1e-9 * now:
            for s in counted:
                opened[s] = towards_zero(opened[s], max(0.0, 1 - (total - most) / added))

    def wait(self, symbol: int, lots: int, row: int) -> None:
        slots = self.held[symbol].slots
        order = Waiting(lots=lots, due=row + self.delay, at_close=self.at_close)
        if None in slots:
            slots[slots.index(None)] = order
            return
        # No slot is free: the order is added to the one that waits longest.
        oldest = min((each for each in slots if each), key=lambda each: each.due)
        oldest.lots += lots
        if not oldest.lots:
            slots[slots.index(oldest)] = None


def fill_rows(fills: list[Any], case: Case) -> list[tuple[int, str, str, int, float, float, float]]:
    """The fills of the compiled account, in the form of the slow one."""
    step = case.rules["lot_step"]
    return [
        (fill.bar, fill.symbol, fill.reason, round(fill.quantity / step), fill.price, fill.fee, fill.realised_pnl)
        for fill in fills
    ]
