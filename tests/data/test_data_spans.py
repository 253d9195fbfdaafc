"""Operations on spans equal those on plain sets of minutes."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import numpy as np
from fake_exchange import us
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import MINUTE
from agent_bt.data.spans import (
    Span,
    days_in,
    intersect,
    join_near,
    last_months,
    merge,
    minutes,
    missing_spans,
    month_span,
    months_in,
    subtract,
)

edges = st.integers(0, 40)
spans = st.lists(st.tuples(edges, edges).map(lambda pair: Span(min(pair) * MINUTE, max(pair) * MINUTE)), max_size=6)


def points(spans: list[Span]) -> set[int]:
    return {minute for span in spans for minute in range(span.start // MINUTE, span.end // MINUTE)}


@settings(max_examples=50)
@given(spans, spans)
def test_operations_equal_those_on_sets_of_minutes(ours: list[Span], others: list[Span]) -> None:
    for result, expected in (
        (merge(ours), points(ours)),
        (subtract(ours, others), points(ours) - points(others)),
        (intersect(ours, others), points(ours) & points(others)),
    ):
        assert points(result) == expected
        assert minutes(result) == len(expected)
        assert all(one.end < other.start for one, other in pairwise(result))
    assert points(join_near(ours, MINUTE)) == points(ours)


@settings(max_examples=50)
@given(st.sets(edges), edges, edges)
def test_missing_spans_include_the_ends_of_the_range(opened: set[int], start: int, length: int) -> None:
    span = Span(start * MINUTE, (start + length) * MINUTE)
    times = np.array(sorted(opened), dtype=np.int64) * MINUTE
    assert points(missing_spans(times, span)) == points([span]) - opened


def test_near_spans_are_joined() -> None:
    near = [Span(0, 10), Span(15, 20), Span(120, 130)]
    assert join_near(near, 100) == [Span(0, 20), Span(120, 130)]


def test_months_and_days() -> None:
    span = Span(us("2023-12-31T23:59"), us("2024-03-01"))
    assert list(months_in(span)) == ["2023-12", "2024-01", "2024-02"]
    assert month_span("2024-02").minutes == 29 * 1440
    assert month_span("2023-12").end == us("2024-01-01")
    assert len(list(days_in(span))) == 1 + 31 + 29
    assert str(date.fromisoformat("2023-12-31")) in str(next(iter(days_in(span))))


def test_the_last_months_are_complete_ones() -> None:
    assert last_months(2, us("2024-03-01T00:00")) == Span(us("2024-01-01"), us("2024-03-01"))
    assert last_months(2, us("2024-03-31T23:59")) == Span(us("2024-01-01"), us("2024-03-01"))
    assert last_months(14, us("2024-03-31")) == Span(us("2023-01-01"), us("2024-03-01"))
