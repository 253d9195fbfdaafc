"""Bars equal a slow reference implementation, for any chunking."""

from __future__ import annotations

import gzip
import statistics
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_bt.bars import (
    FastBarAggregator,
    aggregate_bars,
    benchmark_aggregation,
    build_dollar_bars,
    build_tick_bars,
    build_time_bars,
    build_volume_bars,
    create_streaming_aggregator,
)
from agent_bt.core.errors import DataError, UsageError

START = 1_722_470_400_000  # 2024-08-01 00:00 UTC, ms
MINUTE = 60_000_000


def random_ticks(seed: int, count: int, *, steps: int = 5) -> pl.DataFrame:
    """Return ticks of a random walk on a coarse price grid, some at the same time, with pauses of minutes."""
    draw = np.random.default_rng(seed)
    pauses = draw.choice([0, 1, 700, 30_000, 400_000], count, p=[0.3, 0.3, 0.3, 0.09, 0.01])
    return pl.DataFrame(
        {
            "timestamp": START + np.cumsum(pauses),
            "price": 100.0 + np.cumsum(draw.integers(-steps, steps + 1, count)) / 100.0,
            "quantity": draw.integers(1, 500, count) / 1000.0,
            "is_buyer_maker": draw.random(count) < 0.5,
        }
    )


def slow_bars(ticks: pl.DataFrame, bar_type: str, threshold: float) -> list[dict[str, Any]]:
    """Compute bars tick by tick from their definitions; `threshold` of time bars in us."""
    groups: list[list[dict[str, Any]]] = []
    full = True
    for tick in ticks.iter_rows(named=True):
        if bar_type == "time_bar":
            full = not groups or tick["timestamp"] * 1000 // threshold != groups[-1][0]["timestamp"] * 1000 // threshold
        if full:
            groups.append([])
        groups[-1].append(tick)
        volume = sum(t["quantity"] for t in groups[-1])
        dollars = sum(t["price"] * t["quantity"] for t in groups[-1])
        reached = {"tick_bar": len(groups[-1]), "volume_bar": volume, "dollar_bar": dollars}
        full = bar_type != "time_bar" and reached[bar_type] >= threshold
    bars = []
    for group in groups:
        prices = [t["price"] for t in group]
        volume = sum(t["quantity"] for t in group)
        buys = sum(t["quantity"] for t in group if not t["is_buyer_maker"])
        dollars = sum(t["price"] * t["quantity"] for t in group)
        signs = [1 if b > a else -1 for a, b in pairwise(prices) if a != b]
        start, end = group[0]["timestamp"] * 1000, group[-1]["timestamp"] * 1000
        if bar_type == "time_bar":
            start = int(start // threshold * threshold)
            end = start + int(threshold)
        bars.append(
            {
                "start_time": start, "end_time": end, "open": prices[0], "high": max(prices), "low": min(prices),
                "close": prices[-1], "volume": volume, "buy_volume": buys, "sell_volume": max(volume - buys, 0.0),
                "vwap": dollars / volume, "dollar_volume": dollars, "tick_count": len(group),
                "up_move_ratio": sum(b > a for a, b in pairwise(prices)) / max(len(prices) - 1, 1),
                "medium_price": statistics.median(prices),
                "reversals": sum(a != b for a, b in pairwise(signs)),
            }
        )  # fmt: skip
    return bars


def rows_of(bars: pl.DataFrame) -> list[dict[str, Any]]:
    times = [pl.col("start_time", "end_time").to_physical()]
    return bars.with_columns(*times).to_dicts()


CASES = [("time_bar", "1min", MINUTE), ("tick_bar", 7, 7), ("volume_bar", 1.5, 1.5), ("dollar_bar", 120.0, 120.0)]


@pytest.mark.parametrize(("bar_type", "threshold", "slow"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_bars_are_bit_identical_to_the_slow_reference(bar_type: Any, threshold: Any, slow: float, seed: int) -> None:
    ticks = random_ticks(seed, 400)
    assert rows_of(aggregate_bars(ticks, bar_type, threshold)) == slow_bars(ticks, bar_type, slow)


@given(
    seed=st.integers(0, 10**6),
    case=st.sampled_from(CASES),
    cuts=st.lists(st.integers(0, 120), max_size=6),
    chunk_size=st.integers(1, 130),
)
def test_any_chunking_gives_bit_identical_bars(seed: int, case: Any, cuts: list[int], chunk_size: int) -> None:
    bar_type, threshold, _ = case
    ticks = random_ticks(seed, 120)
    stream = create_streaming_aggregator(bar_type, threshold, chunk_size=chunk_size)
    edges = [0, *sorted(cuts), len(ticks)]
    parts = [stream.process(ticks[a:b]) for a, b in pairwise(edges)]
    assert pl.concat([*parts, stream.finish()]).equals(aggregate_bars(ticks, bar_type, threshold))
    assert stream.ticks == 120
    assert stream.finish().is_empty()


@pytest.mark.parametrize(("bar_type", "threshold", "slow"), CASES)
def test_uncompiled_functions_give_the_same_bars(bar_type: Any, threshold: Any, slow: float) -> None:
    del slow
    ticks = random_ticks(5, 150)
    assert aggregate_bars(ticks, bar_type, threshold, use_numba=False).equals(
        aggregate_bars(ticks, bar_type, threshold)
    )


def test_more_bars_than_the_buffer_holds() -> None:
    ticks = random_ticks(1, 40_000)
    bars = build_tick_bars(ticks, n_ticks=1)
    assert bars["tick_count"].to_list() == [1] * 40_000
    assert bars["close"].equals(ticks["price"].alias("close"))


def test_sums_agree_with_polars_on_real_trades(market_data: Path) -> None:
    path = market_data / "trades" / "spot_BTCUSDT_trades_2024-08-08.parquet"
    ticks = pl.read_parquet(path)
    bars = build_time_bars(path, "1min", symbol="BTCUSDT")
    minute = (pl.col("transact_time") // 60_000).alias("minute")
    reference = ticks.group_by(minute, maintain_order=True).agg(
        open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
        close=pl.col("price").last(), volume=pl.col("quantity").sum(), medium_price=pl.col("price").median(),
        tick_count=pl.len().cast(pl.Int64),
    )  # fmt: skip
    assert bars["symbol"].unique().to_list() == ["BTCUSDT"]
    exact = ("open", "high", "low", "close", "medium_price", "tick_count")
    assert bars.select(exact).equals(reference.select(exact))
    np.testing.assert_allclose(bars["volume"], reference["volume"], rtol=1e-12)


def test_all_file_types_and_lists_of_files_give_the_same_bars(tmp_path: Path) -> None:
    ticks = random_ticks(2, 300)
    whole = build_dollar_bars(ticks, 500.0)
    parts = [ticks[:100], ticks[100:170], ticks[170:]]
    parts[0].write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(parts[1].write_csv().encode()))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("c.csv", parts[2].write_csv())
    paths = [tmp_path / "a.parquet", str(tmp_path / "b.csv.gz"), tmp_path / "c.zip"]
    seen: list[tuple[int, int]] = []
    bars = aggregate_bars(
        paths, "dollar_bar", 500.0, n_workers=2, progress_callback=lambda at, of: seen.append((at, of))
    )
    assert bars.equals(whole)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert aggregate_bars(paths, "dollar_bar", 500.0, use_multiprocess=False).equals(whole)
    slices = FastBarAggregator(bar_type="dollar_bar", threshold=500.0, chunk_size=64)
    assert slices.aggregate(paths).bars.equals(whole)
    assert slices.aggregate(ticks.to_arrow()).bars.equals(whole)


@pytest.mark.parametrize("columns", [6, 7, 8])
def test_binance_archives_without_a_header_are_read(tmp_path: Path, columns: int) -> None:
    rows = {
        6: "1,100.5,2.0,201.0,1722470400000,True\n",
        7: "1,100.5,2.0,1,3,1722470400000,true\n",
        8: "1,100.5,2.0,1,3,1722470400000000,True,True\n",
    }
    (tmp_path / "t.csv").write_text(rows[columns])
    (bar,) = rows_of(build_tick_bars(tmp_path / "t.csv", n_ticks=1))
    assert (bar["start_time"], bar["open"], bar["volume"], bar["buy_volume"]) == (START * 1000, 100.5, 2.0, 0.0)


@pytest.mark.parametrize("times", [[1722470400], [1722470400.0], [START], [START * 1000], [START * 10**6]])
def test_the_unit_of_times_is_recognised_by_their_magnitude(times: list[float]) -> None:
    ticks = pl.DataFrame({"timestamp": times, "price": [1.0], "quantity": [1.0], "is_buyer_maker": [True]})
    assert rows_of(build_time_bars(ticks, "1h"))[0]["start_time"] == START * 1000


def test_the_last_unfinished_bar_can_be_left_out() -> None:
    ticks = random_ticks(3, 10)
    assert build_tick_bars(ticks, n_ticks=4)["tick_count"].to_list() == [4, 4, 2]
    assert build_tick_bars(ticks, n_ticks=4, include_last=False)["tick_count"].to_list() == [4, 4]


def test_no_ticks_give_no_bars() -> None:
    bars = build_volume_bars(random_ticks(1, 5)[:0], 1.0)
    assert bars.is_empty()
    assert "reversals" in bars.columns
    assert "reversals" not in build_volume_bars(random_ticks(1, 5), 1.0, include_advanced=False).columns


INVALID = [
    ({"price": [1.0, float("nan")]}, "drop_invalid", "tick 1 has no valid"),
    ({"price": [1.0, -2.0]}, "drop_invalid", "tick 1 has no valid"),
    ({"quantity": [0.0, 1.0]}, "drop_invalid", "tick 0 has no valid"),
    ({"timestamp": [None, START]}, "drop_invalid", "tick 0 has no valid"),
    ({"timestamp": [START + 1, START]}, "sort", "tick 1 at .* is earlier"),
    ({"trade_id": [7, 7]}, "drop_duplicates", "tick 1 is a duplicate"),
]


@pytest.mark.parametrize(("changes", "repair", "message"), INVALID)
def test_invalid_ticks_raise_an_error_naming_the_row_unless_repair_allows_them(
    changes: dict[str, Any], repair: Any, message: str
) -> None:
    good = {
        "timestamp": [START, START + 1],
        "price": [1.0, 2.0],
        "quantity": [1.0, 1.0],
        "is_buyer_maker": [True, False],
    }
    ticks = pl.DataFrame({**good, **changes})
    with pytest.raises(DataError, match=message) as error:
        build_tick_bars(ticks, n_ticks=10)
    assert repair in str(error.value)
    result = FastBarAggregator(bar_type="tick_bar", threshold=10, repair=[repair]).aggregate(ticks)
    assert result.repaired == {repair: 1}
    assert result.ticks == (2 if repair == "sort" else 1)
    first = START + int("quantity" in changes)
    assert result.bars["start_time"].to_physical().to_list() == [first * 1000]


def test_chunks_out_of_order_are_an_error() -> None:
    ticks = random_ticks(1, 100)
    stream = create_streaming_aggregator("tick_bar", 10)
    stream.process(ticks[50:])
    with pytest.raises(DataError, match="in chronological order"):
        stream.process(ticks[:50])


@pytest.mark.parametrize(
    ("bar_type", "threshold", "message"),
    [
        ("range_bar", 1, "bar_type must be one of"),
        ("tick_bar", 0, "finite number above 0"),
        ("tick_bar", 1.5, "must be an integer"),
        ("tick_bar", "many", "must be a number"),
        ("volume_bar", float("nan"), "finite number above 0"),
        ("dollar_bar", -1, "finite number above 0"),
        ("dollar_bar", True, "finite number above 0"),
        ("time_bar", "soon", "not a duration"),
        ("time_bar", 0, "at least 1 microsecond"),
        ("time_bar", None, "must be a duration"),
    ],
)
def test_an_invalid_threshold_is_a_usage_error(bar_type: Any, threshold: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        aggregate_bars(random_ticks(1, 5), bar_type, threshold)


def test_other_invalid_input_is_an_error(tmp_path: Path) -> None:
    ticks = random_ticks(1, 5)
    with pytest.raises(UsageError, match="must be a table, a path or a list of paths, got int"):
        build_time_bars(3)
    with pytest.raises(DataError, match="is not a file"):
        build_time_bars(tmp_path / "none.parquet")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="unsupported file type"):
        build_time_bars(tmp_path / "x.txt")
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(DataError, match="cannot be read"):
        build_time_bars(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no column for is_buyer_maker"):
        build_time_bars(ticks.drop("is_buyer_maker"))
    with pytest.raises(DataError, match="several symbols"):
        build_time_bars(ticks.with_columns(symbol=pl.Series(["A", "A", "B", "A", "A"])))
    with pytest.raises(UsageError, match="repair must be some of"):
        build_time_bars(ticks, repair=["guess"])
    with pytest.raises(UsageError, match="n_workers must be an integer"):
        aggregate_bars(ticks, n_workers=0)


def test_the_benchmark_names_every_implementation() -> None:
    table = benchmark_aggregation(random_ticks(1, 500), "time_bar", "1min", n_iterations=1)
    assert table["implementation"].to_list() == ["numba", "numba_advanced", "python", "polars"]
    assert (table["ticks_per_s"] > 0).all()
