"""The batch driver: thousands of accounts over one market in a compiled loop, for parameter sweeps.

Every account goes through `vectorised.run_targets_compiled`, so it has the same bits as in a run of its own. Only its
measures and its equity at the end of every UTC day are kept. The loop releases the interpreter lock: each thread has a
`BatchRunner` of its own, and they run in parallel.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_bt.core.array_pointers import arrays_at
from agent_bt.core.clock import DAY
from agent_bt.core.jit import njit
from agent_bt.core.lots import refuse_quantity
from agent_bt.core.records import AT_TOO_MANY_LOTS, FILLED, RULES
from agent_bt.engine.vectorised import run_targets_compiled
from agent_bt.execution.broker import PriceArrays, SimulatedBroker, opening_rows

OUTCOME = np.dtype(
    [
        (name, np.float64)
        for name in (
            *("final_equity", "max_drawdown", "realised", "fees", "slippage", "funding"),
            *("turnover", "exposure", "gains", "losses"),
        )
    ]
    + [(name, np.int64) for name in ("fills", "trades", "wins", "dropped", "halted", "events")]
)
"""The measures of one account, as of `evaluation.performance`: amounts in quote units; `gains` and `losses` are the
sums of the profitable and of the losing trades (both >= 0), `wins` the number of profitable ones; `dropped` orders;
`halted` as in `core.records`; `events` all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The inputs of C accounts over N symbols.

    Attributes:
        rules: `RULES`, (C,); all have the same delay.
        limits: `LIMITS`, (C,).
        on_change: bool (C,), whether targets equal to those given last are left alone.
        starts: int64 (C + 1,); the decisions of account c are `rows[starts[c]:starts[c + 1]]`.
        rows: int64 (E,), rows of the decision bars, ascending within an account.
        targets: float64 (E, N), target weights at these rows, NaN: left alone.
    """

    rules: np.ndarray
    limits: np.ndarray
    on_change: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.rules)


def last_rows_of_days(times: np.ndarray, first: int) -> np.ndarray:
    """Return the last row of each UTC day, int64; a bar that closes at midnight belongs to the day that ends there.

    Args:
        times: close times, int64 (T,), UTC us.
        first: row to begin with.
    """
    days = (times[first:] - 1) // DAY
    return first + np.append(np.flatnonzero(np.diff(days)), len(days) - 1)


class BatchRunner:
    """The state of one thread: an account on one market that is reset for every account of a batch."""

    def __init__(self, prices: PriceArrays, *, cash: float, first: int, delay: int) -> None:
        """Open the account.

        Args:
            prices: the market, which is run to its end.
            cash: starting cash of every account, quote units.
            first: row of the first bar.
            delay: bars from a decision to its fill, the same for all accounts.
        """
        rules = np.zeros(1, RULES)
        rules[0]["delay"] = delay
        self._broker = SimulatedBroker(prices=prices, rules=rules, cash=cash, first=first)
        self._fresh = (self._broker.account.copy(), self._broker.positions.copy())
        self._days = last_rows_of_days(prices.times, first)

    @property
    def days(self) -> int:
        """Number of UTC days from the first bar to the end of the market."""
        return len(self._days)

    def run_batch(self, accounts: Accounts, outcomes: np.ndarray, marks: np.ndarray) -> None:
        """Run every account from its starting cash, equal to `vectorised.run_targets` of each to the last bit.

        Args:
            accounts: C accounts.
            outcomes: receives the measures, `OUTCOME` (C,).
            marks: receives the equity at the end of every UTC day, float64 (C, days).

        Raises:
            ConfigError: more than 2^53 lots of a symbol would be held.
        """
        prices, symbols = self._broker.prices, len(self._broker.prices.symbols)
        capacity = 2 * symbols * (int(np.diff(accounts.starts).max(initial=0)) + 1)
        if capacity > len(self._broker.events):
            self._broker.resize_events(capacity)
        limited = np.isfinite(accounts.limits["max_daily_loss"]).any()
        openings = opening_rows(prices.times, accounts.rows) if limited else np.empty(0, np.int64)
        _run_batch(
            *(
                self._broker.pointers,
                prices.eligible,
                accounts.rules,
                accounts.limits,
                *self._fresh,
                self._broker.first,
            ),
            *(openings, accounts.starts, accounts.rows, accounts.targets, accounts.on_change),
            *(self._days, outcomes, marks),
        )
        refused = np.flatnonzero(outcomes["halted"] == AT_TOO_MANY_LOTS)
        if len(refused):
            rule = accounts.rules[refused[0]]
            richest = max(float(self._fresh[0][0]["cash"]), float(marks[refused[0]].max()))
            raise refuse_quantity(
                2.0 * float(np.nanmax(np.abs(accounts.targets))) * richest / float(np.nanmin(prices.close)),
                float(rule["multiple"] / rule["scale"]),
                f"account {refused[0]} of the batch",
            )
        if (outcomes["events"] > len(self._broker.events)).any():
            raise RuntimeError(f"the buffer holds {len(self._broker.events)} events, got {outcomes['events'].max()}")


@njit
def _run_batch(
    pointers, eligible, rules_of, limits_of, fresh_account, fresh_positions, first, openings, starts, rows, targets,
    on_change, days, outcomes, marks,
):  # fmt: skip
    account, positions, queue, rules, events, equity, exposure = arrays_at(pointers)[8:]
    held = np.zeros(len(positions))
    entry_fees = np.zeros(len(positions))
    for at in range(len(rules_of)):
        account[0] = fresh_account[0]
        for symbol in range(len(positions)):
            positions[symbol] = fresh_positions[symbol]
            for slot in range(queue.shape[1]):
                queue[symbol, slot].lots = 0
        rules[0] = rules_of[at]
        low, high = starts[at], starts[at + 1]
        opening = openings[low:high] if len(openings) > 0 else openings
        run_targets_compiled(
            pointers, eligible, limits_of[at : at + 1], first, opening, rows[low:high], targets[low:high], on_change[at]
        )
        for day in range(len(days)):
            marks[at, day] = equity[days[day]]
        _measure(
            account, events, equity, exposure, first, days[-1], fresh_account[0].cash, held, entry_fees, outcomes, at
        )


@njit
def _measure(account, events, equity, exposure, first, last, cash, held, entry_fees, outcomes, at):
    outcome, now = outcomes[at], account[0]
    outcome.final_equity = equity[last]
    outcome.max_drawdown = _max_drawdown(equity, first, last, cash)
    outcome.exposure = _mean_absolute(exposure, first, last)
    outcome.realised, outcome.fees, outcome.slippage = now.realised, now.fees, now.slippage
    outcome.funding, outcome.halted, outcome.events = now.funding, now.halted, now.events
    outcome.turnover = outcome.gains = outcome.losses = 0.0
    outcome.fills = outcome.trades = outcome.wins = outcome.dropped = 0
    held[:] = 0.0
    entry_fees[:] = 0.0
    traded = 0.0
    for number in range(min(now.events, len(events))):
        event = events[number]
        if event.kind != FILLED:
            outcome.dropped += 1
            continue
        outcome.fills += 1
        traded += abs(event.quantity * event.price) / equity[event.bar]
        _count_trade(event, held, entry_fees, outcomes, at)
    outcome.turnover = 0.5 * traded


@njit
def _count_trade(event, held, entry_fees, outcomes, at):
    """Count one fill, as `evaluation.metrics.trade_results` does."""
    position, fees = held[event.symbol], entry_fees[event.symbol]
    after = position + event.quantity
    if position * event.quantity >= 0.0:
        held[event.symbol], entry_fees[event.symbol] = after, fees + event.fee
        return
    after = 0.0 if abs(after) <= 1e-9 * abs(position) else after
    closed = min(abs(event.quantity), abs(position))
    entry_part = fees * closed / abs(position)
    exit_part = event.fee * closed / abs(event.quantity)
    result = event.realised - exit_part - entry_part
    held[event.symbol] = after
    entry_fees[event.symbol] = event.fee - exit_part if after * position < 0.0 else fees - entry_part
    outcome = outcomes[at]
    outcome.trades += 1
    if result > 0.0:
        outcome.wins += 1
        outcome.gains += result
    elif result < 0.0:
        outcome.losses -= result


@njit
def _max_drawdown(equity, first, last, cash):
    """Return the maximum drawdown, <= 0; only the lowest equity after each peak needs a division."""
    peak = low = cash
    deepest = 0.0
    row = first
    while row <= last:
        beyond = min(row + 64, last + 1)
        if _within(equity, row, beyond, low, peak):
            row = beyond
            continue
        for at in range(row, beyond):
            value = equity[at]
            if value > peak:
                deepest = min(deepest, low / peak - 1.0)
                peak = low = value
            elif value < low:
                low = value
        row = beyond
    return min(deepest, low / peak - 1.0)


@njit
def _within(equity, first, beyond, low, peak):
    """Return whether no equity is below `low` or above `peak`; without a branch, so that several compare at once."""
    outside = 0
    for row in range(first, beyond):
        outside += (equity[row] < low) | (equity[row] > peak)
    return outside == 0


@njit
def _mean_absolute(values, first, last):
    """Return the mean of |values[first..last]|; eight sums at once, which do not wait for each other."""
    count = last - first + 1
    whole = count // 8
    table = values[first : first + 8 * whole].reshape(whole, 8)
    a = b = c = d = e = f = g = h = 0.0
    for row in range(whole):
        a += abs(table[row, 0])
        b += abs(table[row, 1])
        c += abs(table[row, 2])
        d += abs(table[row, 3])
        e += abs(table[row, 4])
        f += abs(table[row, 5])
        g += abs(table[row, 6])
        h += abs(table[row, 7])
    for row in range(first + 8 * whole, last + 1):
        a += abs(values[row])
    return (((a + b) + (c + d)) + ((e + f) + (g + h))) / count
