"""Times and durations: every time in agent-bt is an integer, microseconds since 1970 UTC."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d+)\s*([a-zA-Z]+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

BAR_INTERVALS = ("1m", "5m", "15m", "1h", "4h", "1d")


def duration_us(text: str) -> int:
    """Convert to microseconds a duration such as `90s`, `15m`, `1h`, `7d` or `2w`.

    Raises:
        ValueError: the text is not a whole number followed by a unit.
    """
    match = _DURATION.fullmatch(text.strip())
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a duration; write a whole number and a unit: 30s, 15m, 1h, 7d, 2w")
    return int(match.group(1)) * unit


def interval_us(text: str) -> int:
    """Convert to microseconds a bar interval, one of `BAR_INTERVALS`.

    Raises:
        ValueError: the text is not one of them.
    """
    if text not in BAR_INTERVALS:
        raise ValueError(f"{text!r} is not a bar interval; use one of {', '.join(BAR_INTERVALS)}")
    return duration_us(text)


def time_us(value: str | date | datetime) -> int:
    """Convert an ISO date or time to microseconds since 1970 UTC; a time without a zone is UTC.

    Raises:
        ValueError: the text is not an ISO 8601 date or time.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"{value!r} is not a date or time; write 2024-07-01 or 2024-07-01T12:00:00Z") from None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // timedelta(microseconds=1)


def to_datetime(us: int) -> datetime:
    """Convert microseconds since 1970 to a `datetime` in UTC."""
    return _EPOCH + timedelta(microseconds=us)


def iso(us: int) -> str:
    """Format microseconds since 1970 as ISO 8601 in UTC, no more precise than needed: `2024-07-01T00:00Z`."""
    moment = to_datetime(us)
    spec = "microseconds" if us % SECOND else "seconds" if us % MINUTE else "minutes"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def date_or_time(us: int) -> str:
    """Format microseconds since 1970 as a configuration writes them: `2024-07-01` at midnight UTC, else as `iso`."""
    return iso(us)[:10] if us % DAY == 0 else iso(us)


def now_iso() -> str:
    """Return the current time as ISO 8601 in UTC, to the second."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
