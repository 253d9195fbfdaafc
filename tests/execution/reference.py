"""An account kept the slow way, in plain Python and one symbol: the oracle of the compiled step."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any


def whole_lots(quantity: float, step: str) -> Decimal:
    """The quantity rounded down to whole lots, in decimal arithmetic."""
    lots = (Decimal(repr(quantity)) / Decimal(step)).to_integral_value(ROUND_FLOOR)
    return lots * Decimal(step)


@dataclass
class SlowAccount:
    """A second, plain implementation of the conventions: orders as signed quantities, filled bar by bar."""

    cash: float
    slippage: float
    fee: float
    step: str
    min_notional: float
    stop: float | None
    take: float | None
    delay: int
    at_close: bool
    quantity: float = 0.0
    average: float = 0.0
    realised: float = 0.0
    fees: float = 0.0
    equity: list[float] = field(default_factory=list)
    log: list[tuple[int, str, float, float]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)

    def trade(self, bar: int, quantity: float, price: float, why: str) -> None:
        paid = price * (1 + self.slippage) if quantity > 0 else price * (1 - self.slippage)
        if quantity > 0:
            self.average = (self.average * self.quantity + paid * quantity) / (self.quantity + quantity)
        else:
            self.realised += -quantity * (paid - self.average)
        self.quantity += quantity
        if abs(self.quantity) < float(self.step) / 2:
            self.quantity = self.average = 0.0
        self.cash -= quantity * paid + abs(quantity * paid) * self.fee
        self.fees += abs(quantity * paid) * self.fee
        self.log.append((bar, why, quantity, paid))

    def orders_fill(self, bar: int, orders: list[dict[str, Any]], price: float) -> None:
        """Sells first; buys of the same instant share the cash in proportion."""
        for order in [o for o in orders if o["quantity"] < 0]:
            self.order_fills(bar, order, price, 1.0)
        buys = [o for o in orders if o["quantity"] > 0]
        needed = sum(o["quantity"] for o in buys) * price * (1 + self.slippage) * (1 + self.fee)
        fraction = max(self.cash, 0.0) / needed if needed > self.cash else 1.0
        for order in buys:
            self.order_fills(bar, order, price, fraction)

    def order_fills(self, bar: int, order: dict[str, Any], price: float, fraction: float) -> None:
        self.orders.remove(order)
        quantity = order["quantity"]
        if quantity < 0:
            quantity = -min(-quantity, self.quantity)
        else:
            if fraction < 1.0:
                quantity = min(quantity, float(whole_lots(quantity * fraction, self.step)))
            most = max(self.cash, 0.0) / (price * (1 + self.slippage) * (1 + self.fee))
            quantity = min(quantity, float(whole_lots(most, self.step)))
        if quantity and abs(quantity) * price >= self.min_notional:
            self.trade(bar, quantity, price, "order")

    def run_bar(self, at: int, bar: dict[str, float], traded: bool) -> None:
        if traded:
            ready = [o for o in self.orders if o["due"] < at or (o["due"] == at and not self.at_close)]
            self.orders_fill(at, ready, bar["open"])
            if self.quantity > 0:
                if self.stop and bar["low"] <= self.average * (1 - self.stop):
                    self.closes(at, min(bar["open"], self.average * (1 - self.stop)), "stop_loss")
                elif self.take and bar["high"] >= self.average * (1 + self.take):
                    self.closes(at, max(bar["open"], self.average * (1 + self.take)), "take_profit")
            self.close_fills(at, bar)
        self.equity.append(self.cash + self.quantity * bar["close"])

    def closes(self, at: int, price: float, why: str) -> None:
        """Sell everything; what waits to sell has that much less to do."""
        sold = self.quantity
        self.trade(at, -sold, price, why)
        for order in [o for o in self.orders if o["quantity"] < 0]:
            done = min(-order["quantity"], sold)
            order["quantity"] += done
            sold -= done
            if order["quantity"] > -float(self.step) / 2:
                self.orders.remove(order)

    def close_fills(self, at: int, bar: dict[str, float]) -> None:
        if not self.at_close:
            return
        self.orders_fill(at, [order for order in self.orders if order["due"] == at], bar["close"])

    def decide(self, at: int, bar: dict[str, float], fraction: float) -> None:
        """Spend `fraction` of the cash, or sell -fraction of the position, at the close of the bar."""
        if fraction > 0:
            wanted = fraction * max(self.cash, 0.0) / (bar["close"] * (1 + self.slippage) * (1 + self.fee))
            quantity = float(whole_lots(wanted, self.step))
        elif fraction == -1:
            quantity = -self.quantity
        else:
            quantity = -float(whole_lots(-fraction * self.quantity, self.step))
        if abs(quantity) * bar["close"] >= self.min_notional and quantity:
            self.orders.append({"quantity": quantity, "due": at + self.delay})
        self.close_fills(at, bar)
        self.equity[-1] = self.cash + self.quantity * bar["close"]
