"""Instants of a frequency against the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_bt.core.clock import HOUR, time_us, to_datetime
from agent_bt.core.frequency import WEEKDAYS, fixed_period, instants

YEARS = st.integers(0, 20 * 366 * 24 * 3600).map(lambda s: datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=s))


def dates(frequency: str, start: str, end: str) -> list[str]:
    return [f"{to_datetime(int(at)):%Y-%m-%d}" for at in instants(frequency, time_us(start), time_us(end))]


@given(start=YEARS, days=st.integers(0, 800), weekday=st.sampled_from(WEEKDAYS))
def test_a_weekday_is_every_midnight_of_that_name(start: datetime, days: int, weekday: str) -> None:
    end = start + timedelta(days=days)
    midnight = datetime(start.year, start.month, start.day, tzinfo=UTC)
    slow = [midnight + timedelta(days=n) for n in range(days + 2)]
    wanted = [at for at in slow if start <= at <= end and at.weekday() == WEEKDAYS.index(weekday)]
    assert [to_datetime(int(at)) for at in instants(f"W-{weekday}", time_us(start), time_us(end))] == wanted


@given(start=YEARS, days=st.integers(0, 800), frequency=st.sampled_from(["MS", "QS"]))
def test_months_and_quarters_begin_at_their_first_midnight(start: datetime, days: int, frequency: str) -> None:
    end = start + timedelta(days=days)
    midnight = datetime(start.year, start.month, start.day, tzinfo=UTC)
    slow = [midnight + timedelta(days=n) for n in range(days + 2)]
    months = (1, 4, 7, 10) if frequency == "QS" else range(1, 13)
    wanted = [at for at in slow if start <= at <= end and at.day == 1 and at.month in months]
    assert [to_datetime(int(at)) for at in instants(frequency, time_us(start), time_us(end))] == wanted


def test_days_and_hours_are_aligned_to_utc_and_both_ends_count() -> None:
    assert dates("D", "2024-02-28", "2024-03-01") == ["2024-02-28", "2024-02-29", "2024-03-01"]
    times = instants("4h", time_us("2024-07-01T01:00"), time_us("2024-07-01T12:00"))
    assert (times % (24 * HOUR) // HOUR).tolist() == [4, 8, 12]


@pytest.mark.parametrize("wrong", ["W", "W-MONDAY", "monthly", "M", "5h", "0h", "", "W-mon", "1M", "36h"])
def test_what_is_not_a_frequency_is_an_error_that_says_how_to_write_one(wrong: str) -> None:
    with pytest.raises(ValueError, match="W-MON"):
        fixed_period(wrong)
