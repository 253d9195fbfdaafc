"""Klines are read with or without a header, in milliseconds or microseconds, and without invalid rows."""

from __future__ import annotations

import polars as pl
import pytest
from fake_exchange import csv, rows, us
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import ArchiveError
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.klines import parse_csv, parse_rows
from agent_bt.data.spans import Span

DAY = Span(us("2021-02-01"), us("2021-02-02"))


def day(**options: object) -> pl.DataFrame:
    return rows("2021-02-01", "2021-02-02", **options)


def changed(table: pl.DataFrame, row: int, **values: float) -> pl.DataFrame:
    at = pl.int_range(pl.len()) == row
    return table.with_columns(
        pl.when(at).then(value).otherwise(pl.col(name)).alias(name) for name, value in values.items()
    )


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("unit", ["ms", "us"])
def test_header_and_unit_are_recognised_from_the_content(header: bool, unit: str) -> None:
    table = day(unit=unit)
    klines = parse_csv(csv(table, header=header), DAY, "day")
    assert klines.frame.schema == STORE_SCHEMA
    assert klines.units == (unit,)
    assert klines.notes == {}
    assert klines.frame["open_time"].cast(pl.Int64).to_list() == list(range(DAY.start, DAY.end, MINUTE))
    assert (klines.frame["close_time"] - klines.frame["open_time"]).dt.total_microseconds().unique().to_list() == [
        MINUTE
    ]
    assert klines.frame["close"].to_list() == table["close"].to_list()


def test_the_unit_may_change_within_one_file() -> None:
    table = pl.concat([day().head(700), day(unit="us").tail(740)])
    klines = parse_csv(csv(table), DAY, "day")
    assert len(klines.frame) == 1440
    assert klines.units == ("ms", "us")
    assert klines.unit_changes == (DAY.start + 700 * MINUTE,)


def test_numbers_are_the_doubles_nearest_to_their_text() -> None:
    text = b"1612137600000,33092.98000000,33120.10000001,33092.97999999,33100.12345678,1.00000001,1612137659999,"
    text += b"3.3,7,0.1,0.2,0"
    frame = parse_csv(text, DAY, "day").frame
    assert frame.row(0)[2:] == (33092.98, 33120.10000001, 33092.97999999, 33100.12345678, 1.00000001, 3.3, 7, 0.1, 0.2)


def test_an_early_close_time_is_noted_and_normalised() -> None:
    table = day()
    klines = parse_csv(csv(changed(table, 5, close_time=table["close_time"][5] - 30_000)), DAY, "day")
    assert klines.notes == {"short_close": 1}
    assert klines.frame["close_time"].cast(pl.Int64)[5] == DAY.start + 6 * MINUTE


@pytest.mark.parametrize(
    "values",
    [
        {"high": 1.0},
        {"low": 1e9},
        {"open": -1.0},
        {"volume": -0.5},
        {"close": float("nan")},
        {"quote": float("inf")},
        {"taker_base": 1e9},
        {"close_time": 1},
        {"close_time": us("2021-02-03") // 1000},
        {"open_time": us("2021-02-01T00:05:07") // 1000},
        {"open_time": us("2021-02-05") // 1000},
    ],
)
def test_an_invalid_row_is_left_out_and_counted(values: dict[str, float]) -> None:
    klines = parse_csv(csv(changed(day(), 5, **values)), DAY, "day")
    assert klines.notes == {"unsound": 1}
    assert len(klines.frame) == 1439


def test_one_invalid_row_does_not_affect_other_rows() -> None:
    klines = parse_csv(csv(changed(day()[:5], 2, volume=-1.0)), DAY, "page")
    assert (klines.notes, len(klines.frame)) == ({"unsound": 1}, 4)


@pytest.mark.parametrize(("invalid", "rejected"), [(14, False), (15, True)])
def test_a_file_with_too_many_invalid_rows_is_rejected(invalid: int, rejected: bool) -> None:
    table = day()
    table = pl.concat([table[:invalid].with_columns(volume=-table["volume"][:invalid]), table[invalid:]])
    if rejected:
        with pytest.raises(ArchiveError, match="15 of 1440 rows"):
            parse_csv(csv(table), DAY, "day")
    else:
        assert len(parse_csv(csv(table), DAY, "day").frame) == 1440 - invalid


def test_duplicates_disorder_and_conflicting_rows() -> None:
    table = day()
    conflict = changed(table[9:10], 0, volume=999.0)
    mixed = pl.concat([table[:20], table[3:5], conflict, table[40:], table[20:40]])
    klines = parse_csv(csv(mixed), DAY, "day")
    assert klines.notes["duplicates"] == 2
    assert klines.notes["conflicting"] == 2
    assert klines.notes["out_of_order"] == 2
    assert len(klines.frame) == 1439
    assert klines.frame["open_time"].is_sorted()
    assert DAY.start + 9 * MINUTE not in klines.frame["open_time"].cast(pl.Int64).to_list()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>hello</html>",
        b"1,2,3\n",
        b"open_time,open\n",
        b"1612137600000,a,b,c,d,e,1612137659999,3.3,7,0.1,0.2,0\n",
        b"1612137600000,1,1,1,1,1,1612137659999,3.3,7,0.1,0.2,0,extra\n",
        b"\x00\x01\x02",
        csv(rows("2021-03-01", "2021-03-02")),
    ],
)
def test_text_without_a_table_of_this_day_is_rejected(text: bytes) -> None:
    with pytest.raises(ArchiveError):
        parse_csv(text, DAY, "day")


@pytest.mark.parametrize("answer", [[], [[1]], [["x"] * 12], [[None] * 12], [1, 2], {"code": -1}, [[{}] * 12]])
def test_invalid_rest_rows_are_rejected(answer: object) -> None:
    with pytest.raises(ArchiveError):
        parse_rows(answer, DAY, "page")  # type: ignore[arg-type]


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_are_rejected_with_one_error(text: bytes) -> None:
    with pytest.raises(ArchiveError):
        parse_csv(text, DAY, "day")
