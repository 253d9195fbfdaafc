"""The sample market of many symbols: correlated, with one listed late and one delisted early."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fake_exchange import us

from agent_bt.core.clock import DAY, HOUR
from agent_bt.core.errors import MissingData
from agent_bt.data.funding import load_panel_funding
from agent_bt.data.klines import valid_prices
from agent_bt.data.panel import PANEL_SCHEMA, Panel
from agent_bt.data.sample_panel import DELISTED, LISTED, SamplePanel

SYMBOLS = ("ADAUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
START, END = us("2024-07-20"), us("2024-09-10")


@pytest.fixture(scope="module")
def panel() -> pl.DataFrame:
    return SamplePanel(SYMBOLS, 7).fetch_panel("1h", START, END)


def test_bars_are_valid_and_only_while_a_symbol_is_listed(panel: pl.DataFrame) -> None:
    assert panel.schema == PANEL_SCHEMA
    assert panel.equals(panel.sort("symbol", "open_time"))
    assert panel.select(valid_prices().all()).item()
    listings = panel.group_by("symbol", maintain_order=True).agg(
        pl.col("open_time").min().cast(pl.Int64), pl.col("close_time").max().cast(pl.Int64), pl.len()
    )
    assert listings.rows() == [
        ("ADAUSDT", START, END, (END - START) // HOUR),
        ("BTCUSDT", START, END, (END - START) // HOUR),
        ("ETHUSDT", START, END, (END - START) // HOUR),
        ("SOLUSDT", START, DELISTED, (DELISTED - START) // HOUR),
        ("XRPUSDT", LISTED, END, (END - LISTED) // HOUR),
    ]


def test_the_notes_name_the_listed_and_the_delisted_symbol() -> None:
    source: Panel = SamplePanel(SYMBOLS, 7)
    assert source.label == "SAMPLE MARKET (seed 7, 5 symbols)"
    [note] = source.notes
    assert note == "XRPUSDT is listed at 2024-08-01T00:00Z, SOLUSDT delisted at 2024-09-01T00:00Z"
    assert SamplePanel(SYMBOLS[:4], 7).notes == ()


def test_few_symbols_are_listed_all_the_time() -> None:
    bars = SamplePanel(SYMBOLS[:4], 7).fetch_panel("1d", us("2024-07-30"), us("2024-09-03"))
    assert bars["symbol"].value_counts()["count"].unique().to_list() == [35]


def test_symbols_are_correlated_but_not_equal(panel: pl.DataFrame) -> None:
    wide = panel.pivot("symbol", index="close_time", values="close").sort("close_time").drop("close_time")
    returns = wide.with_columns(pl.all().log().diff()).drop_nulls().to_numpy()
    between = np.corrcoef(returns.T)[np.triu_indices(len(SYMBOLS), 1)]
    assert (between > 0.2).all()
    assert (between < 0.95).all()


def test_some_symbols_have_more_volume_than_others(panel: pl.DataFrame) -> None:
    traded = panel.group_by("symbol").agg(pl.col("quote_asset_volume").mean())["quote_asset_volume"]
    assert traded.max() / traded.min() > 3
    implied = panel.filter(~pl.col("filled")).select(pl.col("quote_asset_volume") / pl.col("volume") / pl.col("close"))
    assert (implied.to_series() - 1).abs().max() < 0.1


def test_a_bar_depends_on_seed_and_name_and_not_on_the_range(panel: pl.DataFrame) -> None:
    source = SamplePanel(SYMBOLS, 7)
    first, last = us("2024-08-01"), us("2024-08-04")
    times = pl.col("open_time").cast(pl.Int64)
    part = panel.filter(times.is_between(first, last, closed="left"))
    assert source.fetch_panel("1h", first, last).equals(part)
    other = SamplePanel(SYMBOLS, 8).fetch_panel("1h", first, last)
    assert other["close"].to_list() != part["close"].to_list()
    alone = SamplePanel(["BTCUSDT"], 7).fetch_panel("1h", first, last)
    assert alone.equals(part.filter(symbol="BTCUSDT"))


def test_each_symbol_has_its_own_funding() -> None:
    source = SamplePanel(SYMBOLS, 7)
    bars = source.fetch_panel("4h", LISTED - 2 * DAY, LISTED + 2 * DAY)
    paid = load_panel_funding(source, bars).filter(pl.col("funding_rate").is_not_null())
    counts = dict(paid["symbol"].value_counts().iter_rows())
    assert counts == {"ADAUSDT": 12, "BTCUSDT": 12, "ETHUSDT": 12, "SOLUSDT": 12, "XRPUSDT": 6}
    assert (paid["close_time"].dt.hour() % 8 == 0).all()
    expected = source.fetch_funding("ETHUSDT", LISTED - 2 * DAY, LISTED + 2 * DAY)["rate"]
    assert paid.filter(symbol="ETHUSDT")["funding_rate"].to_list() == expected.to_list()


def test_a_range_without_listed_symbols_is_an_error() -> None:
    with pytest.raises(MissingData, match="from 2010-01-01 to 2050-01-01"):
        SamplePanel(SYMBOLS, 7).fetch_panel("1h", us("2009-12-31"), us("2010-01-02"))
