"""A backfill reads monthly files, daily files and REST, in this order, and only fetches what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import polars as pl
import pytest
from fake_exchange import FakeExchange, csv, path_of, rows, us

from agent_bt.core.clock import DAY, MINUTE
from agent_bt.core.errors import DataError, UsageError
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.backfill import BackfillResult
from agent_bt.data.spans import Span
from agent_bt.data.store import Store

Fill = Callable[..., BackfillResult]
FEBRUARY = Span(us("2021-02-01"), us("2021-03-01"))


def closes(store: Store, start: str, end: str) -> list[float]:
    return store.read(Span(us(start), us(end)))["close"].to_list()


def test_a_month_becomes_one_file_of_the_store(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    table = rows("2021-02-01", "2021-03-01")
    exchange.publish("2021-02", table)
    result = fill("2021-02-01", "2021-03-01")
    assert (result.added, result.failures, result.warnings) == (28 * 1440, (), ())
    assert store.folder == store.root / "spot" / "BTCUSDT"
    frame = pl.read_parquet(store.folder / "klines_1m" / "2021-02.parquet")
    assert frame.schema == STORE_SCHEMA
    assert frame["close"].to_list() == table["close"].to_list()
    assert (store.folder / "metadata" / "offsets.json").is_file()
    assert store.offsets().covered == (FEBRUARY,)
    assert not store.raw_csv.exists()


def test_a_second_call_requests_nothing(exchange: FakeExchange, fill: Fill) -> None:
    exchange.publish("2021-02", rows("2021-02-01", "2021-03-01"))
    fill("2021-02-01", "2021-03-01")
    exchange.requested.clear()
    assert fill("2021-02-01", "2021-03-01").added == 0
    assert fill("2021-02-10", "2021-02-11T07:01").added == 0
    assert exchange.requested == []


def test_a_longer_call_requests_only_missing_data(exchange: FakeExchange, fill: Fill) -> None:
    exchange.publish("2021-02", rows("2021-02-01", "2021-03-01"))
    exchange.publish("2021-03-01", rows("2021-03-01", "2021-03-02"))
    exchange.publish("2021-03-02", rows("2021-03-02", "2021-03-03"))
    fill("2021-02-01", "2021-03-02")
    exchange.requested.clear()
    assert fill("2021-02-01", "2021-03-03").added == 1440
    assert exchange.zips_requested() == [path_of("2021-03"), path_of("2021-03-02")]


def test_days_missing_from_a_monthly_file_come_from_daily_files(
    exchange: FakeExchange, store: Store, fill: Fill
) -> None:
    complete = rows("2021-02-01", "2021-03-01")
    gaps = (("2021-02-03", "2021-02-04"), ("2021-02-10T12:00", "2021-02-11"))
    exchange.publish("2021-02", rows("2021-02-01", "2021-03-01", without=gaps))
    for day in ("2021-02-03", "2021-02-10"):
        first = us(day) // 1000
        exchange.publish(day, complete.filter(pl.col("open_time").is_between(first, first + DAY // 1000 - 1)))
    result = fill("2021-02-01", "2021-03-01")
    month, *days = exchange.zips_requested()
    assert (month, sorted(days)) == (path_of("2021-02"), [path_of("2021-02-03"), path_of("2021-02-10")])
    assert result.failures == ()
    assert closes(store, "2021-02-01", "2021-03-01") == complete["close"].to_list()


def test_rest_fills_minutes_missing_in_archives_and_the_others_are_an_outage(
    exchange: FakeExchange, store: Store, fill: Fill
) -> None:
    exchange.publish(
        "2021-02-01", rows("2021-02-01", "2021-02-02", without=(("2021-02-01T10:00", "2021-02-01T12:00"),))
    )
    exchange.listed = rows("2021-02-01", "2021-02-03", without=(("2021-02-01T11:00", "2021-02-01T11:30"),))
    result = fill("2021-02-01", "2021-02-03", rest=True)
    assert result.failures == ()
    assert store.offsets().outages == (Span(us("2021-02-01T11:00"), us("2021-02-01T11:30")),)
    assert len(closes(store, "2021-02-01", "2021-02-03")) == 2 * 1440 - 30
    assert all(int(query["limit"]) == 1000 for query in exchange.queries)
    exchange.requested.clear()
    assert fill("2021-02-01", "2021-02-03", rest=True).added == 0
    assert exchange.requested == []


def test_without_rest_a_gap_is_unconfirmed_and_only_its_day_is_requested_again(
    exchange: FakeExchange, store: Store, fill: Fill
) -> None:
    gap = ("2021-02-05T10:00", "2021-02-05T11:20")
    exchange.publish("2021-02", rows("2021-02-01", "2021-03-01", without=(gap,)))
    result = fill("2021-02-01", "2021-03-01")
    assert result.failures == ()
    assert "80 minutes are in no archive" in result.warnings[0]
    assert store.offsets().outages == ()
    exchange.requested.clear()
    exchange.listed = rows(*gap)
    assert fill("2021-02-01", "2021-03-01", rest=True).added == 80
    assert exchange.requested == [path_of("2021-02-05"), "/api/v3/klines"]


def test_a_failed_archive_never_makes_an_outage(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    exchange.publish("2021-02-01", b"PK not a zip")
    exchange.listed = rows("2021-02-01", "2021-02-02", without=(("2021-02-01T11:00", "2021-02-01T11:30"),))
    result = fill("2021-02-01", "2021-02-02", rest=True)
    assert result.added == 1410
    assert store.offsets().outages == ()
    assert any("not a valid ZIP" in text for text in result.warnings)


def test_the_current_day_is_covered_up_to_its_last_bar_and_has_no_outage(
    exchange: FakeExchange, store: Store, fill: Fill
) -> None:
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02"))
    # The last minute is still open, the one before it is not published yet, and ten are missing in between.
    exchange.listed = rows("2021-02-02", "2021-02-02T09:29", without=(("2021-02-02T05:00", "2021-02-02T05:10"),))
    result = fill("2021-02-01", "2021-02-03", rest=True, now="2021-02-02T09:30:40")
    assert result.failures == ()
    known = store.offsets()
    assert known.covered == (Span(us("2021-02-01"), us("2021-02-02T09:29")),)
    assert known.outages == ()
    exchange.listed = rows("2021-02-02", "2021-02-02T10:00")
    assert fill("2021-02-01", "2021-02-03", rest=True, now="2021-02-02T10:00:00").added == 10 + 31
    assert store.offsets().covered == (Span(us("2021-02-01"), us("2021-02-02T10:00")),)


def test_minutes_that_may_still_be_published_are_not_an_outage(
    exchange: FakeExchange, store: Store, fill: Fill
) -> None:
    gap = ("2021-02-01T11:00", "2021-02-01T11:30")
    exchange.listed = rows("2021-02-01", "2021-02-02", without=(gap,))
    fill("2021-02-01", "2021-02-02", rest=True, now="2021-02-02T00:01")
    assert store.offsets().outages == ()
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02"))
    assert fill("2021-02-01", "2021-02-02", rest=True, now="2021-02-03").added == 30


def test_archives_of_unfinished_periods_are_not_requested(exchange: FakeExchange, fill: Fill) -> None:
    fill("2021-02-01", "2021-03-01", now="2021-02-03T12:00")
    assert sorted(exchange.requested) == [path_of("2021-02-01"), path_of("2021-02-02")]


def test_an_open_minute_is_never_stored(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    exchange.listed = rows("2021-02-02", "2021-02-02T09:31")
    fill("2021-02-02", "2021-02-03", rest=True, now="2021-02-02T09:30:59")
    assert len(closes(store, "2021-02-02", "2021-02-03")) == 9 * 60 + 30


def test_a_span_without_any_source_is_a_failure_that_names_it(exchange: FakeExchange, fill: Fill) -> None:
    exchange.publish("2021-02", rows("2021-02-01", "2021-03-01"))
    result = fill("2021-02-01", "2021-04-01")
    assert result.added == 28 * 1440
    assert len(result.failures) == 1
    assert "2021-03-01T00:00Z to 2021-04-01T00:00Z" in result.failures[0]


def test_the_future_is_not_requested(exchange: FakeExchange, fill: Fill) -> None:
    with pytest.raises(UsageError, match="must begin in the past"):
        fill("2021-02-01", "2021-03-01", now="2021-01-31")
    assert exchange.requested == []


def test_the_csv_is_kept_with_keep_csv(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    table = rows("2021-02-01", "2021-02-02")
    exchange.publish("2021-02-01", table)
    fill("2021-02-01", "2021-02-02", keep_csv=True)
    assert (store.folder / "raw_csv" / "BTCUSDT-1m-2021-02-01.csv").read_bytes() == csv(table)


def test_offsets_record_source_checksum_and_download_time(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    content = exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02", unit="us"), header=True)
    fill("2021-02-01", "2021-02-02", now="2022-01-01T10:00:07")
    [(path, source)] = store.offsets().sources.items()
    assert "/data/" + path == path_of("2021-02-01")
    assert exchange.files[path_of("2021-02-01") + ".CHECKSUM"].decode().startswith(source.sha256)
    assert (source.size, source.rows, source.units, source.fetched) == (
        len(content),
        1440,
        ("us",),
        "2022-01-01T10:00:07Z",
    )


def test_two_backfills_do_not_write_at_the_same_time(store: Store, fill: Fill) -> None:
    with store.lock(), pytest.raises(DataError, match="another process"):
        fill("2021-02-01", "2021-02-02")


def test_days_are_fetched_in_parallel(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    days = [f"2021-02-{day:02}" for day in range(1, 9)]
    together = threading.Barrier(4, timeout=300)

    def wait(request: object, body: bytes) -> None:
        from fake_exchange import answer

        together.wait()
        answer(request, 200, body)  # type: ignore[arg-type]

    for day in days:
        exchange.publish(day, rows(day, f"{day}T00:10"))
        exchange.faults[path_of(day)] = [wait]
    result = fill("2021-02-01", "2021-02-09", jobs=4)
    assert result.added == 80
    assert sorted(result.files) == [path_of(day).removeprefix("/data/") for day in days]


def test_progress_adds_up_to_the_missing_minutes(exchange: FakeExchange, fill: Fill) -> None:
    class Count:
        total = done = 0

        def begin(self, total: int) -> None:
            self.total = total

        def advance(self, count: int) -> None:
            self.done += count

    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02"))
    count = Count()
    fill("2021-02-01", "2021-02-03", progress=count)
    assert count.total == count.done == 2 * DAY // MINUTE
