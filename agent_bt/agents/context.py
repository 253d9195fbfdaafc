"""Inputs of a prompt template: the market up to now and the account, and nothing that could not be replayed.

Only the market, the account after its last trade, and the time a position is held are shown: no wall clock, no counter
of calls, no earlier reply. So an account that is flat again gets the same prompts as one that never traded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent_bt.agents.reply import plain_sizes
from agent_bt.agents.tables import DAY_STYLES, last_row, table
from agent_bt.core.clock import DAY, HOUR, MINUTE, SECOND, to_datetime
from agent_bt.core.types import DaySummary, Portfolio, Sizing
from agent_bt.core.view import BAR_COLUMNS, MarketView


def prompt_context(
    view: MarketView,
    portfolio: Portfolio,
    *,
    window: int,
    every: int,
    symbol: str | None = None,
    sizing: Sizing = "available",
    sizes: Sequence[float] = (),
) -> dict[str, Any]:
    """Return the inputs of a prompt at `view.now`.

    Args:
        view: what may be seen.
        portfolio: the account before the decision.
        window: rows of the window, at most as many as the view has.
        every: time between decisions, us.
        symbol: the symbol of the decision; default: the first.
        sizing: what a reply's size is a fraction of.
        sizes: the values that a reply's size may have, each in (0, 1]; empty: any from 0 to 1.

    Returns:
        symbol: its name. interval, every: durations, such as `1m`. sizing, sizes: as given (1.0 as 1). time: the
        decision's instant (`time.hour` ..., UTC). price: the last close (quote units). window: `WindowInput`.
        features: name -> value in the last row. summary: `SummaryInput`. account: `AccountInput`.
    """
    symbol = view.symbols[0] if symbol is None else symbol
    data = view.matrix(symbol)[-window:]
    price = view.prices[symbol]
    return {
        "symbol": symbol,
        "interval": duration_text(view.interval),
        "every": duration_text(every),
        "sizing": sizing,
        "sizes": plain_sizes(sizes),
        "time": to_datetime(view.now),
        "price": price,
        "window": WindowInput(data, view.columns, price),
        "features": dict(zip(view.columns[len(BAR_COLUMNS) :], data[-1, len(BAR_COLUMNS) :].tolist(), strict=True)),
        "summary": SummaryInput(view.summary, view.now, price),
        "account": AccountInput(view, portfolio, symbol, every),
    }


class WindowInput:
    """The last bars and features, oldest first.

    Args:
        data: float64 (rows, columns).
        columns: names of the data's columns.
        price: the last close (quote units), which prices are relative to.

    Attributes:
        rows: how many there are.
    """

    __slots__ = ("_columns", "_data", "_price", "rows")

    def __init__(self, data: np.ndarray, columns: Sequence[str], price: float) -> None:
        self._data, self._columns, self._price = data, columns, price
        self.rows = len(data)

    def table(self, *columns: str) -> str:
        """Return header and rows of these columns (see `agents.tables`)."""
        return table(self._data, self._columns, columns, self._price)

    def last(self, *columns: str) -> str:
        """Return the last row of these columns in one line: `rsi 47.2, atr 5.85`."""
        return last_row(self._data, self._columns, columns, self._price)

    def column(self, name: str) -> list[float]:
        """Return the plain numbers of one column, oldest first."""
        values: list[float] = self._data[:, self._columns.index(name)].tolist()
        return values


class SummaryInput:
    """The 7-day summary, oldest day first.

    Args:
        days: complete days, oldest first.
        now: the instant of the decision, UTC us.
        price: the last close (quote units).

    Attributes:
        days: how many complete days there are, 0 to 7.
        high, low: of those days (quote units); None without days.
        place: position of the price between low (0) and high (100), whole per cent, outside of it after a break-out;
            None without days or range.
    """

    __slots__ = ("_days", "_now", "_price", "days", "high", "low", "place")

    def __init__(self, days: Sequence[DaySummary], now: int, price: float) -> None:
        self._days, self._now, self._price = days, now, price
        self.days = len(days)
        self.high = max((day.high for day in days), default=None)
        self.low = min((day.low for day in days), default=None)
        self.place: int | None = None
        if self.high is not None and self.low is not None and self.high > self.low:
            self.place = round(100.0 * (price - self.low) / (self.high - self.low))

    def table(self, *columns: str) -> str:
        """Return header and rows of these columns: day, open, high, low, close, volume, taker_share, filled_share."""
        rows = [
            (-((self._now - d.start) // DAY), d.open, d.high, d.low, d.close, d.volume, d.taker_share, d.filled_share)
            for d in self._days
        ]
        data = np.array(rows, dtype=np.float64).reshape(len(rows), len(DAY_STYLES))
        return table(data, tuple(DAY_STYLES), columns, self._price, day=True)


class AccountInput:
    """The account before the decision; `position` and `unrealised` are coarse, so that equal situations look equal.

    Args:
        view: the market up to now.
        portfolio: the account before the decision.
        symbol: the symbol of the decision.
        every: time between decisions, us.

    Attributes:
        position: weight of the symbol in the equity, whole per cent.
        unrealised: gain or loss of the price since the average entry, whole per cent; 0 when flat.
        held, bars_held: decisions and bars since the position was opened; 0 when flat.
        cash, equity, realised_pnl, fees: quote units; quantity: base units; average_price: quote units, 0 when flat.
    """

    __slots__ = (
        "average_price",
        "bars_held",
        "cash",
        "equity",
        "fees",
        "held",
        "position",
        "quantity",
        "realised_pnl",
        "unrealised",
    )

    def __init__(self, view: MarketView, portfolio: Portfolio, symbol: str, every: int) -> None:
        self.cash, self.equity = portfolio.cash, portfolio.equity(view.prices)
        self.realised_pnl, self.fees = portfolio.realised_pnl, portfolio.fees
        self.position = self.unrealised = self.held = self.bars_held = 0
        self.quantity = self.average_price = 0.0
        position = portfolio.positions.get(symbol)
        if position is not None:
            price, sign = view.prices[symbol], 1.0 if position.quantity > 0 else -1.0
            self.quantity, self.average_price = position.quantity, position.average_price
            self.position = round(100.0 * position.quantity * price / self.equity)
            self.unrealised = round(100.0 * sign * (price / position.average_price - 1.0))
            self.held = (view.now - position.opened) // every
            self.bars_held = (view.now - position.opened) // view.interval


def duration_text(us: int) -> str:
    """Return a duration in its largest whole unit: `90m`, `1h`."""
    unit, name = next(
        (u, n) for u, n in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"), (1, "us")) if us % u == 0
    )
    return f"{us // unit}{name}"
