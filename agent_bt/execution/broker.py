"""The simulated broker: an account in arrays, run by the compiled accounting step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from agent_bt.core import accounting, records
from agent_bt.core.account_state import AccountState
from agent_bt.core.array_pointers import array_pointers
from agent_bt.core.clock import DAY
from agent_bt.core.types import Fill, Order, Portfolio, Position


class PriceArrays(Protocol):
    """The market as the broker needs it; the other arrays are those of `core.accounting`.

    Attributes:
        times: close times, int64 (T,), UTC us.
        eligible: bool (T, N), symbols whose position may grow.
    """

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

    @property
    def symbols(self) -> Sequence[str]:
        """The symbols, the second axis of the arrays."""
        ...


def opening_rows(times: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Return the last row of the UTC day before the one in which each of `bars` closes, int64; -1 where there is none.

    A bar that closes at midnight belongs to the day that ends there.

    Args:
        times: close times of all rows, int64 (T,), UTC us, ascending.
        bars: rows, int64.
    """
    rows: np.ndarray = np.searchsorted(times, (times[bars] - 1) // DAY * DAY, side="right") - 1
    return rows


class SimulatedBroker:
    """A simulated account on one market, from row `first` on.

    Attributes:
        first: row of the first bar of the run.
        account: `core.records.ACCOUNT`, (1,); to be read only, as are `positions`.
        positions: `core.records.POSITION`, (N,).
        equity: float64 (T,), quote units, up to the current bar; NaN where not reached.
        exposure: float64 (T,), the sum of weights, up to the current bar; NaN where not reached.
        pointers: addresses of the arrays, for compiled code (see `core.array_pointers`).
        dropped: number of orders dropped at the fill, because cash, position or a minimum size did not allow them.
    """

    def __init__(self, *, prices: PriceArrays, rules: np.ndarray, cash: float, first: int = 0) -> None:
        """Open an account.

        Args:
            prices: the market.
            rules: execution rules, as made by `execution.sizing.make_rules`.
            cash: starting cash, quote units.
            first: row of the first bar of the run.
        """
        symbols = len(prices.symbols)
        self.prices = prices
        self.first = first
        self.rules = rules
        self.account = np.zeros(1, records.ACCOUNT)
        self.account[0]["cash"] = self.account[0]["equity"] = self.account[0]["peak"] = cash
        self.positions = records.new_positions(symbols)
        self.queue = np.zeros((symbols, int(rules[0]["delay"]) + 2), records.ORDER)
        self.events = np.zeros(4 * symbols * (self.queue.shape[1] + 2), records.EVENT)
        self.equity = np.full(len(prices.times), np.nan)
        self.exposure = np.full(len(prices.times), np.nan)
        self.dropped = 0
        self._halted = records.RUNNING
        self._cash = cash
        # Cash and highest equity: positions, fees and funding change only with the one, the peak with the other.
        self._portfolio_key: list[float] = []
        self._portfolio_shown: list[float] = []
        self._portfolio: Portfolio | None = None
        self._next = first
        self._scratch: tuple[np.ndarray, np.ndarray] | None = None
        self._earlier_equity = (self.equity, len(self.equity))
        self._at = {symbol: at for at, symbol in enumerate(prices.symbols)}
        self._closes, self._eligible = _read_only(prices.close), _read_only(prices.eligible)
        self._day: int | None = None
        self._opening = cash
        self._records_changed()

    def _records_changed(self) -> None:
        """Renew the pointers and views of the records of this account."""
        self._seen = _read_only(self.account), _read_only(self.positions)
        self._targets = self.positions["target"]
        self._renew_pointers()

    def _renew_pointers(self) -> None:
        prices = self.prices
        self.pointers = array_pointers(
            *(
                prices.open,
                prices.high,
                prices.low,
                prices.close,
                prices.traded,
                prices.funding,
                prices.ends,
                prices.special,
            ),
            *(self.account, self.positions, self.queue, self.rules, self.events, self.equity, self.exposure),
        )

    def resize_events(self, size: int) -> None:
        """Make room for `size` events in the buffer; those in it are lost."""
        self.events = np.zeros(size, records.EVENT)
        self._renew_pointers()

    def equity_of(self, bar: int) -> float:
        """Return the equity at the close of an earlier row, in this account or in the one it was forked from."""
        if bar < self.first:
            return self._cash
        before, until = self._earlier_equity
        return float((before if bar < until else self.equity)[bar])

    @property
    def bar(self) -> int:
        """Row of the current bar, at whose close the account was marked last."""
        return self._next - 1

    @property
    def halted(self) -> bool:
        """Whether a limit has ended trading."""
        return self._halted != records.RUNNING

    @property
    def halted_by(self) -> str | None:
        """The limit that ended trading: `drawdown`, `used_up`, or None."""
        return (None, "drawdown", "used_up")[self._halted]

    def advance(self, bar: int) -> list[Fill]:
        """Run the market up to and including row `bar`; return what filled."""
        events, self._halted, *self._portfolio_key = accounting.advance(self.pointers, self._next, bar)
        self._next = bar + 1
        return self.take_fills() if events else []

    def state(self) -> AccountState:
        """Return the account and its market at the close of the current bar; views that cannot be written to."""
        bar = self.bar
        day = (int(self.prices.times[bar]) - 1) // DAY
        if day != self._day:
            self._day, self._opening = day, self.equity_of(int(opening_rows(self.prices.times, np.array([bar]))[0]))
        return AccountState(*self._seen, self._closes[bar], self._eligible[bar], self._opening)

    def submit(self, orders: Sequence[Order], targets: Mapping[str, float] | None = None) -> list[Fill]:
        """Accept the orders of a decision at the close of the current bar.

        Args:
            orders: what to trade.
            targets: the target weights of the decision, remembered as those given last; None for a decision without.

        Returns:
            The fills that are due at this close.
        """
        if targets:
            rows, given = [self._at[symbol] for symbol in targets], np.array(list(targets.values()), np.float64)
            last = self._targets[rows]
            # Equal targets keep their bits, as in `core.targets.remember`.
            self._targets[rows] = np.where(given == last, last, given)
        if not orders:
            return []
        symbols = np.array([self._at[order.symbol] for order in orders])
        self._portfolio_key = []
        accounting.submit(self.pointers, symbols, np.array([order.lots for order in orders]), self.bar)
        return self.take_fills()

    def pending_orders(self) -> bytes:
        """Return the orders that wait as a value to compare."""
        return self.queue.tobytes() if self.account[0]["waiting"] else b""

    def resume_at(self, bar: int) -> None:
        """Continue at row `bar`, after a compiled driver has run the market up to the row before it."""
        self._next = bar
        self._halted = int(self.account[0]["halted"])
        self._portfolio_key = []

    def portfolio(self) -> Portfolio:
        """Return the account as a strategy sees it; the same object as before where nothing has changed."""
        if self._portfolio is not None and self._portfolio_key and self._portfolio_key == self._portfolio_shown:
            return self._portfolio
        self._portfolio_shown = self._portfolio_key
        self._portfolio = self._read()
        return self._portfolio

    def _read(self) -> Portfolio:
        cash, realised, fees, _, funding, _, peak, *_ = self.account.item()
        held = {}
        for at, symbol in enumerate(self.prices.symbols):
            quantity, average, _, lots, opened, _ = self.positions.item(at)
            if lots:
                held[symbol] = Position(quantity=quantity, average_price=average, opened=int(self.prices.times[opened]))
        return Portfolio(cash=cash, positions=held, realised_pnl=realised, fees=fees, funding=funding, peak_equity=peak)

    def fork(self) -> SimulatedBroker:
        """Return a copy that can be rolled forward on a guess; it writes equity and exposure to arrays of its own."""
        if self._scratch is None:
            self._scratch = (np.empty_like(self.equity), np.empty_like(self.exposure))
        copy = object.__new__(SimulatedBroker)
        copy.__dict__.update(self.__dict__)
        copy.account, copy.positions, copy.queue = self.account.copy(), self.positions.copy(), self.queue.copy()
        copy.events = self.events.copy()
        copy.equity, copy.exposure = self._scratch
        earlier, until = self._earlier_equity
        # All forks share the scratch arrays: a fork of a fork has its recent equity there, and the rest in the account.
        copy._earlier_equity = (earlier, min(until, self._next))
        copy._records_changed()
        return copy

    def take_fills(self) -> list[Fill]:
        """Empty the buffer of events and return the fills, in order."""
        count = int(self.account[0]["events"])
        if count > len(self.events):
            raise RuntimeError(f"the buffer holds {len(self.events)} events, got {count}")
        self.account[0]["events"] = 0
        fills = []
        for event in self.events[:count].tolist():
            quantity, price, reference, fee, slippage, realised, kind, bar, symbol, _, reason = event
            if kind == records.DROPPED:
                self.dropped += 1
                continue
            fills.append(
                Fill(
                    time=int(self.prices.times[bar]),
                    bar=bar,
                    symbol=self.prices.symbols[symbol],
                    quantity=quantity,
                    price=price,
                    reference_price=reference,
                    fee=fee,
                    slippage=slippage,
                    realised_pnl=realised,
                    reason=records.REASONS[reason],
                )
            )
        return fills


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
