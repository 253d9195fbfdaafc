"""Compute with half-open spans of time (UTC us): union, difference, intersection, months and days."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from agent_bt.core.clock import DAY, MINUTE, iso, time_us, to_datetime


class Span(NamedTuple):
    """The instants in [start, end), UTC us."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"{iso(self.start)} to {iso(self.end)}"

    @property
    def minutes(self) -> int:
        """Return the length in whole minutes."""
        return (self.end - self.start) // MINUTE


def merge(spans: Iterable[Span]) -> list[Span]:
    """Return the union of spans as the fewest sorted spans; adjacent ones are joined."""
    merged: list[Span] = []
    for span in sorted(spans):
        if span.start >= span.end:
            continue
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def subtract(spans: Iterable[Span], removed: Iterable[Span]) -> list[Span]:
    """Return the sorted parts of `spans` that are not in `removed`."""
    rest = merge(spans)
    for gap in merge(removed):
        rest = [
            Span(*piece)
            for span in rest
            for piece in ((span.start, min(span.end, gap.start)), (max(span.start, gap.end), span.end))
            if piece[0] < piece[1]
        ]
    return rest


def intersect(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """Return the sorted parts of `spans` that are also in `others`."""
    merged = merge(spans)
    return subtract(merged, subtract(merged, others))


def join_near(spans: Iterable[Span], distance: int) -> list[Span]:
    """Join spans that are near each other, so that one request can cover them.

    Args:
        spans: UTC us, in any order.
        distance: spans that are less than this apart are joined, us.
    """
    joined: list[Span] = []
    for span in merge(spans):
        if joined and span.start - joined[-1].end < distance:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    return joined


def minutes(spans: Iterable[Span]) -> int:
    """Return the number of whole minutes in the union of spans."""
    return sum(span.minutes for span in merge(spans))


def missing_spans(open_times: np.ndarray, span: Span, step: int = MINUTE) -> list[Span]:
    """Return the parts of `span` in which no bar opens.

    Args:
        open_times: int64 (T,), UTC us, sorted, multiples of `step`.
        span: the whole range to examine, including before the first and after the last bar, UTC us.
        step: length of a bar, us; default: a minute.
    """
    inside = open_times[(open_times >= span.start) & (open_times < span.end)]
    edges = np.concatenate(([span.start - step], inside, [span.end]))
    at = np.flatnonzero(np.diff(edges) > step)
    return [Span(int(edges[i]) + step, int(edges[i + 1])) for i in at]


def month_of(us: int) -> str:
    """Return the month of an instant (UTC us), such as `2024-07`."""
    return iso(us)[:7]


def month_span(month: str) -> Span:
    """Return the span of a month such as `2024-07`."""
    start = time_us(f"{month}-01")
    moment = to_datetime(start)
    year, number = divmod(moment.year * 12 + moment.month, 12)
    return Span(start, time_us(datetime(year, number + 1, 1, tzinfo=UTC)))


def months_in(span: Span) -> Iterator[str]:
    """Yield the months that overlap `span`, in order."""
    at = span.start
    while at < span.end:
        month = month_of(at)
        yield month
        at = month_span(month).end


def days_in(span: Span) -> Iterator[Span]:
    """Yield the whole UTC days that overlap `span`, in order."""
    for start in range(span.start // DAY * DAY, span.end, DAY):
        yield Span(start, start + DAY)


def last_months(count: int, now: int) -> Span:
    """Return the span of the last complete months.

    Args:
        count: number of months.
        now: UTC us; its month is not complete.
    """
    end = time_us(f"{month_of(now)}-01")
    start = end
    for _ in range(count):
        start = time_us(f"{month_of(start - 1)}-01")
    return Span(start, end)
