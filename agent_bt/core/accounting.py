# mypy: allow-untyped-defs, allow-untyped-calls
"""The compiled accounting step: `(state, bar, orders) -> (state, events)` over a small array state.

Every driver of the engine runs these functions and no others, so that the same orders give the same bits.

One bar t, in order (`advance`):
  1. orders that are due fill at the open: first what reduces a position, then what opens or
     increases one, scaled to the available cash or margin                                      `fill_due_orders`
  2. stop-loss, then take-profit, inside the bar                                                `trigger_stops`
  3. a funding settlement at its close is charged to the positions                              `_charge_funding`
  4. orders due at this close fill at it                                                        `fill_due_orders`
  5. positions in a symbol that stops trading after this bar are closed                         `_delist`
  6. the account is marked at the close; passing the drawdown limit closes everything           `_mark`
Bars in which none of this can happen are marked in one loop (`_mark_quiet_bars`): no object, no call, no event.
Orders that a decision makes at the close of t are queued by `enqueue`; those due at once fill in `fill_and_mark`, and
the bar is marked again.

State, all mutable records of fixed layout (copying them forks the account):
  account (1,)      ACCOUNT      positions (N,)  POSITION      queue (N, C)  ORDER
Market, read only, float64 (T, N): open, high, low, close, NaN where a symbol is not listed; traded: bool (T, N),
False where nothing traded; funding (T, N): rate settled at the close, or no rows at all; ends: int64 (N,), the last
row of a symbol that is delisted, T for the others; special: int64, ascending rows that have a settlement or an end.
Quantities are whole lots; a lot is `multiple / scale` base units, both whole numbers, so that lots x step is exact.
Cash of a short position includes its proceeds, so equity = cash + sum(quantity x close) holds for every account; for
perpetuals this is wallet + sum(quantity x (mark - average)), with the entry values booked out of the wallet.
"""

from __future__ import annotations

import numpy as np

from agent_bt.core.array_pointers import arrays_at
from agent_bt.core.fills import (
    fill,
    fill_due_orders,
    highest_touching,
    lowest_touching,
    record_event,
    remove_order,
    trigger_stops,
)
from agent_bt.core.jit import njit
from agent_bt.core.records import (
    AT_DRAWDOWN,
    AT_NOTHING,
    DELISTED,
    DRAWDOWN,
    DROPPED,
    RUNNING,
    USED_UP,
)


@njit
def _charge_funding(account, positions, rates, closes):
    """Charge a settlement: quantity x price x rate, paid by longs where the rate is positive."""
    for symbol in range(len(positions)):
        if positions[symbol].lots != 0 and rates[symbol] != 0.0:
            paid = positions[symbol].quantity * closes[symbol] * rates[symbol]
            account[0].cash -= paid
            account[0].funding += paid


@njit
def _delist(account, positions, queue, rules, events, bar, closes, ends):
    """Close the positions in symbols that stop trading after this bar, and drop their orders."""
    for symbol in range(len(positions)):
        if ends[symbol] != bar:
            continue
        for slot in range(queue.shape[1]):
            if queue[symbol, slot].lots != 0:
                lots = remove_order(account, positions, queue, symbol, slot)
                record_event(account, events, DROPPED, bar, symbol, lots, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, DELISTED)
        if positions[symbol].lots != 0:
            fill(account, positions, rules, events, bar, symbol, -positions[symbol].lots, closes[symbol], DELISTED)


@njit
def _mark(account, positions, closes):
    """Mark the account at the closes, update peak and drawdown, and return the equity."""
    equity = account[0].cash
    if account[0].held > 0:
        for symbol in range(len(positions)):
            if positions[symbol].lots != 0:
                equity += positions[symbol].quantity * closes[symbol]
    _set_equity(account, equity)
    return equity


@njit
def _set_equity(account, equity):
    account[0].equity = equity
    if equity > account[0].peak:
        account[0].peak = equity
    account[0].drawdown = equity / account[0].peak - 1.0


@njit
def _mark_quiet_bars(highs, lows, closes, account, positions, rules, equity, exposure, first, last):
    """Mark the account at the bars first..last, in which nothing happens; return the last bar that was marked.

    It stops at a bar that passes a limit, and before one that touches a stop or a take-profit (with a single symbol;
    with several, no bar with a position under a stop is quiet). The sums are those of `_mark`, in the same order.
    """
    cash, peak = account[0].cash, account[0].peak
    least = 1.0 - rules[0].max_drawdown if rules[0].max_drawdown > 0.0 and account[0].halted == RUNNING else -np.inf
    nothing = 0.0 if rules[0].margin == 1 and account[0].halted == RUNNING else -np.inf
    value, bar = cash, first
    if account[0].held == 0:
        if value < peak * least or value <= nothing:
            last = first
        for bar in range(first, last + 1):
            equity[bar] = value
            exposure[bar] = 0.0
        _set_equity(account, value)
        return last
    if len(positions) == 1:
        quantity = positions[0].quantity
        below, above = _trigger_levels(positions, rules)
        guarded = below > -np.inf or above < np.inf
        if not guarded and least == -np.inf and nothing == -np.inf:
            # No limit to stop at: several bars at once, where a processor can.
            for bar in range(first, last + 1):
                equity[bar] = cash + quantity * closes[bar, 0]
            for bar in range(first, last + 1):
                exposure[bar] = (equity[bar] - cash) / equity[bar]
            account[0].peak = max(peak, _highest(equity, first, last))
            _set_equity(account, equity[last])
            return last
        for bar in range(first, last + 1):
            if guarded and (lows[bar, 0] <= below or highs[bar, 0] >= above):
                if bar == first:
                    return first - 1
                bar -= 1
                break
            value = cash + quantity * closes[bar, 0]
            equity[bar] = value
            exposure[bar] = (value - cash) / value
            if value > peak:
                peak = value
            if value < peak * least or value <= nothing:
                break
    else:
        held = np.empty(account[0].held, np.int64)
        quantities = np.empty(account[0].held)
        count = 0
        for symbol in range(len(positions)):
            if positions[symbol].lots != 0:
                held[count] = symbol
                quantities[count] = positions[symbol].quantity
                count += 1
        for bar in range(first, last + 1):
            value = cash
            for at in range(count):
                value += quantities[at] * closes[bar, held[at]]
            equity[bar] = value
            exposure[bar] = (value - cash) / value
            if value > peak:
                peak = value
            if value < peak * least or value <= nothing:
                break
    account[0].peak = peak
    _set_equity(account, value)
    return bar


@njit
def _highest(values, first, last):
    """Return the largest of values[first..last]; eight at once, which do not wait for each other."""
    a = b = c = d = e = f = g = h = values[first]
    bar = first
    while bar + 7 <= last:
        a, b, c, d = max(a, values[bar]), max(b, values[bar + 1]), max(c, values[bar + 2]), max(d, values[bar + 3])
        e, f, g, h = max(e, values[bar + 4]), max(f, values[bar + 5]), max(g, values[bar + 6]), max(h, values[bar + 7])
        bar += 8
    while bar <= last:
        a = max(a, values[bar])
        bar += 1
    return max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)))


@njit
def _trigger_levels(positions, rules):
    """Return the prices at or beyond which the position of a single symbol is closed, as `trigger_stops` finds them."""
    average, stop, take = positions[0].average, rules[0].stop_loss, rules[0].take_profit
    down, up = (take, stop) if positions[0].lots < 0 else (stop, take)
    below = highest_touching(average * (1.0 - down)) if down > 0.0 else -np.inf
    above = lowest_touching(average * (1.0 + up)) if up > 0.0 else np.inf
    return below, above


@njit
def _halt_at_limits(account, positions, queue, rules, events, bar, closes, traded):
    """Drop all orders and close everything where a limit is passed, now if the bar traded, else at the next open."""
    if account[0].halted != RUNNING:
        return False
    rule, equity = rules[0], account[0].equity
    if rule.margin == 1 and equity <= 0.0:
        account[0].halted = AT_NOTHING
    elif rule.max_drawdown > 0.0 and equity < account[0].peak * (1.0 - rule.max_drawdown):
        account[0].halted = AT_DRAWDOWN
    else:
        return False
    reason = DRAWDOWN if account[0].halted == AT_DRAWDOWN else USED_UP
    for symbol in range(len(positions)):
        for slot in range(queue.shape[1]):
            if queue[symbol, slot].lots != 0:
                remove_order(account, positions, queue, symbol, slot)
        lots = positions[symbol].lots
        if lots != 0 and traded[symbol]:
            fill(account, positions, rules, events, bar, symbol, -lots, closes[symbol], reason)
        elif lots != 0:
            positions[symbol].ordered = -lots
            queue[symbol, 0].lots = -lots
            queue[symbol, 0].due = bar
            queue[symbol, 0].at_close = 1
            queue[symbol, 0].forced = 1
            account[0].waiting += 1
    return True


@njit
def advance(pointers, first, last):
    """Run the bars first..last; write `equity` and `exposure` (float64 (T,), the sum of weights).

    Args:
        pointers: as made by `array_pointers`.
        first: row of the first bar.
        last: row of the last bar, included.

    Returns:
        The number of events in the buffer, `ACCOUNT.halted`, cash, and the highest equity.
    """
    (opens, highs, lows, closes, traded, funding, ends, special,
     account, positions, queue, rules, events, equity, exposure) = arrays_at(pointers)  # fmt: skip
    run(opens, highs, lows, closes, traded, funding, ends, special,
        account, positions, queue, rules, events, equity, exposure, first, last)  # fmt: skip
    return account[0].events, account[0].halted, account[0].cash, account[0].peak


@njit
def run(
    opens, highs, lows, closes, traded, funding, ends, special,
    account, positions, queue, rules, events, equity, exposure, first, last,
):  # fmt: skip
    """Do what `advance` does, for compiled callers that have the arrays.

    Args:
        opens: open prices, float64 (T, N), quote units; NaN where a symbol is not listed.
        highs: high prices, as `opens`.
        lows: low prices, as `opens`.
        closes: close prices, as `opens`.
        traded: bool (T, N), whether the symbol traded in the bar.
        funding: rates settled at the close, float64 (T, N), fractions; (0, N) for a market without funding.
        ends: last row of each symbol, int64 (N,); T for one that is not delisted.
        special: rows with a settlement or an end, int64 (S,), ascending.
        account: `ACCOUNT`, (1,); changed.
        positions: `POSITION`, (N,); changed.
        queue: `ORDER`, (N, C), C orders that may wait for each of N symbols; changed.
        rules: `RULES`, (1,).
        events: `EVENT`, (E,), the buffer; changed.
        equity: receives the equity at each close, float64 (T,), quote units.
        exposure: receives the sum of weights at each close, float64 (T,).
        first: row of the first bar.
        last: row of the last bar, included.
    """
    rule = rules[0]
    protected = rule.stop_loss > 0.0 or rule.take_profit > 0.0
    bar = first
    coming = np.searchsorted(special, first) if len(special) > 0 else 0
    while bar <= last:
        while coming < len(special) and special[coming] < bar:
            coming += 1
        quiet = last if coming == len(special) else min(last, special[coming] - 1)
        reached = bar - 1
        if account[0].waiting == 0 and quiet >= bar and (account[0].held == 0 or not protected or len(positions) == 1):
            reached = _mark_quiet_bars(highs, lows, closes, account, positions, rules, equity, exposure, bar, quiet)
        if reached < bar:
            reached = bar
            fill_due_orders(account, positions, queue, rules, events, bar, opens[bar], traded[bar], False)
            if protected and account[0].held > 0:
                trigger_stops(
                    account, positions, queue, rules, events, bar, opens[bar], highs[bar], lows[bar], traded[bar]
                )
            if coming < len(special) and special[coming] == bar:
                if len(funding) > 0 and account[0].held > 0:
                    _charge_funding(account, positions, funding[bar], closes[bar])
                fill_due_orders(account, positions, queue, rules, events, bar, closes[bar], traded[bar], True)
                _delist(account, positions, queue, rules, events, bar, closes[bar], ends)
            else:
                fill_due_orders(account, positions, queue, rules, events, bar, closes[bar], traded[bar], True)
            _write_mark(closes, account, positions, equity, exposure, bar)
        if _halt_at_limits(account, positions, queue, rules, events, reached, closes[reached], traded[reached]):
            _write_mark(closes, account, positions, equity, exposure, reached)
        bar = reached + 1


@njit
def _write_mark(closes, account, positions, equity, exposure, bar):
    value = _mark(account, positions, closes[bar])
    equity[bar] = value
    exposure[bar] = (value - account[0].cash) / value if account[0].held > 0 else 0.0


@njit
def enqueue(account, positions, queue, rules, bar, symbol, lots, forced):
    """Queue an order; without a free slot it is added to the order that waits longest.

    Args:
        account: see the module, as are `positions`, `queue` and `rules`.
        positions: changed.
        queue: changed.
        rules: give the delay.
        bar: row of the bar at whose close the order is made.
        symbol: number of the symbol.
        lots: signed lots.
        forced: 1 if the order may be below the smallest size, else 0.
    """
    slot = 0
    for candidate in range(queue.shape[1]):
        if queue[symbol, candidate].lots == 0:
            slot = candidate
            break
        if queue[symbol, candidate].due < queue[symbol, slot].due:
            slot = candidate
    order = queue[symbol, slot]
    if order.lots != 0:
        lots += remove_order(account, positions, queue, symbol, slot)
        if lots == 0:
            return
    else:
        order.at_close = rules[0].at_close
        order.due = bar + rules[0].delay
        order.forced = forced
    order.lots = lots
    positions[symbol].ordered += lots
    account[0].waiting += 1


@njit
def fill_and_mark(closes, traded, account, positions, queue, rules, events, equity, exposure, bar):
    """Fill the orders due at the close of `bar`, and mark it again.

    Args:
        closes: close prices, float64 (T, N), quote units.
        traded: bool (T, N), whether the symbol traded in the bar.
        account: `ACCOUNT`, (1,); changed.
        positions: `POSITION`, (N,); changed.
        queue: `ORDER`, (N, C), C orders that may wait for each of N symbols; changed.
        rules: `RULES`, (1,).
        events: `EVENT`, (E,), the buffer; changed.
        equity: float64 (T,), quote units; row `bar` is written.
        exposure: sum of weights, float64 (T,); row `bar` is written.
        bar: row of the bar.
    """
    fill_due_orders(account, positions, queue, rules, events, bar, closes[bar], traded[bar], True)
    _write_mark(closes, account, positions, equity, exposure, bar)


@njit
def submit(pointers, symbols, lots, bar):
    """Queue orders at the close of a bar, and fill those that are due.

    Args:
        pointers: as made by `array_pointers`.
        symbols: numbers of the symbols, int64 (K,).
        lots: signed lots, int64 (K,).
        bar: row of the bar.
    """
    _, _, _, closes, traded, _, _, _, account, positions, queue, rules, events, equity, exposure = arrays_at(pointers)
    for at in range(len(symbols)):
        enqueue(account, positions, queue, rules, bar, symbols[at], lots[at], 0)
    fill_and_mark(closes, traded, account, positions, queue, rules, events, equity, exposure, bar)
