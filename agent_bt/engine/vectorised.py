"""The vectorised driver: all target shares are known beforehand, and one compiled loop runs the whole market.

It calls the same sizing, limits and accounting step as the stepwise loop, so both give the same bits.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from agent_bt.core import accounting
from agent_bt.core.jit import njit
from agent_bt.core.types import Fill
from agent_bt.execution import sizing
from agent_bt.execution.broker import SimulatedBroker


def drive(*, broker: SimulatedBroker, limits: np.ndarray, bars: np.ndarray, targets: np.ndarray) -> list[Fill]:
    """Move the account of a fresh `broker` to the `targets` at each of `bars`, then run to the end of its tape.

    `bars`: rows of the decision bars, int64 (D,), ascending; `targets`: signed shares of equity, float64 (D, N), NaN
    where a symbol is left alone. Returns the fills in order; `broker.equity` and `.exposure` are filled.
    """
    drive_silently(broker=broker, limits=limits, bars=bars, targets=targets)
    return broker.take_fills()


def drive_silently(*, broker: SimulatedBroker, limits: np.ndarray, bars: np.ndarray, targets: np.ndarray) -> None:
    """The same without turning the events into fills, for whoever wants the equity alone."""
    tape = broker.tape
    # An order gives one event, a position at most one stop, and there are no more positions than orders.
    broker.events = np.zeros(2 * (targets.size + len(tape.symbols)), accounting.EVENT)
    _drive(
        tape.open, tape.high, tape.low, tape.close, tape.traded, broker.account, broker.positions, broker.queue,
        broker.rules, limits, broker.events, broker.equity, broker.exposure, broker.bar + 1, bars, targets,
    )  # fmt: skip
    broker.resume_at(len(tape.times))


@njit
def _drive(
    opens, highs, lows, closes, traded, account, positions, queue,
    rules, limits, events, equity, exposure, first, bars, targets,
):  # fmt: skip
    lots = np.zeros(targets.shape[1], np.int64)
    verdicts = np.zeros(targets.shape[1], np.int64)
    for at in range(len(bars)):
        bar = bars[at]
        accounting.advance(
            opens, highs, lows, closes, traded, account, positions, queue, rules, events, equity, exposure, first, bar
        )
        first = bar + 1
        if account[0].halted == 1:
            break
        sizing.size_targets(account, positions, rules, limits, closes[bar], targets[at], lots)
        sizing.check(account, positions, rules, limits, closes[bar], lots, verdicts)
        ordered = False
        for symbol in range(len(lots)):
            if lots[symbol] != 0:
                accounting.enqueue(account, queue, rules, events, bar, symbol, lots[symbol], 0)
                ordered = True
        if ordered:
            accounting.settle(closes, traded, account, positions, queue, rules, events, equity, exposure, bar)
    last = len(closes) - 1
    accounting.advance(
        opens, highs, lows, closes, traded, account, positions, queue, rules, events, equity, exposure, first, last
    )
