"""Compiles rules to small programs over shared columns, and computes the signals of thousands of them in one loop.

A rule's conditions compare two columns, or a column and a number, joined by AND and OR; a cross is two comparisons, now
and one row before. `strategies.states` maps the sides that are true to a weight, as for a rule that runs by itself.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import carray

from agent_bt.core.array_pointers import pointer
from agent_bt.core.jit import njit
from agent_bt.core.protocols import Strategy
from agent_bt.core.targets import is_change
from agent_bt.strategies.rules import AnyOf, Condition, RuleCondition, RuleSignalGenerator
from agent_bt.strategies.states import weight_of_cell
from agent_bt.strategies.technical import TechnicalRuleGenerator

Key = tuple[str, int]
"""Name of a column, and its lag in rows (0 or 1)."""

SIDES = ("long", "exit", "short", "cover")
_OPERATORS = ("<", "<=", ">", ">=", "==", "!=")
_AND, _OR = 6, 7
_TILE = 4096
"""Cells evaluated together: their masks stay in the L1 cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A rule as steps on a stack of masks.

    Attributes:
        steps: (code, left, right, number): compares two keys, or, where right is None, a key with the number; `_AND`
            and `_OR` join the two masks on top.
        sides: number of steps of each of `SIDES`.
        deepest: largest number of masks on the stack.
        size: target weight of a position; None: 1 / number of symbols.
        allow_short: whether negative weights are allowed.
    """

    steps: tuple[tuple[int, Key | None, Key | None, float], ...]
    sides: tuple[int, int, int, int]
    deepest: int
    size: float | None
    allow_short: bool

    @property
    def keys(self) -> list[Key]:
        """The columns that the program reads."""
        return [key for _, left, right, _ in self.steps for key in (left, right) if key is not None]


def program_of(strategy: Strategy) -> Program | None:
    """Return the program of a rule over all symbols; None for any other strategy."""
    if type(strategy) not in (RuleSignalGenerator, TechnicalRuleGenerator):
        return None
    assert isinstance(strategy, RuleSignalGenerator)
    if strategy.include or strategy.exclude:
        return None
    steps: list[tuple[int, Key | None, Key | None, float]] = []
    sides = []
    deepest = 1
    for side in SIDES:
        before = len(steps)
        if side in strategy.rules:
            deepest = max(deepest, _add(steps, strategy.rules[side]))
        sides.append(len(steps) - before)
    one, two, three, four = sides
    return Program(
        steps=tuple(steps),
        sides=(one, two, three, four),
        deepest=deepest,
        size=strategy.size,
        allow_short=strategy.allow_short,
    )


def _add(steps: list[tuple[int, Key | None, Key | None, float]], condition: Condition) -> int:
    """Append the steps of a condition; return the number of masks that it needs at once."""
    if isinstance(condition, RuleCondition):
        value = condition.value
        if condition.operator.startswith("crosses"):
            above = condition.operator == "crosses_above"
            _add_comparison(steps, ">" if above else "<", condition.column, value, 0)
            _add_comparison(steps, "<=" if above else ">=", condition.column, value, 1)
            steps.append((_AND, None, None, 0.0))
            return 2
        _add_comparison(steps, condition.operator, condition.column, value, 0)
        return 1
    deepest = _add(steps, condition.conditions[0])
    for inner in condition.conditions[1:]:
        deepest = max(deepest, 1 + _add(steps, inner))
        steps.append((_OR if isinstance(condition, AnyOf) else _AND, None, None, 0.0))
    return deepest


def _add_comparison(
    steps: list[tuple[int, Key | None, Key | None, float]], operator: str, column: str, value: float | str, lag: int
) -> None:
    right = (value, lag) if isinstance(value, str) else None
    number = 0.0 if isinstance(value, str) else float(value)
    steps.append((_OPERATORS.index(operator), (column, lag), right, number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """The changes of target weights of C strategies over N symbols, in the form of `engine.batch.Accounts`.

    Attributes:
        starts: where the changes of each strategy begin in the other arrays, int64 (C + 1,).
        rows: bars of the changes, int64 (S,).
        targets: weights of all symbols from then on, float64 (S, N).
    """

    starts: np.ndarray
    rows: np.ndarray
    targets: np.ndarray


def run_programs(
    programs: Sequence[Program],
    *,
    columns: Mapping[Key, np.ndarray],
    eligible: np.ndarray,
    rows: np.ndarray,
    begins: np.ndarray,
) -> Signals:
    """Return the signals of every program at the decisions from its own first one on.

    Args:
        programs: C rules; their targets act on change.
        columns: every key at the decision rows, float64 (D, N), contiguous.
        eligible: at the decision rows, bool (D, N).
        rows: the decision rows, int64 (D,), ascending.
        begins: index of the first decision of each program, int64 (C,).
    """
    symbols = eligible.shape[1]
    places = {key: at for at, key in enumerate(columns)}
    addresses = np.array([column.ctypes.data for column in columns.values()], np.int64)
    if any(column.shape != eligible.shape or not column.flags.c_contiguous for column in columns.values()):
        raise ValueError("every column must be contiguous and have the rows of the decisions")
    steps = np.array(
        [
            (code, -1 if left is None else places[left], -1 if right is None else places[right])
            for program in programs
            for code, left, right, _ in program.steps
        ],
        np.int64,
    ).reshape(-1, 3)
    numbers = np.array([number for program in programs for *_, number in program.steps])
    sides = np.array([program.sides for program in programs], np.int64).reshape(-1, 4)
    sizes = np.array([1.0 / symbols if program.size is None else program.size for program in programs])
    shorts = np.array([program.allow_short for program in programs])
    deepest = max((program.deepest for program in programs), default=1)
    starts, found, targets = _run_programs(
        addresses, eligible, rows, begins, steps, numbers, sides, sizes, shorts, deepest
    )
    return Signals(starts=starts, rows=found, targets=targets)


@njit
def _run_programs(addresses, eligible, rows, begins, steps, numbers, sides, sizes, shorts, deepest):
    decisions, symbols = eligible.shape
    tile = max(1, _TILE // symbols)
    cells = eligible.ravel()
    stack = np.empty((deepest, tile * symbols), np.uint8)
    held = np.empty((4, tile * symbols), np.uint8)
    states = np.empty((tile * symbols + 7) // 8 * 8, np.uint8)
    weights = np.empty(8)
    last = np.empty(symbols)
    starts = np.zeros(len(begins) + 1, np.int64)
    found = np.empty(1024, np.int64)
    targets = np.empty((1024, symbols))
    count = step = 0
    for at in range(len(begins)):
        for state in range(8):
            weights[state] = weight_of_cell(state & 1 > 0, state & 2 > 0, state & 4 > 0, sizes[at])
        last[:] = np.nan
        begin, first = step, begins[at]
        while first < decisions:
            beyond = min(decisions, first + tile)
            low, high = first * symbols, beyond * symbols
            step = begin
            for side in range(4):
                _evaluate_side(addresses, low, high, steps, numbers, step, step + sides[at, side], stack, held[side])
                step += sides[at, side]
            _combine_sides(held, cells[low:high], shorts[at], states)
            if count + beyond - first > len(found):
                found, targets = _grown(found, targets, 2 * (count + beyond - first))
            if symbols == 1:
                count = _record_changes_single(
                    states, beyond - first, first, rows, weights, last, found, targets, count
                )
            else:
                count = _record_changes(states, beyond - first, first, rows, weights, last, found, targets, count)
            first = beyond
        step = begin + sides[at].sum()
        starts[at + 1] = count
    return starts, found[:count].copy(), targets[:count].copy()


@njit
def _evaluate_side(addresses, low, high, steps, numbers, first, beyond, stack, held):
    """Write where the condition of one side is true in the cells low..high - 1; without steps it is true nowhere."""
    count = high - low
    if first == beyond:
        held[:count] = 0
        return
    if beyond == first + 1:
        _compare(addresses, low, high, steps, numbers, first, held)
        return
    top = 0
    for step in range(first, beyond):
        code = steps[step, 0]
        if code >= _AND:
            top -= 1
            one, other = stack[top - 1, :count], stack[top, :count]
            if code == _AND:
                for cell in range(count):
                    one[cell] &= other[cell]
            else:
                for cell in range(count):
                    one[cell] |= other[cell]
            continue
        _compare(addresses, low, high, steps, numbers, step, stack[top])
        top += 1
    held[:count] = stack[0, :count]


@njit
def _compare(addresses, low, high, steps, numbers, step, mask):
    code, left, right = steps[step, 0], steps[step, 1], steps[step, 2]
    if right >= 0:
        _compare_columns(code, _cells(addresses, left, low, high), _cells(addresses, right, low, high), mask)
    else:
        _compare_number(code, _cells(addresses, left, low, high), numbers[step], mask)


@njit
def _cells(addresses, place, low, high):
    return carray(pointer(addresses[place] + 8 * low), (high - low,), np.float64)


@njit
def _compare_columns(code, left, right, mask):
    # One loop per operator, so that each is vectorised; a comparison with NaN is false.
    if code == 0:
        for cell in range(len(left)):
            mask[cell] = left[cell] < right[cell]
    elif code == 1:
        for cell in range(len(left)):
            mask[cell] = left[cell] <= right[cell]
    elif code == 2:
        for cell in range(len(left)):
            mask[cell] = left[cell] > right[cell]
    elif code == 3:
        for cell in range(len(left)):
            mask[cell] = left[cell] >= right[cell]
    elif code == 4:
        for cell in range(len(left)):
            mask[cell] = left[cell] == right[cell]
    else:
        for cell in range(len(left)):
            mask[cell] = (left[cell] < right[cell]) | (left[cell] > right[cell])


@njit
def _compare_number(code, left, number, mask):
    if code == 0:
        for cell in range(len(left)):
            mask[cell] = left[cell] < number
    elif code == 1:
        for cell in range(len(left)):
            mask[cell] = left[cell] <= number
    elif code == 2:
        for cell in range(len(left)):
            mask[cell] = left[cell] > number
    elif code == 3:
        for cell in range(len(left)):
            mask[cell] = left[cell] >= number
    elif code == 4:
        for cell in range(len(left)):
            mask[cell] = left[cell] == number
    else:
        for cell in range(len(left)):
            mask[cell] = (left[cell] < number) | (left[cell] > number)


@njit
def _combine_sides(held, eligible, allow_short, states):
    """Write the state of each cell, 1 up + 2 down + 4 flat, as `RuleSignalGenerator` derives it from its sides."""
    long, leave, short, cover = held[0], held[1], held[2], held[3]
    for cell in range(len(eligible)):
        may = np.uint8(eligible[cell])
        up = long[cell] & may & (leave[cell] ^ np.uint8(1))
        down = short[cell] & may & (cover[cell] ^ np.uint8(1))
        flat = leave[cell] | cover[cell] | (may ^ np.uint8(1))
        if not allow_short:
            up, flat, down = up & (down ^ np.uint8(1)), flat | down, np.uint8(0)
        states[cell] = up | (down << np.uint8(1)) | (flat << np.uint8(2))


@njit
def _record_changes_single(states, count_here, first, rows, weights, last, found, targets, count):
    """Record the decisions at which the target of a single symbol changes; eight equal states are skipped at once."""
    words = states.view(np.uint64)
    before, pattern = 255, ~np.uint64(0)
    for word in range((count_here + 7) // 8):
        if words[word] == pattern:
            continue
        for at in range(8 * word, min(8 * word + 8, count_here)):
            state = states[at]
            if state == before:
                continue
            before, pattern = state, np.uint64(state) * np.uint64(0x0101010101010101)
            target = weights[state]
            if is_change(target, last[0], True):
                last[0] = target
                found[count] = rows[first + at]
                targets[count, 0] = target
                count += 1
    return count


@njit
def _record_changes(states, count_here, first, rows, weights, last, found, targets, count):
    """Record the decisions at which the target of any symbol changes, with the targets of all."""
    symbols = len(last)
    for at in range(count_here):
        new = False
        for symbol in range(symbols):
            target = weights[states[at * symbols + symbol]]
            if is_change(target, last[symbol], True):
                last[symbol] = target
                new = True
        if new:
            found[count] = rows[first + at]
            for symbol in range(symbols):
                targets[count, symbol] = weights[states[at * symbols + symbol]]
            count += 1
    return count


@njit
def _grown(found, targets, size):
    more = np.empty(size, np.int64)
    more[: len(found)] = found
    wider = np.empty((size, targets.shape[1]))
    wider[: len(targets)] = targets
    return more, wider
