"""Half-open spans of time (UTC us): months, days, what is covered and what is missing."""

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
        """Length in whole minutes."""
        return (self.end - self.start) // MINUTE


def merge(spans: Iterable[Span]) -> list[Span]:
    """The same instants as the fewest spans, in order; touching ones become one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if span.start >= span.end:
            continue
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def subtract(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """What is in `spans` and not in `holes`."""
    rest = merge(spans)
    for hole in merge(holes):
        rest = [
            Span(*piece)
            for span in rest
            for piece in ((span.start, min(span.end, hole.start)), (max(span.start, hole.end), span.end))
            if piece[0] < piece[1]
        ]
    return rest


def intersect(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """What is in both."""
    mine = merge(spans)
    return subtract(mine, subtract(mine, others))


def bridge(spans: Iterable[Span], distance: int) -> list[Span]:
    """Join spans that lie less than `distance` us apart, so that one request can ask for all of them."""
    joined: list[Span] = []
    for span in merge(spans):
        if joined and span.start - joined[-1].end < distance:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    return joined


def minutes(spans: Iterable[Span]) -> int:
    """Whole minutes in all spans together."""
    return sum(span.minutes for span in merge(spans))


def absent(open_times: np.ndarray, span: Span, step: int = MINUTE) -> list[Span]:
    """The parts of `span` that no bar opens in.

    Args:
        open_times: int64, sorted, UTC us, on the grid of `step`.
        span: the whole range that is looked at, not just from the first bar to the last.
        step: length of a bar, us.
    """
    inside = open_times[(open_times >= span.start) & (open_times < span.end)]
    edges = np.concatenate(([span.start - step], inside, [span.end]))
    at = np.flatnonzero(np.diff(edges) > step)
    return [Span(int(edges[i]) + step, int(edges[i + 1])) for i in at]


def month_of(us: int) -> str:
    """The month of an instant: `2024-07`."""
    return iso(us)[:7]


def month_span(month: str) -> Span:
    """The span of a month such as `2024-07`."""
    start = time_us(f"{month}-01")
    moment = to_datetime(start)
    year, number = divmod(moment.year * 12 + moment.month, 12)
    return Span(start, time_us(datetime(year, number + 1, 1, tzinfo=UTC)))


def months_in(span: Span) -> Iterator[str]:
    """The months that `span` touches, in order."""
    at = span.start
    while at < span.end:
        month = month_of(at)
        yield month
        at = month_span(month).end


def days_in(span: Span) -> Iterator[Span]:
    """The UTC days that `span` touches, whole, in order."""
    for start in range(span.start // DAY * DAY, span.end, DAY):
        yield Span(start, start + DAY)


def last_months(count: int, now: int) -> Span:
    """The last `count` complete months before the day of `now`."""
    end = time_us(f"{month_of(now)}-01")
    start = end
    for _ in range(count):
        start = time_us(f"{month_of(start - 1)}-01")
    return Span(start, end)
