# mypy: allow-untyped-defs, allow-untyped-calls
"""Fill orders, stops and take-profits: the part of the accounting step that changes positions.

Arguments are those of `core.accounting`: the records of the state, which are changed, and the prices of one bar,
float64 (N,). `bar` is the row of the bar, `symbol` the number of a symbol, `slot` its place in the queue, `lots` are
signed, `reference` is a price before slippage (quote units), `reason` one of `records.ORDERED` and following.
"""

from __future__ import annotations

import numpy as np

from agent_bt.core.jit import njit
from agent_bt.core.lots import floor_to_lots
from agent_bt.core.records import (
    AT_DRAWDOWN,
    DRAWDOWN,
    DROPPED,
    FILLED,
    ORDERED,
    STOP_LOSS,
    TAKE_PROFIT,
    USED_UP,
)


@njit
def record_event(account, events, kind, bar, symbol, lots, quantity, price, reference, fee, slippage, realised, reason):
    """Append an event (`records.EVENT`) to the buffer; without room it is only counted.

    Args:
        account: `ACCOUNT`, (1,); its number of events is raised.
        events: `EVENT`, (E,), the buffer; changed.
        kind: `FILLED` or `DROPPED`.
        bar: row of the bar.
        symbol: number of the symbol.
        lots: signed lots.
        quantity: the same in base units; 0 for an order that was dropped, as are the amounts that follow.
        price: quote units, slippage included.
        reference: price before slippage, quote units.
        fee: quote units.
        slippage: cost of slippage, quote units, >= 0.
        realised: realised profit before the fee, quote units.
        reason: `records.ORDERED` or one of those that follow it.
    """
    at = account[0].events
    if at < len(events):
        events[at].kind = kind
        events[at].bar = bar
        events[at].symbol = symbol
        events[at].lots = lots
        events[at].quantity = quantity
        events[at].price = price
        events[at].reference = reference
        events[at].fee = fee
        events[at].slippage = slippage
        events[at].realised = realised
        events[at].reason = reason
    account[0].events = at + 1


@njit
def fill(account, positions, rules, events, bar, symbol, lots, reference, reason):
    """Trade `lots` of a symbol at the price `reference` plus slippage and fee, and record the fill.

    Args:
        account: `ACCOUNT`, (1,); changed.
        positions: `POSITION`, (N,); changed.
        rules: `RULES`, (1,).
        events: `EVENT`, (E,), the buffer; changed.
        bar: row of the bar.
        symbol: number of the symbol.
        lots: signed lots, not 0.
        reference: price before slippage, quote units.
        reason: `records.ORDERED` or one of those that follow it.
    """
    rule, held = rules[0], positions[symbol]
    price = reference * (1.0 + rule.slippage) if lots > 0 else reference * (1.0 - rule.slippage)
    quantity = lots * rule.multiple / rule.scale
    notional = quantity * price
    fee = abs(notional) * rule.fee_rate
    slippage = abs(quantity) * abs(price - reference)
    before, after = held.lots, held.lots + lots
    realised = 0.0
    if before != 0 and (before > 0) != (lots > 0):
        closed = min(abs(lots), abs(before)) * rule.multiple / rule.scale
        realised = closed * (price - held.average) if before > 0 else closed * (held.average - price)
        if after == 0:
            held.average = 0.0
            account[0].held -= 1
        elif (after > 0) != (before > 0):
            held.average = price
            held.opened = bar
    elif before == 0:
        held.average = price
        held.opened = bar
        account[0].held += 1
    else:
        held.average = (held.average * held.quantity + notional) / (held.quantity + quantity)
    held.lots = after
    held.quantity = after * rule.multiple / rule.scale
    account[0].cash = account[0].cash - notional - fee
    account[0].realised += realised
    account[0].fees += fee
    account[0].slippage += slippage
    record_event(
        account, events, FILLED, bar, symbol, lots, quantity, price, reference, fee, slippage, realised, reason
    )


@njit
def _affordable_lots(account, rules, lots, reference):
    """Return the lots of a buy that the cash pays for, costs included."""
    rule = rules[0]
    price = reference * (1.0 + rule.slippage) * (1.0 + rule.fee_rate)
    cash = account[0].cash
    if lots * rule.multiple / rule.scale * price > cash:
        lots = min(lots, floor_to_lots(max(cash, 0.0) / price, rule.multiple, rule.scale))
    paid = reference * (1.0 + rule.slippage)
    while lots > 0:
        notional = lots * rule.multiple / rule.scale * paid
        if cash - notional - notional * rule.fee_rate >= 0.0:
            break
        lots -= 1
    return lots


@njit
def lots_opened(lots, held):
    """Return how many lots an order opens: those it adds to a position, all of them where it changes sides, else 0.

    Args:
        lots: signed lots of the order.
        held: signed lots of the position.
    """
    after = held + lots
    if (held > 0 and after < 0) or (held < 0 and after > 0):
        return abs(after)
    return max(abs(after) - abs(held), 0)


@njit
def may_be_small(rule, lots, held):
    """Return whether an order may be below the smallest notional: on margin, one that only reduces a position.

    Args:
        rule: `RULES` record.
        lots: signed lots of the order.
        held: signed lots of the position.
    """
    return rule.margin == 1 and lots_opened(lots, held) == 0


@njit
def remove_order(account, positions, queue, symbol, slot):
    """Remove an order from the queue and return its lots.

    Args:
        account: `ACCOUNT`, (1,); changed.
        positions: `POSITION`, (N,); changed.
        queue: `ORDER`, (N, C), C orders that may wait for each of N symbols; changed.
        symbol: number of the symbol.
        slot: place of the order in the queue of the symbol.
    """
    lots = queue[symbol, slot].lots
    queue[symbol, slot].lots = 0
    positions[symbol].ordered -= lots
    account[0].waiting -= 1
    return lots


@njit
def _is_due(order, bar, closing):
    if closing:
        return order.at_close == 1 and order.due == bar
    return order.due < bar or (order.due == bar and order.at_close == 0)


@njit
def _opening_scale(account, positions, queue, rules, bar, prices, traded, closing):
    """Return the fraction of what is opened that can be paid: by the cash of a spot account, or within the leverage."""
    rule = rules[0]
    needed, costs, closed = 0.0, 0.0, 0.0
    for symbol in range(queue.shape[0]):
        held = positions[symbol].lots
        for slot in range(queue.shape[1]):
            order = queue[symbol, slot]
            if order.lots == 0 or not traded[symbol] or not _is_due(order, bar, closing):
                continue
            opened = lots_opened(order.lots, held)
            if opened > 0:
                value = rule.multiple / rule.scale * prices[symbol]
                needed += opened * value
                costs += abs(order.lots) * value * (rule.slippage + (1.0 + rule.slippage) * rule.fee_rate)
                closed += (abs(order.lots) - opened) * value
            held += order.lots
    if needed == 0.0:
        return 1.0
    if rule.margin == 0:
        return min(1.0, max(account[0].cash, 0.0) / (needed + costs))
    equity, gross = account[0].cash, -closed
    for symbol in range(len(positions)):
        if positions[symbol].lots != 0:
            value = positions[symbol].quantity * prices[symbol]
            equity += value
            gross += abs(value)
    return min(1.0, max(rule.max_leverage * (equity - costs) - gross, 0.0) / needed)


@njit
def fill_due_orders(account, positions, queue, rules, events, bar, prices, traded, closing):
    """Fill the orders that are due: at the open all that waited for it, at the close those due exactly then.

    Args:
        account: `ACCOUNT`, (1,); changed.
        positions: `POSITION`, (N,); changed.
        queue: `ORDER`, (N, C), C orders that may wait for each of N symbols; changed.
        rules: `RULES`, (1,).
        events: `EVENT`, (E,), the buffer; changed.
        bar: row of the bar.
        prices: open or close prices of the bar, float64 (N,), quote units.
        traded: bool (N,), whether the symbol traded in the bar; orders of the others wait on.
        closing: whether the bar is at its close.
    """
    if account[0].waiting == 0:
        return
    rule = rules[0]
    for opening in range(2):
        scaling = 1.0
        if opening == 1:
            scaling = _opening_scale(account, positions, queue, rules, bar, prices, traded, closing)
        for symbol in range(queue.shape[0]):
            if not traded[symbol]:
                continue
            for slot in range(queue.shape[1]):
                order = queue[symbol, slot]
                lots, held = order.lots, positions[symbol].lots
                if lots == 0 or not _is_due(order, bar, closing):
                    continue
                if rule.allow_short == 0 and lots < 0:
                    lots = -min(-lots, held)
                opened = lots_opened(lots, held)
                if opened > 0 and opening == 0:
                    continue
                if opened > 0 and scaling < 1.0:
                    kept = floor_to_lots(opened * rule.multiple / rule.scale * scaling, rule.multiple, rule.scale)
                    less = opened - min(opened, kept)
                    lots += -less if lots > 0 else less
                if rule.margin == 0 and lots > 0:
                    lots = _affordable_lots(account, rules, lots, prices[symbol])
                notional = abs(lots) * rule.multiple / rule.scale * prices[symbol]
                small = abs(lots) < rule.min_lots or (
                    notional < rule.min_notional and not may_be_small(rule, lots, held)
                )
                if lots == 0 or (small and order.forced == 0):
                    record_event(
                        account, events, DROPPED, bar, symbol, order.lots, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ORDERED
                    )
                else:
                    reason = ORDERED
                    if order.forced == 1:
                        reason = DRAWDOWN if account[0].halted == AT_DRAWDOWN else USED_UP
                    fill(account, positions, rules, events, bar, symbol, lots, prices[symbol], reason)
                remove_order(account, positions, queue, symbol, slot)


TOUCH = 1e-12
"""Part of a level by which a price may miss it and still touch it: far below a tick, above the rounding of float64."""


@njit
def highest_touching(level):
    """Return the highest price that touches a level from above: 1.01 less 5% is 0.9595, in float64 just below it."""
    return level * (1.0 + TOUCH)


@njit
def lowest_touching(level):
    """Return the lowest price that touches a level from below."""
    return level * (1.0 - TOUCH)


@njit
def _touched_price(level, opened, extreme, below):
    """Return the price at which a bar fills a level, NaN if it does not touch it.

    It is the level, the open where the bar opens beyond the level, and the extreme of the bar where only the rounding
    of the level separates them. `below`: whether prices at or below the level touch it, otherwise those at or above.
    """
    if below:
        if extreme <= level:
            return min(opened, level)
        return extreme if extreme <= highest_touching(level) else np.nan
    if extreme >= level:
        return max(opened, level)
    return extreme if extreme >= lowest_touching(level) else np.nan


@njit
def trigger_stops(account, positions, queue, rules, events, bar, opens, highs, lows, traded):
    """Trigger stop-loss, then take-profit, of positions held when the bar began or opened at its open.

    The reference price is the level, or the open where the bar opens beyond it; slippage and fee come on top. A price
    that a level touches in decimals touches it here (`TOUCH`).

    Args:
        account: `ACCOUNT`, (1,); changed.
        positions: `POSITION`, (N,); changed.
        queue: `ORDER`, (N, C), C orders that may wait for each of N symbols; changed.
        rules: `RULES`, (1,).
        events: `EVENT`, (E,), the buffer; changed.
        bar: row of the bar.
        opens: open prices of the bar, float64 (N,), quote units.
        highs: its high prices, as `opens`.
        lows: its low prices, as `opens`.
        traded: bool (N,), whether the symbol traded in the bar.
    """
    rule = rules[0]
    for symbol in range(len(positions)):
        held = positions[symbol]
        if held.lots == 0 or not traded[symbol]:
            continue
        long = held.lots > 0
        sign = 1.0 if long else -1.0
        adverse = lows[symbol] if long else highs[symbol]
        favourable = highs[symbol] if long else lows[symbol]
        if rule.stop_loss > 0.0:
            level = held.average * (1.0 - sign * rule.stop_loss)
            reference = _touched_price(level, opens[symbol], adverse, long)
            if not np.isnan(reference):
                close_position(account, positions, queue, rules, events, bar, symbol, reference, STOP_LOSS)
                continue
        if rule.take_profit > 0.0:
            level = held.average * (1.0 + sign * rule.take_profit)
            reference = _touched_price(level, opens[symbol], favourable, not long)
            if not np.isnan(reference):
                close_position(account, positions, queue, rules, events, bar, symbol, reference, TAKE_PROFIT)


@njit
def close_position(account, positions, queue, rules, events, bar, symbol, reference, reason):
    """Close a position at a stop, and reduce the waiting orders that would have closed or reversed it by as much.

    Args:
        account: `ACCOUNT`, (1,); changed.
        positions: `POSITION`, (N,); changed.
        queue: `ORDER`, (N, C), C orders that may wait for each of N symbols; changed.
        rules: `RULES`, (1,).
        events: `EVENT`, (E,), the buffer; changed.
        bar: row of the bar.
        symbol: number of the symbol.
        reference: price before slippage, quote units.
        reason: `STOP_LOSS` or `TAKE_PROFIT`.
    """
    lots = -positions[symbol].lots
    fill(account, positions, rules, events, bar, symbol, lots, reference, reason)
    for slot in range(queue.shape[1]):
        order = queue[symbol, slot]
        if order.lots == 0 or (order.lots > 0) != (lots > 0) or lots == 0:
            continue
        done = min(abs(order.lots), abs(lots))
        done = done if lots > 0 else -done
        lots -= done
        if order.lots == done:
            remove_order(account, positions, queue, symbol, slot)
            record_event(account, events, DROPPED, bar, symbol, done, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, reason)
        else:
            order.lots -= done
            positions[symbol].ordered -= done
