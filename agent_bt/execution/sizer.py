"""The desk turns a decision into orders: sizes it, then lets the risk limits clip or reject it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent_bt.core.clock import DAY
from agent_bt.core.errors import StrategyError
from agent_bt.core.types import Decision, Order, RiskCut
from agent_bt.execution import sizing
from agent_bt.execution.broker import SimulatedBroker


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """What became of a decision: the orders, and each cut with its reason."""

    orders: tuple[Order, ...] = ()
    cuts: tuple[RiskCut, ...] = ()


NOTHING = Sized()
MOST_SHARE = 100.0
"""The largest target share that makes sense; limits clip it much earlier."""


def opening_rows(times: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """The last row of the UTC day before the one each of `bars` closes in, int64; -1 where there is none.

    `times`: close times, int64 (T,), UTC us. A bar that closes at midnight belongs to the day that ends there.
    """
    rows: np.ndarray = np.searchsorted(times, (times[bars] - 1) // DAY * DAY, side="right") - 1
    return rows


class RiskLimitedSizer:
    """Sizing and risk limits of one run."""

    def __init__(self, *, symbols: Sequence[str], rules: np.ndarray, limits: np.ndarray) -> None:
        """`rules` and `limits` as made by `execution.sizing`."""
        self._at = {symbol: at for at, symbol in enumerate(symbols)}
        self._symbols = symbols
        self._rules = rules
        self._limits = limits
        self._lots = np.zeros(len(symbols), np.int64)
        self._verdicts = np.zeros(len(symbols), np.int64)

    def size(self, decision: Decision, broker: SimulatedBroker) -> Sized:
        """The orders of a decision at the close of the broker's current bar.

        Raises:
            StrategyError: a share is not finite, out of range, or of an unknown symbol.
        """
        wanted = decision.trades if decision.trades is not None else decision.targets
        if not wanted or (decision.on_change and decision is broker.last):
            return NOTHING
        shares = self._shares(wanted, limit=1.0 if decision.trades is not None else MOST_SHARE)
        state = (broker.account, broker.positions, self._rules)
        closes, eligible = broker.closes, broker.prices.eligible[broker.bar]
        told: Sequence[float] = ()
        if decision.trades is not None:
            basis = sizing.AVAILABLE if decision.sizing == "available" else sizing.EQUITY
            sizing.size_trades(*state, closes, shares, basis, self._lots)
        else:
            broker.last = decision
            told = broker.positions["target"].tolist() if decision.on_change else told
            sizing.size_targets(*state, self._limits, closes, shares, decision.on_change, self._lots)
        asked = self._lots.tolist()
        opening = self._opening(broker)
        sizing.check(*state, self._limits, closes, eligible, opening, self._lots, self._verdicts)
        rule = self._rules[0]
        orders, cuts = [], []
        for at, lots in enumerate(self._lots.tolist()):
            symbol, verdict = self._symbols[at], int(self._verdicts[at])
            if lots:
                quantity = float(lots * rule["multiple"] / rule["scale"])
                orders.append(Order(symbol=symbol, lots=lots, quantity=quantity))
            elif verdict == sizing.NOTHING and asked[at] == 0 and abs(shares[at]) > 0.0 and np.isnan(closes[at]):
                if not told or told[at] != shares[at]:
                    verdict = sizing.NOT_ELIGIBLE
            elif verdict == sizing.NOTHING and decision.trades is not None and shares[at] > 0 and asked[at] == 0:
                verdict = sizing.NO_CASH
            if verdict != sizing.NOTHING:
                reason = sizing.CUT_REASONS[verdict]
                cuts.append(RiskCut(symbol=symbol, verdict="clipped" if lots else "rejected", reason=reason))
        return Sized(orders=tuple(orders), cuts=tuple(cuts))

    def _opening(self, broker: SimulatedBroker) -> float:
        """Equity at the beginning of the UTC day of the current bar; 0 where no limit asks for it."""
        if np.isinf(self._limits[0]["max_daily_loss"]):
            return 0.0
        return broker.equity_of(int(opening_rows(broker.prices.times, np.array([broker.bar]))[0]))

    def _shares(self, wanted: Mapping[str, float], limit: float) -> np.ndarray:
        shares = np.full(len(self._symbols), np.nan)
        for symbol, share in wanted.items():
            if symbol not in self._at:
                raise StrategyError(f"a decision names {symbol!r}; this run trades {', '.join(self._symbols)}")
            if not math.isfinite(share) or abs(share) > limit:
                raise StrategyError(
                    f"a decision gives {symbol} the share {share!r}; it must be in [-{limit:g}, {limit:g}]"
                )
            shares[self._at[symbol]] = share
        return shares
