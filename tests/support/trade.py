"""Carry a decision out on an account, as the loop does."""

from __future__ import annotations

from agent_bt.core.types import Decision, Fill
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizer import RiskLimitedSizer


def trade(broker: SimulatedBroker, sizer: RiskLimitedSizer, decision: Decision) -> list[Fill]:
    """Size a decision at the close of the current bar and submit its orders; return what fills at once."""
    sized = sizer.size(decision, broker.state())
    return broker.submit(sized.orders, sized.targets)
