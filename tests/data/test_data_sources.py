"""Sources of one symbol: aggregation, gaps, ranges, and errors with the command that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from fake_exchange import FakeExchange, rows, us
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import BAR_INTERVALS, MINUTE, duration_us, to_datetime
from agent_bt.core.errors import DataError, MissingData
from agent_bt.core.protocols import DataSource
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.data.klines import normalise
from agent_bt.data.resample import to_bars
from agent_bt.data.sources import ParquetSource, StoreSource
from agent_bt.data.spans import Span
from agent_bt.data.store import Store

HOLES = (("2021-02-01T03:05", "2021-02-01T03:07"), ("2021-02-01T10:20", "2021-02-01T12:10"))


def minutes(start: str, end: str, **options: object) -> pl.DataFrame:
    raw = rows(start, end, **options).rename({"quote": "quote_asset_volume"})
    return normalise(raw, Span(us(start), us(end)), "rows").frame


@pytest.fixture
def filled_store(exchange: FakeExchange, store: Store, fill: Callable[..., object]) -> Store:
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02", without=HOLES))
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03"))
    fill("2021-02-01", "2021-02-03")
    return store


def slowly(table: pl.DataFrame, span: Span, interval: int, fill: bool) -> list[tuple[float, ...]]:
    """Compute the bars of a span one by one: open_time, open, high, low, close, volume, trades, filled."""
    known = {int(row["open_time"].timestamp()) * 10**6: row for row in table.iter_rows(named=True)}
    bars: list[tuple[float, ...]] = []
    last = None
    for start in range(-(-span.start // interval) * interval, span.end - interval + 1, interval):
        inside = [known[at] for at in range(start, start + interval, MINUTE) if at in known]
        if inside:
            last = inside[-1]["close"]
            bars.append(
                (
                    start,
                    inside[0]["open"],
                    max(row["high"] for row in inside),
                    min(row["low"] for row in inside),
                    last,
                    sum(row["volume"] for row in inside),
                    sum(row["trades"] for row in inside),
                    False,
                )
            )
        elif fill and last is not None:
            bars.append((start, last, last, last, last, 0.0, 0, True))
    return bars


@pytest.mark.parametrize("gaps", ["forward_fill", "drop"])
@pytest.mark.parametrize("interval", BAR_INTERVALS)
def test_bars_equal_those_of_a_plain_loop(interval: str, gaps: str) -> None:
    table = minutes("2021-02-01", "2021-02-03", without=HOLES)
    span = Span(us("2021-02-01T00:07"), us("2021-02-02T23:58"))
    inside = table.filter(pl.col("open_time").cast(pl.Int64).is_between(span.start, span.end, closed="left"))
    bars = to_bars(table, span, duration_us(interval), gaps)  # type: ignore[arg-type]
    assert bars.schema == BAR_SCHEMA
    expected = slowly(inside, span, duration_us(interval), gaps == "forward_fill")
    columns = ["open", "high", "low", "close", "volume", "trades", "filled"]
    assert bars["open_time"].cast(pl.Int64).to_list() == [row[0] for row in expected]
    for at, name in enumerate(columns, start=1):
        assert bars[name].to_list() == pytest.approx([row[at] for row in expected], rel=1e-12)
    assert ((bars["close_time"] - bars["open_time"]).dt.total_microseconds() == duration_us(interval)).all()


@settings(max_examples=30)
@given(
    start=st.integers(0, 2800),
    length=st.integers(0, 1400),
    interval=st.sampled_from(BAR_INTERVALS),
    missing=st.lists(st.tuples(st.integers(0, 2800), st.integers(1, 300)), max_size=4),
)
def test_filling_adds_no_volume_and_no_bars_before_the_first(
    start: int, length: int, interval: str, missing: list[tuple[int, int]]
) -> None:
    begin = us("2021-02-01")
    gaps = [(begin + first * MINUTE, begin + (first + count) * MINUTE) for first, count in missing]
    opened = pl.col("open_time").cast(pl.Int64)
    table = minutes("2021-02-01", "2021-02-03")
    for gap in gaps:
        table = table.filter(~opened.is_between(*gap, closed="left"))
    span = Span(begin + start * MINUTE, min(begin + (start + length) * MINUTE, us("2021-02-03")))
    dropped = to_bars(table, span, duration_us(interval), "drop")
    filled = to_bars(table, span, duration_us(interval), "forward_fill")
    assert filled.filter(~pl.col("filled")).equals(dropped)
    invented = filled.filter(pl.col("filled"))
    assert invented["volume"].sum() == 0
    assert invented.filter(pl.col("high") != pl.col("low")).is_empty()
    if len(filled):
        assert not filled["filled"][0]
        assert (filled["open_time"].diff().drop_nulls().dt.total_microseconds() == duration_us(interval)).all()
    else:
        assert dropped.is_empty()


def test_the_store_returns_the_published_bars(filled_store: Store) -> None:
    source: DataSource = StoreSource(filled_store.root, "BTCUSDT")
    bars = source.fetch_ohlcv("1m", us("2021-02-01"), us("2021-02-03"))
    assert len(bars) == 2 * 1440
    assert bars["filled"].sum() == 112
    dropped = StoreSource(filled_store.root, "BTCUSDT", gaps="drop").fetch_ohlcv(
        "1m", us("2021-02-01"), us("2021-02-03")
    )
    assert (
        dropped["close"].to_list()
        == pl.concat([rows("2021-02-01", "2021-02-02", without=HOLES), rows("2021-02-02", "2021-02-03")])[
            "close"
        ].to_list()
    )


def test_a_gap_at_the_start_is_not_filled_from_before(filled_store: Store) -> None:
    bars = StoreSource(filled_store.root, "BTCUSDT").fetch_ohlcv("1m", us("2021-02-01T11:00"), us("2021-02-01T13:00"))
    assert bars["open_time"][0] == to_datetime(us("2021-02-01T12:10"))
    assert len(bars) == 50


def test_the_unclosed_bar_of_a_range_is_dropped(filled_store: Store) -> None:
    bars = StoreSource(filled_store.root, "BTCUSDT").fetch_ohlcv("1h", us("2021-02-01T00:30"), us("2021-02-02T09:59"))
    assert bars["open_time"][0] == to_datetime(us("2021-02-01T01:00"))
    assert bars["close_time"][-1] == to_datetime(us("2021-02-02T09:00"))


def test_the_error_of_missing_data_has_the_span_and_the_command(filled_store: Store) -> None:
    source = StoreSource(filled_store.root, "BTCUSDT")
    with pytest.raises(MissingData) as error:
        source.fetch_ohlcv("1m", us("2021-02-02"), us("2021-04-01"))
    assert "2021-02-03T00:00Z to 2021-04-01T00:00Z" in str(error.value)
    command = f"agent-bt data backfill --symbol BTCUSDT --interval 1m --root {filled_store.root} "
    assert command + "--start 2021-02-03 --end 2021-04-01" in str(error.value)


def test_the_error_of_an_empty_store_has_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = StoreSource("data", "BTCUSDT")
    with pytest.raises(
        MissingData, match=r"backfill --symbol BTCUSDT --interval 1m --start 2021-02-02 --end 2021-04-01$"
    ):
        source.fetch_ohlcv("1m", us("2021-02-02"), us("2021-04-01"))


def test_a_missing_or_damaged_month_is_an_error_and_not_a_gap(filled_store: Store) -> None:
    source = StoreSource(filled_store.root, "BTCUSDT")
    path = filled_store.path("2021-02")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="--repair"):
        source.fetch_ohlcv("1m", us("2021-02-01"), us("2021-02-03"))
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        source.fetch_ohlcv("1m", us("2021-02-01"), us("2021-02-03"))


def test_labels_name_the_source(filled_store: Store, tmp_path: Path) -> None:
    assert StoreSource(filled_store.root, "BTCUSDT").label == "store spot/BTCUSDT"
    minutes("2021-02-01", "2021-02-02").write_parquet(tmp_path / "my.parquet")
    assert ParquetSource(tmp_path / "my.parquet", "BTCUSDT").label == "file my.parquet"


@pytest.mark.parametrize("times", ["us", "ms", "naive", "datetime_ms", "mixed"])
def test_a_parquet_file_is_a_source(tmp_path: Path, times: str) -> None:
    table = minutes("2021-02-01", "2021-02-03", without=HOLES)
    opened = table["open_time"].cast(pl.Int64)
    forms = {
        "us": opened,
        "ms": opened // 1000,
        "naive": table["open_time"].dt.replace_time_zone(None),
        "datetime_ms": table["open_time"].cast(pl.Datetime("ms", "UTC")),
        "mixed": pl.concat([opened.head(500) // 1000, opened.tail(-500)]),
    }
    path = tmp_path / "bars.parquet"
    table.drop("close_time").with_columns(open_time=forms[times]).write_parquet(path)
    source: DataSource = ParquetSource(path, "BTCUSDT", "drop")
    bars = source.fetch_ohlcv("1m", us("2021-02-01"), us("2021-02-03"))
    assert bars.drop("filled").equals(table)
    with pytest.raises(MissingData, match="has BTCUSDT for 2021-02-01"):
        source.fetch_ohlcv("1m", us("2021-01-31"), us("2021-02-02"))


def test_a_file_of_many_symbols_is_a_source_of_each(tmp_path: Path) -> None:
    ours, other = minutes("2021-02-01", "2021-02-03"), minutes("2021-02-01T07:00", "2021-02-02")
    broken = other.with_columns(high=0.0)
    both = [ours.with_columns(symbol=pl.lit("BTCUSDT")), broken.with_columns(symbol=pl.lit("XUSDT"))]
    pl.concat(both).sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "many.parquet")
    source = ParquetSource(tmp_path / "many.parquet", "BTCUSDT")
    assert source.fetch_ohlcv("1m", us("2021-02-01"), us("2021-02-03")).drop("filled").equals(ours)
    with pytest.raises(DataError, match=r"1020 invalid bars, the first at 2021-02-01T07:00Z \(XUSDT\)"):
        ParquetSource(tmp_path / "many.parquet", "XUSDT")
    with pytest.raises(DataError, match=r"has no ETHUSDT\. It has 2: BTCUSDT, XUSDT"):
        ParquetSource(tmp_path / "many.parquet", "ETHUSDT")


def test_a_file_with_prices_and_volume_only_is_a_source(tmp_path: Path) -> None:
    table = minutes("2021-02-01", "2021-02-02")
    table.select("open_time", "open", "high", "low", "close", "volume").write_parquet(tmp_path / "ohlcv.parquet")
    source = ParquetSource(tmp_path / "ohlcv.parquet", "BTCUSDT")
    bars = source.fetch_ohlcv("1h", us("2021-02-01"), us("2021-02-02"))
    expected = [
        sum(v * c for v, c in zip(hour["volume"], hour["close"], strict=True)) for hour in table.iter_slices(60)
    ]
    assert bars["quote_asset_volume"].to_list() == pytest.approx(expected, rel=1e-12)
    assert bars.select(pl.sum("trades", "taker_base", "taker_quote")).row(0) == (0, 0, 0)
    assert source.label == "file ohlcv.parquet (quote volume = volume x close)"


def test_hours_cannot_be_split_into_minutes(tmp_path: Path) -> None:
    hours = to_bars(minutes("2021-02-01", "2021-02-03"), Span(us("2021-02-01"), us("2021-02-03")), 60 * MINUTE, "drop")
    hours.drop("filled").write_parquet(tmp_path / "hours.parquet")
    source = ParquetSource(tmp_path / "hours.parquet", "BTCUSDT")
    assert len(source.fetch_ohlcv("4h", us("2021-02-01"), us("2021-02-03"))) == 12
    with pytest.raises(MissingData, match="bars of 60 minutes cannot be aggregated"):
        source.fetch_ohlcv("15m", us("2021-02-01"), us("2021-02-03"))


def test_the_error_of_an_invalid_parquet_file_names_the_problem(tmp_path: Path) -> None:
    good = minutes("2021-02-01", "2021-02-02")
    path = tmp_path / "x.parquet"
    with pytest.raises(DataError, match="no such file"):
        ParquetSource(path, "BTCUSDT")
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"not readable as Parquet .*; convert a CSV file with"):
        ParquetSource(path, "BTCUSDT")
    for table, words in (
        (good.drop("trades", "volume"), "no column volume;"),
        (good.with_columns(symbol=pl.lit("BTCUSD")), "has no BTCUSDT; did you mean BTCUSD"),
        (good.with_columns(low=pl.col("high") + 1), "1440 invalid bars, the first at 2021-02-01T00:00Z"),
        (pl.concat([good, good]), "open times must be unique for each symbol, got a duplicate at 2021-02-01T00:00Z"),
        (good.with_columns(open_time=pl.lit(None, dtype=pl.Int64)), "must have a time"),
        (good.with_columns(open_time=pl.col("open_time") + pl.duration(seconds=7)), "must open at a multiple"),
        (good.clear(), "at least one bar"),
        (good.with_columns(open_time=pl.lit("noon")), "must be a date-time"),
        (good.with_columns(close=pl.lit("high")), "x.parquet"),
        (good.gather_every(7), "7 minutes apart"),
    ):
        table.write_parquet(path)
        with pytest.raises(DataError, match=words):
            ParquetSource(path, "BTCUSDT")
