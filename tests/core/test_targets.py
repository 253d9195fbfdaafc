"""Which targets ask for something and which stand, against the same rules written row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.targets import changed_cells, changed_rows, is_change, next_change, standing_targets

NAN = math.nan


def changes(targets: list[list[float]], on_change: bool) -> list[int]:
    """The rows that ask for something, one symbol after another."""
    last = [NAN] * len(targets[0])
    found = []
    for row, wanted in enumerate(targets):
        asks = False
        for symbol, target in enumerate(wanted):
            if math.isnan(target):
                continue
            if not on_change or target != last[symbol]:
                asks = True
            last[symbol] = target
        if asks:
            found.append(row)
    return found


@pytest.mark.parametrize(
    ("target", "last", "on_change", "asks"),
    [
        (0.5, NAN, True, True),
        (0.5, 0.5, True, False),
        (0.5, 0.5, False, True),
        (0.0, -0.0, True, False),
        (0.5, 0.25, True, True),
        (NAN, 0.5, False, False),
        (NAN, NAN, True, False),
    ],
)
def test_a_target_asks_for_something_unless_it_is_left_alone_or_the_last_one(
    target: float, last: float, on_change: bool, asks: bool
) -> None:
    assert bool(is_change(target, last, on_change)) is asks


@given(
    cells=st.lists(st.sampled_from([NAN, 0.0, 0.5, 1.0]), min_size=24, max_size=24),
    repeats=st.lists(st.integers(1, 90), min_size=24, max_size=24),
    symbols=st.sampled_from([1, 2, 3]),
    on_change=st.booleans(),
)
@settings(max_examples=100)
def test_changed_rows_are_those_of_a_plain_loop(
    cells: list[float], repeats: list[int], symbols: int, on_change: bool
) -> None:
    # Repeated rows, so that whole blocks hold nothing new.
    table = np.array(cells).reshape(-1, symbols)
    targets = np.repeat(table, repeats[: len(table)], axis=0)
    assert changed_rows(targets, on_change).tolist() == changes(targets.tolist(), on_change)
    # The second way: cell by cell, which starts from a target that no row has.
    cellwise = ~np.isnan(changed_cells(targets, 7.0)).all(axis=1)
    assert changed_rows(targets, True).tolist() == np.flatnonzero(cellwise).tolist()


def test_the_next_change_follows_from_the_targets_given_before() -> None:
    targets = np.array([[0.5], [NAN], [1.0]])
    assert next_change(targets, np.array([0.5]), True, 0) == 2
    assert next_change(targets, np.array([0.5]), False, 0) == 0
    assert next_change(targets, np.array([1.0]), True, 1) == 3


def test_a_changed_cell_keeps_its_target_and_the_others_are_left_alone() -> None:
    targets = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, NAN], [0.0, 1.0]])
    expected = [[NAN, 1.0], [1.0, NAN], [NAN, NAN], [0.0, NAN]]
    assert np.array_equal(changed_cells(targets, 0.0), expected, equal_nan=True)


def test_a_target_is_valid_for_its_window_or_until_the_next_one() -> None:
    targets = np.array([[NAN], [0.5], [NAN], [NAN], [0.25], [0.0], [NAN]])
    assert standing_targets(targets, 2).ravel().tolist() == [0.0, 0.5, 0.5, 0.0, 0.25, 0.0, 0.0]
    assert standing_targets(targets, 8).ravel().tolist() == [0.0, 0.5, 0.5, 0.5, 0.25, 0.0, 0.0]
    assert standing_targets(np.empty((0, 2)), 1).shape == (0, 2)
