"""A panel has each symbol while it is listed, with gaps flagged, and no bars before or after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fake_exchange import FakeExchange, rows, us
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import BAR_INTERVALS, HOUR, MINUTE, duration_us
from agent_bt.core.errors import DataError, MissingData
from agent_bt.data.klines import normalise
from agent_bt.data.panel import PANEL_SCHEMA, Panel, PanelSource, StorePanel
from agent_bt.data.spans import Span
from agent_bt.data.store import Store

START, END = us("2021-02-01"), us("2021-02-04")


def minutes(start: str, end: str, **options: object) -> pl.DataFrame:
    raw = rows(start, end, **options).rename({"quote": "quote_asset_volume"})
    return normalise(raw, Span(us(start), us(end)), "rows").frame


def hours(symbol: str, start: int, end: int, without: tuple[int, ...] = ()) -> pl.DataFrame:
    """Return hours of one symbol as an OHLCV table, except those in `without`, counted from `start`."""
    opened = np.array([t for i, t in enumerate(range(start, end, HOUR)) if i not in without], dtype=np.int64)
    price = 100.0 + np.arange(len(opened)) + len(symbol)
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(opened),
            "open_time": opened,
            "open": price,
            "high": price + 2,
            "low": price - 1,
            "close": price + 1,
            "volume": price / 10,
        }
    )


@pytest.fixture
def panel_file(tmp_path: Path) -> Path:
    """Write a panel: A has a gap of two hours, B is listed late, C is delisted early (in the middle of a day)."""
    path = tmp_path / "panel.parquet"
    parts = [
        hours("CUSDT", START, us("2021-02-02T05:00")),
        hours("AUSDT", START, END, without=(10, 11)),
        hours("BUSDT", us("2021-02-02T12:00"), END),
    ]
    pl.concat(parts).write_parquet(path)
    return path


def listings(bars: pl.DataFrame) -> dict[str, tuple[int, int, int, int]]:
    """Return symbol -> first open, last close, bars, filled bars."""
    table = bars.group_by("symbol", maintain_order=True).agg(
        pl.col("open_time").min().cast(pl.Int64),
        pl.col("close_time").max().cast(pl.Int64),
        pl.len().alias("bars"),
        pl.col("filled").sum(),
    )
    return {symbol: tuple(values) for symbol, *values in table.iter_rows()}  # type: ignore[misc]


def test_each_symbol_has_bars_while_it_is_listed(panel_file: Path) -> None:
    source: Panel = PanelSource(panel_file)
    assert source.symbols == ("AUSDT", "BUSDT", "CUSDT")
    bars = source.fetch_panel("1h", START, END)
    assert bars.schema == PANEL_SCHEMA
    assert bars.equals(bars.sort("symbol", "open_time"))
    assert listings(bars) == {
        "AUSDT": (START, END, 72, 2),
        "BUSDT": (us("2021-02-02T12:00"), END, 36, 0),
        "CUSDT": (START, us("2021-02-02T05:00"), 29, 0),
    }
    filled = bars.filter("filled")
    assert filled["open_time"].cast(pl.Int64).to_list() == [START + 10 * HOUR, START + 11 * HOUR]
    before = bars.filter(pl.col("open_time").cast(pl.Int64) == START + 9 * HOUR, pl.col("symbol") == "AUSDT")
    assert filled["close"].to_list() == [before["close"][0]] * 2
    assert filled["volume"].sum() == 0


def test_dropped_gaps_are_left_out(panel_file: Path) -> None:
    bars = PanelSource(panel_file, gaps="drop").fetch_panel("1h", START, END)
    assert listings(bars)["AUSDT"] == (START, END, 70, 0)


def test_a_missing_quote_volume_is_volume_times_close_with_a_note(panel_file: Path) -> None:
    source = PanelSource(panel_file)
    bars = source.fetch_panel("1h", START, END)
    assert (bars["quote_asset_volume"] == bars["volume"] * bars["close"]).all()
    assert source.label == "file panel.parquet (quote volume = volume x close)"
    (note,) = source.notes
    assert note.startswith("panel.parquet has no quote_asset_volume, trades, taker_base, taker_quote: ")
    assert "volume x close" in note


def test_optional_columns_of_a_file_are_used(tmp_path: Path) -> None:
    table = minutes("2021-02-01", "2021-02-02").with_columns(symbol=pl.lit("AUSDT"))
    table.write_parquet(tmp_path / "full.parquet")
    source = PanelSource(tmp_path / "full.parquet")
    assert (source.label, source.notes) == ("file full.parquet", ())
    bars = source.fetch_panel("1m", START, us("2021-02-02"))
    assert bars.select(table.columns).equals(table)


def test_a_bar_past_the_end_of_the_file_is_dropped_but_not_the_last_of_a_delisted_symbol(tmp_path: Path) -> None:
    parts = [hours("AUSDT", START, us("2021-02-03T07:00")), hours("CUSDT", START, us("2021-02-02T05:00"))]
    pl.concat(parts).write_parquet(tmp_path / "p.parquet")
    bars = PanelSource(tmp_path / "p.parquet").fetch_panel("1d", START, END)
    assert listings(bars) == {
        "AUSDT": (START, us("2021-02-03"), 2, 0),
        "CUSDT": (START, us("2021-02-03"), 2, 0),
    }
    last = bars.row(-1, named=True)
    assert last["volume"] == pytest.approx(sum(hours("CUSDT", START, us("2021-02-02T05:00"))["volume"][24:]))


def test_a_symbol_without_bars_is_left_out_and_a_range_without_any_is_an_error(panel_file: Path) -> None:
    source = PanelSource(panel_file)
    assert set(listings(source.fetch_panel("1h", START, us("2021-02-02")))) == {"AUSDT", "CUSDT"}
    assert set(listings(source.fetch_panel("1h", START, us("2030-01-01")))) == {"AUSDT", "BUSDT", "CUSDT"}
    with pytest.raises(MissingData, match="has bars for 2021-02-01T00:00Z to 2021-02-04T00:00Z, requested 2021-03-01"):
        source.fetch_panel("1h", us("2021-03-01"), us("2021-03-02"))
    with pytest.raises(MissingData, match="has bars for 2021"):
        source.fetch_panel("1h", us("2020-03-01"), us("2020-03-02"))
    with pytest.raises(MissingData, match="bars of 60 minutes cannot be aggregated to 15m"):
        source.fetch_panel("15m", START, END)


def test_named_symbols_are_read_and_unknown_ones_are_an_error(panel_file: Path) -> None:
    assert PanelSource(panel_file, ["BUSDT", "AUSDT"]).symbols == ("AUSDT", "BUSDT")
    with pytest.raises(DataError, match=r"has no AUSDTT; did you mean AUSDT\? It has 3: AUSDT, BUSDT, CUSDT"):
        PanelSource(panel_file, ["AUSDTT", "BUSDT"])


def test_errors_of_invalid_bars_name_the_symbol(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    good, other = hours("AUSDT", START, END), hours("BUSDT", START, END)
    at = pl.int_range(pl.len()) == 5
    for table, words in (
        (other.with_columns(low=pl.when(at).then(1e9).otherwise("low")), r"1 invalid bars, .*T05:00Z \(BUSDT\)"),
        (
            pl.concat([other, other[7:8]]),
            r"open times must be unique for each symbol, got a duplicate at .*T07:00Z \(BUSDT\)",
        ),
        (other.with_columns(pl.col("open_time") + 7 * MINUTE), r"T00:07Z \(BUSDT\); the distance must be one of"),
        (other.with_columns(funding_rate=pl.lit(1.5)), r"72 invalid rates .* \(BUSDT\)"),
        (other.with_columns(symbol=pl.lit(None, dtype=pl.String)), "must have a symbol"),
    ):
        both = pl.concat([good, table], how="diagonal")
        both.write_parquet(path)
        with pytest.raises(DataError, match=words):
            PanelSource(path)
    good.drop("symbol").write_parquet(path)
    with pytest.raises(DataError, match="no column symbol"):
        PanelSource(path)
    good.clear().write_parquet(path)
    with pytest.raises(DataError, match="at least one bar"):
        PanelSource(path)
    with pytest.raises(DataError, match="no such file"):
        PanelSource(tmp_path / "none.parquet")


def slowly(table: pl.DataFrame, span: Span, step: int) -> list[tuple[object, ...]]:
    """Compute the bars of a symbol one by one: symbol, open_time, open, high, low, close, filled."""
    slots = range(-(-span.start // step) * step, span.end - step + 1, step)
    known = {row["open_time"]: row for row in table.iter_rows(named=True)}
    inside = {slot: [known[at] for at in range(slot, slot + step, HOUR) if at in known] for slot in slots}
    alive = [slot for slot in slots if inside[slot]]
    bars: list[tuple[object, ...]] = []
    last = 0.0
    for slot in range(alive[0], alive[-1] + 1, step) if alive else ():
        name, some = table["symbol"][0], inside[slot]
        if some:
            high, low = max(row["high"] for row in some), min(row["low"] for row in some)
            last = some[-1]["close"]
            bars.append((name, slot, some[0]["open"], high, low, last, False))
        else:
            bars.append((name, slot, last, last, last, last, True))
    return bars


@settings(max_examples=25)
@given(
    edges=st.lists(st.tuples(st.integers(0, 71), st.integers(0, 71)), min_size=1, max_size=4),
    start=st.integers(0, 72),
    length=st.integers(1, 72),
    interval=st.sampled_from(["1h", "4h", "1d"]),
    missing=st.sets(st.integers(0, 71), max_size=20),
)
def test_bars_of_a_panel_equal_those_of_a_single_symbol_up_to_its_last(
    tmp_path_factory: pytest.TempPathFactory,
    edges: list[tuple[int, int]],
    start: int,
    length: int,
    interval: str,
    missing: set[int],
) -> None:
    # The first symbol has all bars, so that the end of the file is known.
    path = tmp_path_factory.mktemp("panel") / "p.parquet"
    tables = {"AUSDT": hours("AUSDT", START, END)}
    for at, (one, other) in enumerate(edges):
        name = f"{chr(66 + at)}USDT"
        first, last = min(one, other), max(one, other)
        table = hours(name, START + first * HOUR, START + (last + 1) * HOUR, tuple(h - first for h in missing))
        if len(table):
            tables[name] = table
    pl.concat(tables.values()).sample(fraction=1.0, shuffle=True, seed=2).write_parquet(path)
    span = Span(START + start * HOUR, min(START + (start + length) * HOUR, END))
    expected = [bar for name in sorted(tables) for bar in slowly(tables[name], span, duration_us(interval))]
    if expected:
        bars = PanelSource(path).fetch_panel(interval, *span)
        times = bars.with_columns(pl.col("open_time").cast(pl.Int64))
        assert times.select("symbol", "open_time", "open", "high", "low", "close", "filled").rows() == expected
    else:
        with pytest.raises(MissingData):
            PanelSource(path).fetch_panel(interval, *span)


# The store


@pytest.fixture
def stores(exchange: FakeExchange, store: Store, fill: Callable[..., object]) -> Path:
    """Fill stores of BTCUSDT, 1 to 3 February with a gap, and of ETHUSDT, the same rows from the 2nd on."""
    gap = (("2021-02-02T10:20", "2021-02-02T12:10"),)
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02"))
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03", without=gap))
    exchange.publish("2021-02-03", rows("2021-02-03", "2021-02-03T18:00"))
    fill("2021-02-01", "2021-02-04")
    later = Store(store.root, "ETHUSDT")
    frame = store.read(Span(us("2021-02-02"), us("2021-02-04")))
    later.commit("2021-02", frame, covered=[Span(us("2021-02-02"), us("2021-02-04"))], outages=[], sources={})
    return store.root


@pytest.mark.parametrize("interval", BAR_INTERVALS)
def test_a_panel_of_the_store_has_the_covered_span_up_to_the_last_bar(stores: Path, interval: str) -> None:
    panel: Panel = StorePanel(stores, ["ETHUSDT", "BTCUSDT"])
    bars = panel.fetch_panel(interval, START, END)
    assert bars.schema == PANEL_SCHEMA
    step = duration_us(interval)
    last = -(-us("2021-02-03T18:00") // step) * step
    assert {name: listing[:2] for name, listing in listings(bars).items()} == {
        "BTCUSDT": (START, last),
        "ETHUSDT": (us("2021-02-02"), last),
    }
    assert (listings(bars)["BTCUSDT"][3] > 0) == (step < HOUR * 4)


def test_the_error_of_a_symbol_without_data_has_the_command(stores: Path) -> None:
    with pytest.raises(MissingData, match=r"store spot/XRPUSDT: no data for 2021-02-01") as error:
        StorePanel(stores, ["BTCUSDT", "XRPUSDT"]).fetch_panel("1h", START, END)
    assert f"--symbol XRPUSDT --interval 1m --root {stores} --start 2021-02-01 --end 2021-02-04" in str(error.value)
    with pytest.raises(MissingData, match="ETHUSDT: no data"):
        StorePanel(stores, ["BTCUSDT", "ETHUSDT"]).fetch_panel("1h", START, us("2021-02-02"))
    with pytest.raises(MissingData, match=r"(?s)--symbol SOLUSDT .*--symbol XRPUSDT "):
        StorePanel(stores, ["BTCUSDT", "XRPUSDT", "SOLUSDT"]).fetch_panel("1h", START, END)


def test_a_span_missing_between_backfills_is_an_error(stores: Path) -> None:
    store = Store(stores, "ETHUSDT")
    span = Span(us("2021-02-05"), us("2021-02-06"))
    store.commit("2021-02", store.read_month("2021-02"), covered=[span], outages=[], sources={})
    with pytest.raises(MissingData, match="ETHUSDT: no data for 2021-02-04T00:00Z to 2021-02-05T00:00Z"):
        StorePanel(stores, ["BTCUSDT", "ETHUSDT"]).fetch_panel("1h", START, us("2021-02-06"))


# The real panel


@pytest.mark.market
def test_the_real_panel_has_thirty_pairs_with_different_ranges(market_data: Path) -> None:
    path = market_data / "panel" / "spot_30usdt_1h_2024-01_2024-09.parquet"
    source = PanelSource(path)
    assert len(source.symbols) == 30
    bars = source.fetch_panel("1h", us("2024-01-01"), us("2024-10-01"))
    raw = pl.read_parquet(path).sort("symbol", "open_time")
    assert bars.schema == PANEL_SCHEMA
    assert len(bars) == len(raw) == 179_994
    for name in ("symbol", "open", "high", "low", "close", "volume"):
        assert bars[name].equals(raw[name])
    assert not bars["filled"].any()
    ends = {symbol: listing[1] for symbol, listing in listings(bars).items()}
    assert {symbol for symbol, end in ends.items() if end < max(ends.values())} == {"BTCUSDT", "ETHUSDT", "LTCUSDT"}
    assert ends["BTCUSDT"] == us("2024-09-06T04:00")
    days = source.fetch_panel("1d", us("2024-01-01"), us("2024-10-01"))
    by_day = raw.filter(pl.col("open_time") < pl.datetime(2024, 9, 7, time_zone="UTC")).group_by_dynamic(
        "open_time", every="1d", group_by="symbol"
    )
    expected = by_day.agg(pl.first("open"), pl.max("high"), pl.min("low"), pl.last("close"), pl.sum("volume"))
    for name in ("symbol", "open", "high", "low", "close"):
        assert days[name].equals(expected.sort("symbol", "open_time")[name])
