"""The vectorised driver: all target weights are known beforehand, and one compiled loop runs the whole market.

It calls the same sizing, limits and accounting step as the loop over single decisions, so both give the same bits.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from agent_bt.core import accounting
from agent_bt.core.array_pointers import arrays_at
from agent_bt.core.jit import njit
from agent_bt.core.lots import refuse_quantity
from agent_bt.core.records import AT_TOO_MANY_LOTS, RUNNING
from agent_bt.core.targets import next_change, remember
from agent_bt.core.types import Fill
from agent_bt.execution import sizing
from agent_bt.execution.broker import SimulatedBroker, opening_rows


def run_targets(
    *, broker: SimulatedBroker, limits: np.ndarray, bars: np.ndarray, targets: np.ndarray, on_change: bool = False
) -> list[Fill]:
    """Move an account to its targets at each decision bar, then run it to the end of its market.

    Args:
        broker: a fresh account; its `equity` and `exposure` are filled.
        limits: `LIMITS`, (1,).
        bars: rows of the decision bars, int64 (D,), ascending.
        targets: target weights, float64 (D, N), NaN where a position is kept.
        on_change: whether targets equal to the previous ones are not traded again; default False.

    Returns:
        The fills, in order.

    Raises:
        ConfigError: more than 2^53 lots of a symbol would be held.
    """
    run_targets_without_fills(broker=broker, limits=limits, bars=bars, targets=targets, on_change=on_change)
    return broker.take_fills()


def run_targets_without_fills(
    *, broker: SimulatedBroker, limits: np.ndarray, bars: np.ndarray, targets: np.ndarray, on_change: bool = False
) -> None:
    """Run an account as `run_targets` does, without returning the fills, where only the equity is needed.

    Args:
        broker: a fresh account; its `equity` and `exposure` are filled.
        limits: `LIMITS`, (1,).
        bars: rows of the decision bars, int64 (D,), ascending.
        targets: target weights, float64 (D, N), NaN where a position is kept.
        on_change: whether targets equal to the previous ones are not traded again; default False.

    Raises:
        ConfigError: more than 2^53 lots of a symbol would be held.
    """
    # An order gives one event, a position at most one more, and there are no more positions than orders.
    broker.resize_events(2 * (targets.size + len(broker.prices.symbols)))
    openings = day_opening_rows(broker, limits, bars)
    run_targets_compiled(
        broker.pointers, broker.prices.eligible, limits, broker.first, openings, bars, targets, on_change
    )
    if broker.account[0]["halted"] == AT_TOO_MANY_LOTS:
        rule, prices = broker.rules[0], broker.prices
        richest = float(np.nanmax(broker.equity))
        raise refuse_quantity(
            2.0 * float(np.nanmax(np.abs(targets))) * richest / float(np.nanmin(prices.close)),
            float(rule["multiple"] / rule["scale"]),
            "the account",
        )
    broker.resume_at(len(broker.prices.times))


def day_opening_rows(broker: SimulatedBroker, limits: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Return the last row of the day before each decision, int64 (D,); empty if no limit needs it.

    Args:
        broker: the account.
        limits: `LIMITS`, (1,).
        bars: rows of the decision bars, int64 (D,).
    """
    if np.isinf(limits[0]["max_daily_loss"]):
        return np.empty(0, np.int64)
    return opening_rows(broker.prices.times, bars)


@njit
def run_targets_compiled(pointers, eligible, limits, first, openings, bars, targets, on_change):
    """Do what `run_targets` does, for compiled callers.

    Args:
        pointers: as made by `core.array_pointers`.
        eligible: bool (T, N), symbols whose position may grow.
        limits: `LIMITS`, (1,).
        first: row of the first bar.
        openings: as made by `day_opening_rows`.
        bars: as of `run_targets`.
        targets: as of `run_targets`.
        on_change: as of `run_targets`.
    """
    (opens, highs, lows, closes, traded, funding, ends, special,
     account, positions, queue, rules, events, equity, exposure) = arrays_at(pointers)  # fmt: skip
    symbols = targets.shape[1]
    lots = np.zeros(symbols, np.int64)
    verdicts = np.zeros(symbols, np.int64)
    given = positions.target
    start, cash = first, account[0].cash
    at = next_change(targets, given, on_change, 0)
    while at < len(bars):
        bar = bars[at]
        accounting.run(
            opens, highs, lows, closes, traded, funding, ends, special,
            account, positions, queue, rules, events, equity, exposure, first, bar,
        )  # fmt: skip
        first = bar + 1
        if account[0].halted != RUNNING:
            break
        opening = 0.0
        if len(openings) > 0:
            opening = equity[openings[at]] if openings[at] >= start else cash
        sizing.size_targets(account, positions, rules, limits, closes[bar], targets[at], on_change, lots)
        sizing.apply_limits(account, positions, rules, limits, closes[bar], eligible[bar], opening, lots, verdicts)
        remember(given, targets[at])
        ordered = False
        for symbol in range(symbols):
            if verdicts[symbol] == sizing.TOO_MANY:
                account[0].halted = AT_TOO_MANY_LOTS
            if lots[symbol] != 0:
                accounting.enqueue(account, positions, queue, rules, bar, symbol, lots[symbol], 0)
                ordered = True
        if ordered:
            accounting.fill_and_mark(closes, traded, account, positions, queue, rules, events, equity, exposure, bar)
        if account[0].halted == AT_TOO_MANY_LOTS:
            break
        at = next_change(targets, given, on_change, at + 1)
    last = len(closes) - 1
    accounting.run(
        opens, highs, lows, closes, traded, funding, ends, special,
        account, positions, queue, rules, events, equity, exposure, first, last,
    )  # fmt: skip
