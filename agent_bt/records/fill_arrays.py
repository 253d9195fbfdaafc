"""The fills of a run as arrays: positions in whole lots, and what each fill adds to the PnL of its leg."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from agent_bt.config.model import ExecutionConfig
from agent_bt.core.lots import parse_lot_step
from agent_bt.engine.market import Market


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolFills:
    """The fills of one symbol, arrays (F,) in order.

    Attributes:
        rows: bars of the fills, counted from the first bar of the run, int64.
        before, after: signed position in lots before and after each fill, int64.
        held: signed position after each fill, in base units, float64.
        early: whether the fill happened before the close of its bar, where funding is settled, bool.
        fee, slippage, notional: in quote units, float64.
        long_flow, short_flow: cash received (+) or paid (-) for the long and the short position, quote units, float64.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    held: np.ndarray
    early: np.ndarray
    fee: np.ndarray
    slippage: np.ndarray
    notional: np.ndarray
    long_flow: np.ndarray
    short_flow: np.ndarray


class FillArrays:
    """All fills of a run as arrays (F,), with the attributes of `SymbolFills` and these.

    Attributes:
        symbol: number of the symbol in the market, int64.
        ordered: whether an order of a decision filled, not a stop, a take-profit or a liquidation, bool.
        at_once: whether orders fill in the bar of their decision, at its close.
    """

    def __init__(self, market: Market, fills: pl.DataFrame, decisions: np.ndarray, execution: ExecutionConfig) -> None:
        """Convert the fills.

        Args:
            market: the market of the run.
            fills: in order, columns of `FILL_SCHEMA`.
            decisions: bars of the recorded decisions, int64 (D,), ascending.
            execution: its lot step makes quantities exact.

        Raises:
            ValueError: the lot step is not a decimal number.
        """
        self._multiple, self._scale = parse_lot_step(execution.lot_step)
        self._bars = len(market) - market.first
        self.at_once = execution.fill == "close" and not execution.latency_bars
        numbers = {symbol: number for number, symbol in enumerate(market.symbols)}
        bars = fills["bar"].to_numpy()
        self.symbol = np.array([numbers[symbol] for symbol in fills["symbol"]], np.int64)
        self.rows = bars - market.first
        self.ordered = (fills["reason"] == "order").to_numpy()
        self.fee, self.slippage = fills["fee"].to_numpy(), fills["slippage"].to_numpy()
        price, quantity = fills["price"].to_numpy(), fills["quantity"].to_numpy()
        self.notional = np.abs(quantity * price)
        due = decisions + execution.latency_bars if execution.fill == "close" else decisions[:0]
        self.early = self._before_close(market, fills, bars, np.isin(bars, due))
        lots = np.rint(quantity * self._scale / self._multiple).astype(np.int64)
        self.after = np.zeros(len(lots), np.int64)
        for number in range(len(market.symbols)):
            own = self.symbol == number
            self.after[own] = np.cumsum(lots[own])
        self.before = self.after - lots
        self.held = self.to_base_units(self.after)
        self.long_flow = self.to_base_units(np.maximum(self.before, 0) - np.maximum(self.after, 0)) * price
        self.short_flow = self.to_base_units(np.minimum(self.before, 0) - np.minimum(self.after, 0)) * price

    def to_base_units(self, lots: np.ndarray) -> np.ndarray:
        """Convert whole lots to base units."""
        return lots * self._multiple / self._scale

    def select(self, number: int) -> SymbolFills:
        """Return the fills of one symbol, by its number in the market."""
        own = self.symbol == number
        return SymbolFills(**{name: getattr(self, name)[own] for name in SymbolFills.__slots__})

    def accumulate(self, amounts: np.ndarray) -> np.ndarray:
        """Add up amounts (F,) along the bars: their running sum, float64 (T,)."""
        return np.cumsum(np.bincount(self.rows, weights=amounts, minlength=self._bars))

    def _before_close(self, market: Market, fills: pl.DataFrame, bars: np.ndarray, due: np.ndarray) -> np.ndarray:
        """Find the fills that happened before the close of their bar, where funding is settled, bool (F,).

        A fill records its price, not its place in the bar. One at the close price happened at the close if an order was
        `due` then (bool (F,)), or if a limit or a delisting closed the position.
        """
        reference, reason = fills["reference_price"].to_numpy(), fills["reason"].to_numpy()
        late = (reference == market.close[bars, self.symbol]) & (due | (reason != "order"))
        early: np.ndarray = np.isin(reason, ("stop_loss", "take_profit")) | ~late
        return early


def compute_funding(market: Market, number: int, own: SymbolFills) -> np.ndarray:
    """Compute the funding that one symbol paid in each bar, float64 (T,), quote units.

    Args:
        market: the market of the run.
        number: number of the symbol in it.
        own: the symbol's fills.
    """
    paid = np.zeros(len(market) - market.first)
    if not len(market.funding) or not len(own.rows):
        return paid
    rates = market.funding[market.first :, number]
    settled = np.flatnonzero(rates)
    # Held at a settlement: the position after all fills of earlier bars, and those of its own bar before the close.
    count = np.searchsorted(2 * own.rows + ~own.early, 2 * settled, side="right")
    quantity = np.concatenate([[0.0], own.held])[count]
    paying = quantity != 0.0
    settled, quantity = settled[paying], quantity[paying]
    paid[settled] = quantity * market.close[market.first + settled, number] * rates[settled]
    return paid
