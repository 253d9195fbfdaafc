"""Build the execution side of a run from its config: execution rules, risk limits and starting cash."""

from __future__ import annotations

from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError
from agent_bt.execution.setup import ExecutionSetup
from agent_bt.execution.sizing import make_limits, make_rules


def build_execution(config: Config) -> ExecutionSetup:
    """Build the execution side of a run from `execution`, `risk` and `account`.

    Raises:
        ConfigError: the lot step is not a decimal number.
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
    return ExecutionSetup(rules=rules, limits=limits, cash=config.account.cash)
