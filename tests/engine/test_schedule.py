"""The schedule: no decision before the window is full, none in an outage, and all are counted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from whole_runs import config_over, minutes, run_over

from agent_bt import load_config
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.prepare import PreparedMarket, prepare_market
from agent_bt.core.clock import HOUR, MINUTE, duration_us, iso, time_us, to_datetime
from agent_bt.core.errors import ConfigError
from agent_bt.core.types import Decision, FeatureSpec, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.data.archive import Archive
from agent_bt.data.backfill import backfill
from agent_bt.data.spans import Span
from agent_bt.data.store import Store
from agent_bt.data.transport import Transport
from agent_bt.strategies.base import Strategy


class Watcher(Strategy):
    """Sees so many rows, and a feature that needs five."""

    def __init__(self, lookback: int = 1, *, ema: int | None = None) -> None:
        self.lookback = lookback
        if ema:
            self.features = (FeatureSpec(column="ema", kind="ema", params=(("period", ema),)),)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        return Decision.hold()


def prepared(
    tmp_path: Path, bars: pl.DataFrame, strategy: Strategy, *settings: str, limit: int | None = None
) -> PreparedMarket:
    bars.write_parquet(tmp_path / "market.parquet")
    end = bars["open_time"][-1] + timedelta(minutes=1)
    config = config_over(tmp_path / "market.parquet", *settings, folder=tmp_path, end=end)
    return prepare_market(config, load_bars(config).bars, strategy, limit)


def times(prepared: PreparedMarket) -> list[str]:
    return [iso(int(prepared.market.times[bar])) for bar in prepared.schedule.bars]


def without(bars: pl.DataFrame, first: str, last: str) -> pl.DataFrame:
    """Without the minutes that open in [first, last)."""
    inside = pl.col("open_time").is_between(to_datetime(time_us(first)), to_datetime(time_us(last)), closed="left")
    return bars.filter(~inside)


@pytest.mark.parametrize(
    ("lookback", "ema", "every", "first"),
    [
        (1, None, "1m", "2024-07-01T00:01Z"),
        (60, None, "1h", "2024-07-01T01:00Z"),
        (61, None, "1h", "2024-07-01T02:00Z"),
        (60, None, "1m", "2024-07-01T01:00Z"),
        (1, 5, "1m", "2024-07-01T00:05Z"),
        (56, 5, "1h", "2024-07-01T01:00Z"),
        (57, 5, "1h", "2024-07-01T02:00Z"),
        (10, None, "15m", "2024-07-01T00:15Z"),
        (10, None, "1d", "2024-07-02T00:00Z"),
    ],
)
def test_the_first_decision_is_the_first_due_one_with_a_full_window(
    tmp_path: Path, lookback: int, ema: int | None, every: str, first: str
) -> None:
    found = prepared(tmp_path, minutes(1440, holes=False), Watcher(lookback, ema=ema), f"strategy.every={every}")
    assert times(found)[0] == first
    view = found.market.at(int(found.schedule.bars[0]))
    assert len(view) == lookback
    assert not np.isnan(view.matrix()).any()
    assert times(found)[-1] == "2024-07-02T00:00Z"
    assert found.schedule.skipped == 0


def test_warm_up_fills_the_window_before_the_start(tmp_path: Path) -> None:
    bars = minutes(2880, holes=False)
    cold = prepared(tmp_path, bars, Watcher(60, ema=26), "market.start=2024-07-02")
    warm = prepared(tmp_path, bars, Watcher(60, ema=26), "market.start=2024-07-02", "market.warmup=2h")
    assert times(cold)[0] == "2024-07-02T02:00Z"
    # The close at the start itself belongs to the bar before it.
    assert times(warm)[0] == "2024-07-02T01:00Z"
    assert (cold.market.first, warm.market.first) == (0, 120)
    assert len(warm.market.at(int(warm.schedule.bars[0]))) == 60


@pytest.mark.parametrize("gaps", ["forward_fill", "drop"])
def test_decisions_in_an_outage_are_skipped_and_counted_whatever_is_done_with_gaps(tmp_path: Path, gaps: str) -> None:
    bars = without(minutes(1440, holes=False), "2024-07-01T04:30Z", "2024-07-01T07:30Z")
    found = prepared(tmp_path, bars, Watcher(), f"market.gaps={gaps}")
    hours = [f"2024-07-01T{hour:02}:00Z" for hour in (1, 2, 3, 4, 8, *range(9, 24))]
    assert times(found) == [*hours, "2024-07-02T00:00Z"]
    assert found.schedule.skipped == 3


def test_an_outage_that_ends_with_the_decision_bar_costs_nothing(tmp_path: Path) -> None:
    bars = without(minutes(1440, holes=False), "2024-07-01T04:00Z", "2024-07-01T04:59Z")
    assert prepared(tmp_path, bars, Watcher()).schedule.skipped == 0
    bars = without(minutes(1440, holes=False), "2024-07-01T04:59Z", "2024-07-01T05:00Z")
    assert prepared(tmp_path, bars, Watcher()).schedule.skipped == 1


def test_a_decision_on_a_bar_without_volume_is_skipped(tmp_path: Path) -> None:
    quiet = pl.col("open_time") == to_datetime(time_us("2024-07-01T05:59Z"))
    amounts = ["volume", "quote_asset_volume", "trades", "taker_base", "taker_quote"]
    none = [pl.when(quiet).then(0).otherwise(pl.col(name)).alias(name) for name in amounts]
    bars = minutes(1440, holes=False).with_columns(none)
    found = prepared(tmp_path, bars, Watcher())
    assert found.schedule.skipped == 1
    assert "2024-07-01T06:00Z" not in times(found)


@pytest.mark.parametrize("limit", [1, 5, 22])
def test_a_limit_ends_the_market_where_the_next_decision_would_have_been(tmp_path: Path, limit: int) -> None:
    bars = minutes(1440, holes=False)
    whole = prepared(tmp_path, bars, Watcher(30))
    part = prepared(tmp_path, bars, Watcher(30), limit=limit)
    assert times(part) == times(whole)[:limit]
    assert part.market.times[-1] == whole.market.times[whole.schedule.bars[limit]]
    assert len(part.market.bars) == len(part.market) == len(part.market.close)


def test_a_limit_beyond_the_last_decision_changes_nothing(tmp_path: Path) -> None:
    bars = minutes(1440, holes=False)
    whole, part = prepared(tmp_path, bars, Watcher(30)), prepared(tmp_path, bars, Watcher(30), limit=24)
    assert times(part) == times(whole)
    assert len(part.market) == len(whole.market)


@pytest.mark.parametrize("lookback", [1441, 10**9])
def test_a_range_without_any_decision_is_an_error_that_says_what_to_change(tmp_path: Path, lookback: int) -> None:
    with pytest.raises(ConfigError, match=r"leaves no decision.*widen the range or set market\.warmup"):
        prepared(tmp_path, minutes(1440, holes=False), Watcher(lookback))


def expected(bars: pl.DataFrame, *, start: str, end: str, every: str, lookback: int) -> tuple[list[int], int]:
    """The schedule in words: row by row, instant by instant."""
    closes = {int(t.timestamp()) * 1_000_000 + MINUTE: row for row, t in enumerate(bars["open_time"])}
    step, made, skipped = duration_us(every), [], 0
    for instant in range(time_us(start), time_us(end) + 1, step):
        reached = sum(close <= instant for close in closes)
        if reached < lookback:
            continue
        row = closes.get(instant)
        if row is not None and bars["volume"][row] > 0:
            made.append(instant)
        else:
            skipped += 1
    return made, skipped


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("every", ["1h", "7m"])
def test_the_schedule_equals_a_plain_loop_over_the_instants(tmp_path: Path, seed: int, every: str) -> None:
    bars = minutes(1440, seed=seed)
    found = prepared(tmp_path, bars, Watcher(13), "market.gaps=drop", f"strategy.every={every}")
    made, skipped = (
        expected(bars, start="2024-07-01", end="2024-07-02", every="1h", lookback=13)
        if every == "1h"
        else (aligned(bars, "7m", 13))
    )
    assert found.market.times[found.schedule.bars].tolist() == made
    assert found.schedule.skipped == skipped


def aligned(bars: pl.DataFrame, every: str, lookback: int) -> tuple[list[int], int]:
    """As `expected`, for an interval that does not divide the day: multiples count from 1970."""
    step = duration_us(every)
    first = -(-time_us("2024-07-01") // step) * step
    return expected(bars, start=iso(first), end="2024-07-02", every=every, lookback=lookback)


@pytest.mark.market
@pytest.mark.parametrize("gaps", ["forward_fill", "drop"])
def test_march_2023_loses_exactly_the_decisions_of_its_outage(tmp_path: Path, market_data: Path, gaps: str) -> None:
    store = Store(tmp_path / "data", "BTCUSDT")
    archive = Archive(f"file://{market_data}/archive/data", Transport())
    span = Span(time_us("2023-03-01"), time_us("2023-04-01"))
    backfill(store, [span], archive, None, now=time_us("2026-01-01"))
    settings = (
        f"data.root={tmp_path / 'data'}", "market.source=store", "market.start=2023-03-24", "market.end=2023-03-26",
        f"market.gaps={gaps}", "strategy.every=10m", f"output={tmp_path}", f"cache.path={tmp_path / 'c'}",
    )  # fmt: skip
    config = load_config(None, settings, env={})
    bars = load_bars(config).bars
    assert bars["filled"].sum() == (80 if gaps == "forward_fill" else 0)
    result = run_over(config)
    decisions = result.summary["decisions"]
    # Counted apart from the engine: the instants of the two days from 01:40 on (34 + 60 rows) without a traded bar.
    traded = bars.filter(~pl.col("filled") & (pl.col("volume") > 0))["close_time"].to_physical().to_list()
    due = range(time_us("2023-03-24T01:40Z"), time_us("2023-03-26") + 1, 10 * MINUTE)
    lost = len(set(due) - set(traded))
    assert lost >= 8
    assert (decisions["total"], decisions["skipped"]) == (len(due) - lost, lost)
    made = pl.read_parquet(result.run_dir / "decisions.parquet")["time"].to_physical().to_list()
    assert set(made) == set(due) & set(traded)
    fills = pl.read_parquet(result.run_dir / "fills.parquet")["time"].to_physical().to_list()
    assert set(fills) <= set(traded)
    assert all(instant % (HOUR // 6) == 0 for instant in made)
