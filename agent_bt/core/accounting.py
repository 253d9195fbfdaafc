# mypy: allow-untyped-defs, allow-untyped-calls
"""The compiled accounting step: `(state, bar, orders) -> (state, events)` over a small array state.

Every driver of the engine runs these functions and no others, so that the same orders give the same bits.

One bar t, in order (`advance`):
  1. orders that are due fill at the open, sells first, then buys scaled to the cash    `_execute`
  2. stops and take-profits inside the bar, stop first                                  `_protect`
  3. orders due at this close fill at it                                                `_execute`
  4. the account is marked at the close; passing the drawdown limit closes everything   `_mark`
Orders that a decision makes at the close of t are queued by `enqueue`; those due at once fill in `settle`, and the
bar is marked again.

State, all mutable records of fixed layout (copying them forks the account):
  account (1,)      ACCOUNT      positions (N,)  POSITION      queue (N, C)  ORDER
Market, read only, float64 (T, N): open, high, low, close; traded: bool (T, N), False where nothing traded.
Quantities are whole lots; a lot is `multiple / scale` base units, both whole numbers, so that lots x step is exact.
Cash of a short position includes its proceeds, so equity = cash + sum(quantity x close) holds for every account.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from agent_bt.core.jit import njit


def _record(*, floats: str, ints: str) -> np.dtype:
    return np.dtype([(name, np.float64) for name in floats.split()] + [(name, np.int64) for name in ints.split()])


ACCOUNT = _record(floats="cash realised fees slippage funding equity peak drawdown", ints="halted waiting held events")
"""Amounts in quote units; `drawdown` <= 0, a share; `waiting` orders; `held` open positions; `events` buffered."""

POSITION = _record(floats="quantity average", ints="lots opened")
"""Signed base units and lots, average entry price, row of the bar it was opened in."""

ORDER = _record(floats="", ints="lots due at_close forced")
"""Signed lots (0: free slot), row of the bar it is due in, at its close or open, exempt from minimum sizes."""

RULES = _record(
    floats="fee_rate slippage scale multiple min_notional stop_loss take_profit max_drawdown",
    ints="min_lots allow_short delay at_close",
)
"""Costs as shares; a lot is multiple / scale; 0 switches stop_loss, take_profit, max_drawdown off; `delay` in bars."""

EVENT = _record(floats="quantity price reference fee slippage realised", ints="kind bar symbol lots reason")

FILLED, DROPPED = 0, 1
"""Kinds of event: a fill; an order that was given up because it fell below a minimum, the cash or the holding."""
ORDERED, STOP_LOSS, TAKE_PROFIT, DRAWDOWN = 0, 1, 2, 3
REASONS = ("order", "stop_loss", "take_profit", "drawdown")


def lot_of(step: float) -> tuple[int, int]:
    """A decimal lot step as (multiple, scale): step = multiple / scale, both whole.

    Raises:
        ValueError: the step is not a positive decimal number of at most 15 places.
    """
    exact = Decimal(repr(step))
    exponent = exact.as_tuple().exponent
    if not exact.is_finite() or exact <= 0 or not isinstance(exponent, int) or exponent < -15:
        raise ValueError(f"lot step {step!r} must be a positive decimal of at most 15 places")
    scale = 10 ** max(0, -exponent)
    return int(exact * scale), scale


@njit
def lots_in(quantity: float, multiple: float, scale: float) -> int:
    """Whole lots in a quantity (>= 0), rounded down; a quantity within 4 ulp of a lot boundary counts as on it."""
    lots = quantity * scale / multiple
    nearest = np.rint(lots)
    if abs(lots - nearest) <= 4.0 * 2.220446049250313e-16 * abs(lots):
        return int(nearest)
    return int(np.floor(lots))


@njit
def _event(account, events, kind, bar, symbol, lots, quantity, price, reference, fee, slippage, realised, reason):
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
def _fill(account, positions, rules, events, bar, symbol, lots, reference, reason):
    """Trade `lots` of one symbol at `reference` plus slippage and fee."""
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
    _event(account, events, FILLED, bar, symbol, lots, quantity, price, reference, fee, slippage, realised, reason)


@njit
def _affordable(account, rules, lots, reference, scaling):
    """The lots of a buy that the cash pays for, costs included, after scaling."""
    rule = rules[0]
    price = reference * (1.0 + rule.slippage) * (1.0 + rule.fee_rate)
    cash = account[0].cash
    if scaling < 1.0:
        lots = min(lots, lots_in(lots * rule.multiple / rule.scale * scaling, rule.multiple, rule.scale))
    if lots * rule.multiple / rule.scale * price > cash:
        lots = min(lots, lots_in(max(cash, 0.0) / price, rule.multiple, rule.scale))
    paid = reference * (1.0 + rule.slippage)
    while lots > 0:
        notional = lots * rule.multiple / rule.scale * paid
        if cash - notional - notional * rule.fee_rate >= 0.0:
            break
        lots -= 1
    return lots


@njit
def _execute(account, positions, queue, rules, events, bar, prices, traded, closing):
    """Fill what is due: at the open everything that waited for it, at the close what is due exactly then."""
    if account[0].waiting == 0:
        return
    rule = rules[0]
    for side in range(2):
        scaling = 1.0
        if side == 1 and rule.allow_short == 0:
            needed = 0.0
            for symbol in range(queue.shape[0]):
                for slot in range(queue.shape[1]):
                    order = queue[symbol, slot]
                    if order.lots > 0 and _is_due(order, bar, closing) and traded[symbol]:
                        price = prices[symbol] * (1.0 + rule.slippage) * (1.0 + rule.fee_rate)
                        needed += order.lots * rule.multiple / rule.scale * price
            if needed > account[0].cash:
                scaling = max(account[0].cash, 0.0) / needed
        for symbol in range(queue.shape[0]):
            if not traded[symbol]:
                continue
            for slot in range(queue.shape[1]):
                order = queue[symbol, slot]
                lots = order.lots
                if lots == 0 or (lots > 0) != (side == 1) or not _is_due(order, bar, closing):
                    continue
                if rule.allow_short == 0:
                    if side == 0:
                        lots = -min(-lots, positions[symbol].lots)
                    else:
                        lots = _affordable(account, rules, lots, prices[symbol], scaling)
                notional = abs(lots) * rule.multiple / rule.scale * prices[symbol]
                small = abs(lots) < rule.min_lots or notional < rule.min_notional
                if lots == 0 or (small and order.forced == 0):
                    _event(account, events, DROPPED, bar, symbol, order.lots, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ORDERED)
                else:
                    reason = DRAWDOWN if order.forced == 1 else ORDERED
                    _fill(account, positions, rules, events, bar, symbol, lots, prices[symbol], reason)
                order.lots = 0
                account[0].waiting -= 1


@njit
def _is_due(order, bar, closing):
    if closing:
        return order.at_close == 1 and order.due == bar
    return order.due < bar or (order.due == bar and order.at_close == 0)


@njit
def _protect(account, positions, rules, events, bar, opens, highs, lows, traded):
    """Stop-loss, then take-profit, of what was held when the bar began or was opened at its open."""
    rule = rules[0]
    if account[0].held == 0 or (rule.stop_loss == 0.0 and rule.take_profit == 0.0):
        return
    for symbol in range(len(positions)):
        held = positions[symbol]
        if held.lots == 0 or not traded[symbol]:
            continue
        sign = 1.0 if held.lots > 0 else -1.0
        adverse = lows[symbol] if held.lots > 0 else highs[symbol]
        favourable = highs[symbol] if held.lots > 0 else lows[symbol]
        if rule.stop_loss > 0.0:
            level = held.average * (1.0 - sign * rule.stop_loss)
            if sign * (adverse - level) <= 0.0:
                reference = opens[symbol] if sign * (opens[symbol] - level) <= 0.0 else level
                _fill(account, positions, rules, events, bar, symbol, -held.lots, reference, STOP_LOSS)
                continue
        if rule.take_profit > 0.0:
            level = held.average * (1.0 + sign * rule.take_profit)
            if sign * (favourable - level) >= 0.0:
                reference = opens[symbol] if sign * (opens[symbol] - level) >= 0.0 else level
                _fill(account, positions, rules, events, bar, symbol, -held.lots, reference, TAKE_PROFIT)


@njit
def _mark(account, positions, closes):
    """Value the account at the closes; peak and drawdown follow."""
    equity = account[0].cash
    if account[0].held > 0:
        for symbol in range(len(positions)):
            if positions[symbol].lots != 0:
                equity += positions[symbol].quantity * closes[symbol]
    account[0].equity = equity
    if equity > account[0].peak:
        account[0].peak = equity
    account[0].drawdown = equity / account[0].peak - 1.0
    return equity


@njit
def _halt(account, positions, queue, rules, events, bar, closes, traded):
    """Close everything, now where the bar traded, else at the next traded open; forget every other order."""
    account[0].halted = 1
    for symbol in range(len(positions)):
        for slot in range(queue.shape[1]):
            if queue[symbol, slot].lots != 0:
                queue[symbol, slot].lots = 0
                account[0].waiting -= 1
        lots = positions[symbol].lots
        if lots != 0 and traded[symbol]:
            _fill(account, positions, rules, events, bar, symbol, -lots, closes[symbol], DRAWDOWN)
        elif lots != 0:
            queue[symbol, 0].lots = -lots
            queue[symbol, 0].due = bar
            queue[symbol, 0].at_close = 1
            queue[symbol, 0].forced = 1
            account[0].waiting += 1


@njit
def advance(
    opens, highs, lows, closes, traded, account, positions, queue, rules, events, equity, exposure, first, last
):
    """Run the bars first..last (inclusive); writes `equity` and `exposure` (float64 (T,), share of equity held)."""
    rule = rules[0]
    for bar in range(first, last + 1):
        if account[0].waiting > 0:
            _execute(account, positions, queue, rules, events, bar, opens[bar], traded[bar], False)
        if account[0].held > 0:
            _protect(account, positions, rules, events, bar, opens[bar], highs[bar], lows[bar], traded[bar])
        if account[0].waiting > 0:
            _execute(account, positions, queue, rules, events, bar, closes[bar], traded[bar], True)
        value = _mark(account, positions, closes[bar])
        if rule.max_drawdown > 0.0 and account[0].halted == 0 and -account[0].drawdown > rule.max_drawdown:
            _halt(account, positions, queue, rules, events, bar, closes[bar], traded[bar])
            value = _mark(account, positions, closes[bar])
        equity[bar] = value
        exposure[bar] = (value - account[0].cash) / value if account[0].held > 0 else 0.0


@njit
def enqueue(account, queue, rules, events, bar, symbol, lots, forced):
    """Queue one order made at the close of `bar`; with all slots waiting, the oldest gives way."""
    slot = 0
    for candidate in range(queue.shape[1]):
        if queue[symbol, candidate].lots == 0:
            slot = candidate
            break
        if queue[symbol, candidate].due < queue[symbol, slot].due:
            slot = candidate
    order = queue[symbol, slot]
    if order.lots != 0:
        _event(account, events, DROPPED, bar, symbol, order.lots, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ORDERED)
        account[0].waiting -= 1
    order.lots = lots
    order.at_close = rules[0].at_close
    order.due = bar + rules[0].delay
    order.forced = forced
    account[0].waiting += 1


@njit
def settle(closes, traded, account, positions, queue, rules, events, equity, exposure, bar):
    """Fill the orders due at the close of `bar`, and mark it again."""
    _execute(account, positions, queue, rules, events, bar, closes[bar], traded[bar], True)
    value = _mark(account, positions, closes[bar])
    equity[bar] = value
    exposure[bar] = (value - account[0].cash) / value if account[0].held > 0 else 0.0
