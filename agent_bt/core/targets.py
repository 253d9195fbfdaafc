# mypy: allow-untyped-defs, allow-untyped-calls
"""Which target weights ask for something, and which stand: one rule for every driver, compiled.

Targets are float64 (D, N): one row a decision, one column a symbol, NaN where the symbol is left alone.
"""

from __future__ import annotations

import numpy as np

from agent_bt.core.jit import njit

_BLOCK = 64


@njit
def is_change(target, last, on_change):
    """Return whether a target asks for something.

    Args:
        target: target weight, NaN where the symbol is left alone.
        last: the target weight given last, NaN where none was.
        on_change: whether a target equal to the last one is left alone as well.
    """
    # Without a branch, so that a loop over it compares several at once.
    return (target == target) & ((target != last) | (not on_change))


@njit
def next_change(targets, last, on_change, at):
    """Return the first row of `targets` from `at` on that asks for something; `len(targets)` if there is none.

    Args:
        targets: target weights, float64 (D, N), NaN: left alone.
        last: the target weights given before row `at`, float64 (N,), NaN: none.
        on_change: whether a target equal to the last one is left alone as well.
        at: row to begin with.
    """
    rows, symbols = targets.shape
    if symbols == 1:
        before = last[0]
        if at < rows and is_change(targets[at, 0], before, on_change):
            return at
        while at + _BLOCK <= rows:
            changes = 0
            for row in range(at, at + _BLOCK):
                changes += is_change(targets[row, 0], before, on_change)
            if changes > 0:
                break
            at += _BLOCK
        while at < rows and not is_change(targets[at, 0], before, on_change):
            at += 1
        return at
    while at < rows:
        for symbol in range(symbols):
            if is_change(targets[at, symbol], last[symbol], on_change):
                return at
        at += 1
    return at


@njit
def remember(last, targets):
    """Write the targets of one decision over those given last.

    Args:
        last: the target weights given last, float64 (N,); changed.
        targets: those of the decision, float64 (N,), NaN: left alone.
    """
    for symbol in range(len(targets)):
        # Equal targets keep their bits: the sign of a zero does not depend on which decisions a driver passes over.
        if is_change(targets[symbol], last[symbol], True):
            last[symbol] = targets[symbol]


@njit
def changed_rows(targets, on_change):
    """Return the rows of the decisions that ask for something, int64, ascending.

    Args:
        targets: target weights, float64 (D, N), NaN: left alone.
        on_change: whether a target equal to the one given last is left alone as well.
    """
    found = np.empty(len(targets), np.int64)
    last = np.full(targets.shape[1], np.nan)
    count = 0
    at = next_change(targets, last, on_change, 0)
    while at < len(targets):
        remember(last, targets[at])
        found[count] = at
        count += 1
        at = next_change(targets, last, on_change, at + 1)
    return found[:count].copy()


@njit
def changed_cells(targets, start):
    """Return the targets with NaN wherever one equals the one given last; float64 (D, N).

    Args:
        targets: target weights, float64 (D, N), NaN: left alone.
        start: the target of every symbol before the first row.
    """
    changed = np.full(targets.shape, np.nan)
    for symbol in range(targets.shape[1]):
        last = start
        for row in range(len(targets)):
            if is_change(targets[row, symbol], last, True):
                last = changed[row, symbol] = targets[row, symbol]
    return changed


@njit
def standing_targets(targets, window):
    """Return the target that stands at each row: the last one given in its trailing `window` rows, 0 if none was.

    Args:
        targets: target weights, float64 (D, N), NaN: left alone.
        window: rows, the row itself included, for which a target stands.

    Returns:
        float64 (D, N).
    """
    stands = np.zeros(targets.shape)
    for symbol in range(targets.shape[1]):
        given = -window
        for row in range(targets.shape[0]):
            if not np.isnan(targets[row, symbol]):
                given = row
            if row - given < window:
                stands[row, symbol] = targets[given, symbol]
    return stands
