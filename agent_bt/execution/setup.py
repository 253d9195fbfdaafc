"""The execution side of a run in one object: execution rules, risk limits and starting cash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agent_bt.execution.broker import PriceArrays, SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer


class RunPrices(PriceArrays, Protocol):
    """The prices of a run; `first` is the row of its first bar, those before it are warm-up."""

    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSetup:
    """How orders fill, what limits them, and the cash that an account starts with.

    Attributes:
        rules: execution rules, as made by `execution.sizing.make_rules`.
        limits: risk limits, as made by `execution.sizing.make_limits`.
        cash: starting cash, quote units.
    """

    rules: np.ndarray
    limits: np.ndarray
    cash: float

    def broker(self, market: RunPrices) -> SimulatedBroker:
        """Open an account with the starting cash at the first bar of a run over `market`."""
        return SimulatedBroker(prices=market, rules=self.rules, cash=self.cash, first=market.first)

    def sizer(self, market: RunPrices) -> RiskLimitedSizer:
        """Make the sizer that turns decisions on the symbols of `market` into orders within the limits."""
        return RiskLimitedSizer(symbols=market.symbols, rules=self.rules, limits=self.limits)
