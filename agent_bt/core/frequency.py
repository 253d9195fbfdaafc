"""Rebalance frequencies such as `4h`, `D`, `W-MON`, `MS`, `QS`, aligned to UTC, and their instants."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from agent_bt.core.clock import DAY, duration_us, time_us

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday


def fixed_period(frequency: str) -> tuple[int, int] | None:
    """Return length and offset, us, of a frequency of fixed length; None for months and quarters.

    Raises:
        ValueError: the text is not a frequency.
    """
    text = frequency.strip()
    if text in ("MS", "QS"):
        return None
    if text == "D":
        return DAY, 0
    name, _, weekday = text.partition("-")
    if name == "W" and weekday in WEEKDAYS:
        return 7 * DAY, (WEEKDAYS.index(weekday) - _FIRST_WEEKDAY) % 7 * DAY
    try:
        # In a duration M is minutes; in a frequency it would be read as months.
        length = 0 if text.endswith("M") else duration_us(text)
    except ValueError:
        length = 0
    if length <= 0 or (DAY % length and length % DAY):
        raise ValueError(
            f"{frequency!r} is not a frequency; write W-MON (a weekday), MS (first of the month), "
            "QS (first of the quarter), D, or a duration that divides the day or is made of whole days: 4h, 3d"
        )
    return length, 0


def longest_period(frequency: str) -> int:
    """Return the longest time from one instant of a frequency to the next, us.

    Raises:
        ValueError: the text is not a frequency.
    """
    period = fixed_period(frequency)
    return period[0] if period is not None else (31 if frequency.strip() == "MS" else 92) * DAY


def instants(frequency: str, start: int, end: int) -> np.ndarray:
    """Return the instants of a frequency in [start, end], int64, ascending, UTC us.

    Args:
        frequency: `4h`, `3d`, `D`, `W-MON`, `MS` or `QS`.
        start: UTC us.
        end: UTC us.

    Raises:
        ValueError: the text is not a frequency.
    """
    period = fixed_period(frequency)
    if period is not None:
        length, offset = period
        first = -(-(start - offset) // length) * length + offset
        return np.arange(first, end + 1, length, dtype=np.int64)
    step = 1 if frequency.strip() == "MS" else 3
    first_year = datetime.fromtimestamp(start // 1_000_000, UTC).year
    last_year = datetime.fromtimestamp(end // 1_000_000, UTC).year
    begins = [
        time_us(datetime(year, month, 1, tzinfo=UTC))
        for year in range(first_year, last_year + 1)
        for month in range(1, 13, step)
    ]
    return np.array([begin for begin in begins if start <= begin <= end], np.int64)
