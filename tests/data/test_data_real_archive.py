"""Real months of the exchange agree with the published facts about them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from fake_exchange import us

from agent_bt.core.clock import MINUTE
from agent_bt.data.archive import Archive
from agent_bt.data.backfill import BackfillResult, backfill
from agent_bt.data.sources import StoreSource
from agent_bt.data.spans import Span
from agent_bt.data.store import Store
from agent_bt.data.transport import Transport
from agent_bt.data.verify import verify

pytestmark = pytest.mark.market


@pytest.fixture
def fetch(market_data: Path, store: Store):
    archive = Archive(f"file://{market_data}/archive/data", Transport())

    def run(start: str, end: str) -> BackfillResult:
        return backfill(store, [Span(us(start), us(end))], archive, None, now=us("2026-01-01"))

    return run


def test_three_months_without_a_gap(fetch, store: Store) -> None:
    result = fetch("2024-07-01", "2024-10-01")
    assert (result.added, result.warnings, result.failures) == (132_480, (), ())
    bars = StoreSource(store.root, "BTCUSDT").fetch_ohlcv("1m", us("2024-07-01"), us("2024-10-01"))
    assert len(bars) == 132_480
    assert bars["open"][0] == 62772.01
    assert not bars["filled"].any()
    assert verify(store) == []
    assert fetch("2024-07-01", "2024-10-01").files == ()


def test_march_2023_has_an_outage_quiet_bars_and_one_short_close(fetch, store: Store) -> None:
    result = fetch("2023-03-01", "2023-04-01")
    assert result.added == 44_560
    [month] = store.offsets().sources.values()
    assert month.notes == {"short_close": 1, "zero_volume": 72}
    source = StoreSource(store.root, "BTCUSDT")
    bars = source.fetch_ohlcv("1m", us("2023-03-01"), us("2023-04-01"))
    assert len(bars) == 44_640
    filled = bars.filter(pl.col("filled"))
    assert len(filled) == 80
    assert filled["open_time"].dt.date().unique().to_list() == [pl.date(2023, 3, 24).pipe(pl.select).item()]
    assert filled["volume"].sum() == 0
    assert len(bars.filter((pl.col("volume") == 0) & ~pl.col("filled"))) == 72
    assert {finding.check for finding in verify(store)} == {"gap", "quiet_tail", "source"}


def test_milliseconds_turn_into_microseconds_at_the_new_year(fetch, store: Store) -> None:
    result = fetch("2024-12-30", "2025-01-03")
    assert (result.added, result.failures) == (4 * 1440, ())
    times = store.read(Span(us("2024-12-30"), us("2025-01-03")))["open_time"].cast(pl.Int64)
    assert times.to_list() == list(range(us("2024-12-30"), us("2025-01-03"), MINUTE))
    [finding] = verify(store)
    assert finding.check == "unit"
    assert "from ms to us at 2025-01-01T00:00Z" in finding.message
