"""Convert exceptions of a strategy's code to a StrategyError that names the strategy, the decision and the bar."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from agent_bt.core.clock import iso
from agent_bt.core.errors import AgentBtError, StrategyError


def blames_strategy(error: BaseException) -> bool:
    """Return whether an exception from a strategy's code is the strategy's mistake: a lost model or budget is not."""
    return isinstance(error, StrategyError) or not isinstance(error, AgentBtError)


def as_strategy_error(error: BaseException, strategy: str, index: int, now: int) -> StrategyError:
    """Return the StrategyError to raise for an exception from a strategy's code.

    Args:
        error: the exception.
        strategy: name of the strategy.
        index: number of the decision.
        now: instant of the decision, UTC us.
    """
    words = str(error)
    if not isinstance(error, StrategyError):
        at = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {words} ({at.filename}, line {at.lineno})"
    return StrategyError(f"strategy {strategy}, decision {index} at {iso(now)}: {words}")


@contextmanager
def strategy_errors(strategy: str, index: int, now: int) -> Iterator[None]:
    """Re-raise exceptions of the strategy's code inside the block as StrategyError.

    Args:
        strategy: name of the strategy.
        index: number of the decision.
        now: instant of the decision, UTC us.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if not blames_strategy(error):
            raise
        raise as_strategy_error(error, strategy, index, now) from error
