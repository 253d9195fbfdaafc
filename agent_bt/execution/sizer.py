"""The sizer of a run: it turns decisions into orders and lets the risk limits clip or reject them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from agent_bt.core.account_state import AccountState
from agent_bt.core.errors import ConfigError, StrategyError
from agent_bt.core.lots import refuse_quantity
from agent_bt.core.types import NO_ORDERS, Decision, Order, RiskCut, SizedOrders
from agent_bt.execution import sizing

MAX_WEIGHT = 100.0
"""The largest target weight that makes sense; limits clip it much earlier."""


class RiskLimitedSizer:
    """Sizing and risk limits of one run, an `OrderSizer`; it keeps nothing from one decision to the next."""

    def __init__(self, *, symbols: Sequence[str], rules: np.ndarray, limits: np.ndarray) -> None:
        """Prepare the sizing of one run.

        Args:
            symbols: the symbols of the run, in the order of the account's records.
            rules: as made by `execution.sizing.make_rules`.
            limits: as made by `execution.sizing.make_limits`.
        """
        self._at = {symbol: at for at, symbol in enumerate(symbols)}
        self._symbols = symbols
        self._rules = rules
        self._limits = limits

    def size(self, decision: Decision, state: AccountState) -> SizedOrders:
        """Size a decision; a pure function of its arguments.

        Args:
            decision: what the strategy wants.
            state: the account and its market at the close of the decision bar.

        Raises:
            StrategyError: a weight or a fraction is not finite, out of range, or of an unknown symbol.
            ConfigError: more than 2^53 lots of a symbol would be held.
        """
        if not (decision.targets if decision.trades is None else decision.trades):
            return NO_ORDERS
        if decision.trades is not None:
            basis = sizing.AVAILABLE if decision.sizing == "available" else sizing.EQUITY
            wanted, on_change = self._array("trades", decision.trades, most=1.0), False
        else:
            basis = sizing.TARGETS
            wanted, on_change = self._array("targets", decision.targets, most=MAX_WEIGHT), decision.on_change
        found, verdicts = sizing.size_decision(
            *(state.account, state.positions, self._rules, self._limits),
            *(state.closes, state.eligible, state.opening_equity),
            *(wanted, basis, on_change),
        )
        rule = self._rules[0]
        orders, cuts = [], []
        for symbol, lots, verdict in zip(self._symbols, found.tolist(), verdicts.tolist(), strict=True):
            if lots:
                orders.append(Order(symbol=symbol, lots=lots, quantity=float(lots * rule["multiple"] / rule["scale"])))
            if verdict == sizing.TOO_MANY:
                raise self._too_many(symbol, abs(float(wanted[self._at[symbol]])), state)
            if verdict:
                reason = sizing.CUT_REASONS[verdict]
                cuts.append(RiskCut(symbol=symbol, verdict="clipped" if lots else "rejected", reason=reason))
        return SizedOrders(orders=tuple(orders), cuts=tuple(cuts), targets=decision.targets)

    def _too_many(self, symbol: str, wanted: float, state: AccountState) -> ConfigError:
        rule, at = self._rules[0], self._at[symbol]
        step = float(rule["multiple"] / rule["scale"])
        bought = wanted * max(float(state.account[0]["equity"]), float(state.account[0]["cash"])) / state.closes[at]
        position = state.positions[at]
        held = abs(float(position["lots"] + position["ordered"])) * step
        return refuse_quantity(float(bought) + held, step, symbol)

    def _array(self, name: str, wanted: Mapping[str, float] | None, most: float) -> np.ndarray:
        if not isinstance(wanted, Mapping):
            raise StrategyError(f"the {name} of a decision must map symbols to numbers, got {wanted!r}")
        numbers = np.full(len(self._symbols), np.nan)
        for symbol, number in wanted.items():
            if symbol not in self._at:
                raise StrategyError(f"a decision names {symbol!r}; this run trades {', '.join(self._symbols)}")
            try:
                valid = math.isfinite(number) and abs(number) <= most
            except TypeError:
                valid = False
            if not valid:
                raise StrategyError(
                    f"the {name} of a decision must be finite numbers in [-{most:g}, {most:g}], got {number!r} for "
                    f"{symbol}"
                )
            numbers[self._at[symbol]] = number
        return numbers
