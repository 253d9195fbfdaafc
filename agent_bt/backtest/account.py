"""Build the execution side of a run: rules, limits, accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError
from agent_bt.engine.market import Market
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer
from agent_bt.execution.sizing import make_limits, make_rules

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSetup:
    """Rules and limits of execution, and what makes an account and a desk that follow them."""

    rules: np.ndarray
    limits: np.ndarray
    broker: Callable[[Market], SimulatedBroker]
    sizer: Callable[[Market], RiskLimitedSizer]


def build_execution(config: Config) -> ExecutionSetup:
    """The execution side of a run.

    Raises:
        ConfigError: the lot step is no decimal number.
    """
    execution, risk = config.execution, config.risk
    try:
        rules = make_rules(
            **execution.model_dump(exclude={"no_trade_band", "funding"}),
            **risk.model_dump(include={"stop_loss", "take_profit", "max_drawdown", "allow_short", "max_leverage"}),
            margin=config.market.kind == "um",
        )
    except ValueError as error:
        raise ConfigError(f"execution.lot_step: {error}") from None
    limits = make_limits(
        no_trade_band=execution.no_trade_band,
        **risk.model_dump(include={"max_position", "max_gross", "max_net", "max_leverage", "allow_short"}),
        **risk.model_dump(include={"max_turnover", "max_daily_loss"}),
    )
    cash = config.account.cash

    def broker(market: Market) -> SimulatedBroker:
        return SimulatedBroker(prices=market, rules=rules, cash=cash, first=market.first)

    def sizer(market: Market) -> RiskLimitedSizer:
        return RiskLimitedSizer(symbols=market.symbols, rules=rules, limits=limits)

    return ExecutionSetup(rules=rules, limits=limits, broker=broker, sizer=sizer)
