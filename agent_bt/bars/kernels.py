"""Compiled loops that turn ticks into bars chunk by chunk and keep the unfinished bar between chunks.

All sums are taken tick by tick in order, so that any chunking gives bit-identical bars.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from agent_bt.core.jit import njit

TIME_BAR, TICK_BAR, VOLUME_BAR, DOLLAR_BAR = range(4)

BAR = np.dtype(
    [
        *((name, np.int64) for name in ("start", "end", "ticks", "ups", "reversals", "direction")),
        *((name, np.float64) for name in ("open", "high", "low", "close", "volume", "buy_volume", "dollar_volume")),
    ]
)
"""One bar, finished or not: times (UTC us), counts, prices (quote units), volumes (base units), dollar volume (quote
units); `direction` is the sign of the last price move inside the bar, 0 before the first."""


@njit
def aggregate(times, prices, quantities, makers, kind, threshold, step, state, begun, advanced, bars):
    """Add ticks to the unfinished bar in `state[0]` and write each bar that they finish to `bars`.

    Args:
        times: int64 (T,), UTC us, ascending.
        prices: float64 (T,), quote units.
        quantities: float64 (T,), base units.
        makers: bool (T,), True where the buyer was the maker, so that the taker sold.
        kind: `TIME_BAR`, `TICK_BAR`, `VOLUME_BAR` or `DOLLAR_BAR`.
        threshold: volume in base units or dollar volume in quote units at which a bar ends; else unused.
        step: length of a time bar in us, or ticks of a tick bar; else unused.
        state: `BAR` (1,), the unfinished bar; updated in place.
        begun: bool, whether `state` holds ticks.
        advanced: bool, whether up-moves and reversals are counted.
        bars: `BAR` (B,), buffer that finished bars are written to.

    Returns:
        The number of ticks used, the number of bars written, and whether `state` holds ticks. Fewer than T ticks are
        used when `bars` is full: call again with the rest.
    """
    at, written, total = 0, 0, len(times)
    while at < total:
        if begun and kind == TIME_BAR and times[at] >= state[0]["end"]:
            if written == len(bars):
                return at, written, begun
            bars[written] = state[0]
            written += 1
            begun = False
        if not begun:
            if written == len(bars):
                return at, written, begun
            _begin(state, times[at], prices[at], kind, step)
            begun = True
        if kind == TIME_BAR:
            stop = at + np.searchsorted(times[at:], state[0]["end"])
        elif kind == TICK_BAR:
            stop = min(total, at + step - state[0]["ticks"])
        else:
            stop = _reach(prices, quantities, kind, threshold, state, at)
        if advanced:
            _count_moves(prices, state, at, stop)
        _add(prices, quantities, makers, state, at, stop)
        if kind != TIME_BAR:
            state[0]["end"] = times[stop - 1]
        at = stop
        full = kind == TICK_BAR and state[0]["ticks"] == step
        full = full or (kind == VOLUME_BAR and state[0]["volume"] >= threshold)
        full = full or (kind == DOLLAR_BAR and state[0]["dollar_volume"] >= threshold)
        if full:
            bars[written] = state[0]
            written += 1
            begun = False
    return at, written, begun


@njit
def _begin(state, time, price, kind, step):
    """Start a bar with the tick at `time`; a time bar covers [start, end) on the grid of its length."""
    bar = state[0]
    bar["start"] = time
    bar["end"] = time
    if kind == TIME_BAR:
        bar["start"] = time // step * step
        bar["end"] = bar["start"] + step
    bar["ticks"], bar["ups"], bar["reversals"], bar["direction"] = 0, 0, 0, 0
    bar["open"], bar["high"], bar["low"], bar["close"] = price, price, price, price
    bar["volume"], bar["buy_volume"], bar["dollar_volume"] = 0.0, 0.0, 0.0


@njit
def _reach(prices, quantities, kind, threshold, state, at):
    """Return the row after the tick with which the bar reaches its threshold, or the number of ticks."""
    if kind == VOLUME_BAR:
        reached = state[0]["volume"]
        while at < len(prices):
            reached += quantities[at]
            at += 1
            if reached >= threshold:
                break
    else:
        reached = state[0]["dollar_volume"]
        while at < len(prices):
            reached += prices[at] * quantities[at]
            at += 1
            if reached >= threshold:
                break
    return at


@njit
def _add(prices, quantities, makers, state, start, stop):
    """Add the ticks [start, stop) to the bar."""
    bar = state[0]
    high, low = bar["high"], bar["low"]
    volume, buys, dollars = bar["volume"], bar["buy_volume"], bar["dollar_volume"]
    for at in range(start, stop):
        price, quantity = prices[at], quantities[at]
        high = price if price > high else high
        low = price if price < low else low
        volume += quantity
        # Adding 0.0 instead of branching: the side of the taker is close to random, so branches are mispredicted.
        buys += quantity * (1.0 - makers[at])
        dollars += price * quantity
    bar["high"], bar["low"] = high, low
    bar["volume"], bar["buy_volume"], bar["dollar_volume"] = volume, buys, dollars
    bar["close"] = prices[stop - 1]
    bar["ticks"] += stop - start


@njit
def _count_moves(prices, state, start, stop):
    """Count the price moves up, and the changes of direction, from the bar's last tick on."""
    bar = state[0]
    before, direction, ups, reversals = bar["close"], bar["direction"], 0, 0
    for at in range(start, stop):
        price = prices[at]
        move = int(price > before) - int(price < before)
        ups += move > 0
        reversals += move * direction < 0
        direction = move if move != 0 else direction
        before = price
    bar["direction"] = direction
    bar["ups"] += ups
    bar["reversals"] += reversals


@njit
def medians(prices, counts, result):
    """Write the median price of each bar to `result`; bar b owns the next `counts[b]` rows of `prices`.

    Args:
        prices: float64 (T,), quote units, the ticks of all bars one after another.
        counts: int64 (B,), number of ticks of each bar, at least 1; their sum is T.
        result: float64 (B,), quote units; overwritten.
    """
    largest = 0
    for bar in range(len(counts)):
        largest = max(largest, counts[bar])
    scratch = np.empty(largest)
    start = 0
    for bar in range(len(counts)):
        count = counts[bar]
        for at in range(count):
            scratch[at] = prices[start + at]
        start += count
        upper = _select(scratch, count, count // 2)
        if count % 2 == 1:
            result[bar] = upper
        else:
            lower = scratch[0]
            for at in range(1, count // 2):
                lower = scratch[at] if scratch[at] > lower else lower
            result[bar] = 0.5 * (lower + upper)


@njit
def _select(values, count, rank):
    """Return the value of `rank` among the first `count` and move smaller ones before it (quickselect, Hoare 1961)."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        # The median of three as pivot avoids quadratic time on prices that are already sorted.
        if values[middle] < values[low]:
            values[middle], values[low] = values[low], values[middle]
        if values[high] < values[low]:
            values[high], values[low] = values[low], values[high]
        if values[high] < values[middle]:
            values[high], values[middle] = values[middle], values[high]
        pivot = values[middle]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if rank <= right:
            high = right
        elif rank >= left:
            low = left
        else:
            break
    return values[rank]
