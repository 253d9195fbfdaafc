"""The sample market has the properties of a real market, and is the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest
from fake_exchange import us
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import BAR_INTERVALS, DAY, MINUTE, duration_us
from agent_bt.core.errors import MissingData
from agent_bt.core.protocols import DataSource
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.data.klines import valid_prices
from agent_bt.data.sample import SampleSource, _exp, _minutes, _normal

START, END = us("2024-07-01"), us("2024-10-01")


@pytest.fixture(scope="module", params=[7, 12345])
def quarter(request: pytest.FixtureRequest) -> pl.DataFrame:
    return SampleSource("BTCUSDT", request.param, gaps="drop").fetch_ohlcv("1m", START, END)


def log_returns(bars: pl.DataFrame) -> np.ndarray:
    together = bars["open_time"].diff().dt.total_microseconds().to_numpy()[1:] == MINUTE
    return np.diff(np.log(bars["close"].to_numpy()))[together]


def test_bars_are_valid_and_rounded(quarter: pl.DataFrame) -> None:
    assert quarter.schema == BAR_SCHEMA
    assert quarter.select(valid_prices().all()).item()
    assert (quarter["volume"] > 0).all()
    for name in ("open", "high", "low", "close"):
        assert (quarter[name] == quarter[name].round(2)).all()
    for name in ("volume", "quote_asset_volume", "taker_base", "taker_quote"):
        assert (quarter[name] == quarter[name].round(5)).all()


def test_a_bar_opens_where_the_last_one_closed(quarter: pl.DataFrame) -> None:
    together = quarter["open_time"].diff().dt.total_microseconds().to_numpy()[1:] == MINUTE
    assert together.sum() == len(quarter) - 2
    assert (quarter["open"].to_numpy()[1:] == quarter["close"].to_numpy()[:-1])[together].all()


def test_returns_have_fat_tails(quarter: pl.DataFrame) -> None:
    returns = log_returns(quarter)
    deviations = returns - returns.mean()
    assert (deviations**4).mean() / (deviations**2).mean() ** 2 > 6


def test_volatility_clusters_and_returns_do_not(quarter: pl.DataFrame) -> None:
    returns = log_returns(quarter)
    size = np.abs(returns)
    for lag in (1, 10, 60):
        assert np.corrcoef(size[:-lag], size[lag:])[0, 1] > 0.1
        assert abs(np.corrcoef(returns[:-lag], returns[lag:])[0, 1]) < 0.03


def test_volatility_clusters_also_within_the_day(quarter: pl.DataFrame) -> None:
    size = quarter.select(
        day=pl.col("open_time").dt.date(),
        hour=pl.col("open_time").dt.hour(),
        size=(pl.col("close").log() - pl.col("open").log()).abs(),
    ).with_columns(pl.col("size") / pl.col("size").mean().over("day"))
    rest = size.select(pl.col("size") / pl.col("size").mean().over("hour"))["size"].to_numpy()
    near, far = (np.corrcoef(rest[:-lag], rest[lag:])[0, 1] for lag in (5, 720))
    assert near > 0.03
    assert near > 5 * abs(far)


def test_the_year_is_as_volatile_as_the_real_one() -> None:
    days = SampleSource("BTCUSDT", 7).fetch_ohlcv("1d", us("2021-01-01"), us("2023-01-01"))
    daily = np.diff(np.log(days["close"].to_numpy()))
    assert 0.4 < daily.std() * np.sqrt(365) < 0.9
    by_month = [np.std(chunk) for chunk in np.array_split(daily, 24)]
    assert max(by_month) / min(by_month) > 2


def test_volume_follows_the_day_and_the_moves(quarter: pl.DataFrame) -> None:
    by_hour = quarter.group_by(pl.col("open_time").dt.hour()).agg(pl.col("volume").mean()).sort("open_time")["volume"]
    assert by_hour.arg_max() in (13, 14, 15, 16)
    assert by_hour.arg_min() in (3, 4, 5, 6)
    assert by_hour.max() / by_hour.min() > 2
    moves = (quarter["close"] - quarter["open"]).abs().to_numpy()
    assert np.corrcoef(np.argsort(np.argsort(moves)), np.argsort(np.argsort(quarter["volume"].to_numpy())))[0, 1] > 0.3


def test_one_outage_in_the_quarter(quarter: pl.DataFrame) -> None:
    steps = quarter["open_time"].diff().drop_nulls().dt.total_minutes()
    gaps = steps.filter(steps > 1)
    assert len(gaps) == 1
    assert 20 <= gaps[0] - 1 <= 180
    assert quarter["open_time"].cast(pl.Int64)[0] == START
    assert quarter["open_time"].cast(pl.Int64)[-1] == END - MINUTE


def test_a_filled_quarter_has_every_minute() -> None:
    source: DataSource = SampleSource("BTCUSDT", 7)
    bars = source.fetch_ohlcv("1m", START, END)
    assert bars["open_time"].cast(pl.Int64).to_list() == list(range(START, END, MINUTE))
    assert 20 <= bars["filled"].sum() <= 180


@settings(max_examples=25)
@given(
    start=st.integers(0, 6 * 1440),
    length=st.integers(1, 1440),
    interval=st.sampled_from(BAR_INTERVALS),
    seed=st.integers(0, 2),
)
def test_a_bar_does_not_depend_on_the_requested_range(start: int, length: int, interval: str, seed: int) -> None:
    begin = us("2024-07-28")
    source = SampleSource("BTCUSDT", seed, gaps="drop")
    large = source.fetch_ohlcv(interval, begin, begin + 8 * DAY)
    first, last = begin + start * MINUTE, begin + (start + length) * MINUTE
    part = source.fetch_ohlcv(interval, first, last)
    times = pl.col("open_time").cast(pl.Int64)
    expected = large.filter((times >= first) & (times + duration_us(interval) <= last))
    assert part.equals(expected)


def test_seed_and_symbol_determine_the_market() -> None:
    def closes(symbol: str, seed: int) -> list[float]:
        return SampleSource(symbol, seed).fetch_ohlcv("1m", START, START + DAY)["close"].to_list()

    assert closes("BTCUSDT", 7) == closes("BTCUSDT", 7)
    assert closes("BTCUSDT", 7) != closes("BTCUSDT", 8)
    assert closes("BTCUSDT", 7) != closes("ETHUSDT", 7)


def test_a_day_is_the_same_when_generated_again() -> None:
    def digest() -> str:
        columns = _minutes(7, "BTCUSDT", START)
        return hashlib.sha256(b"".join(values.tobytes() for values in columns.values())).hexdigest()

    first = digest()
    _minutes.cache_clear()
    assert digest() == first


def test_the_label_says_that_it_is_a_sample() -> None:
    assert SampleSource("BTCUSDT", 7).label == "SAMPLE MARKET (seed 7)"


def test_a_range_outside_the_sample_market_is_an_error() -> None:
    with pytest.raises(MissingData, match="from 2010-01-01 to 2050-01-01"):
        SampleSource("BTCUSDT", 7).fetch_ohlcv("1m", us("2009-12-31"), us("2010-01-02"))
    assert len(SampleSource("BTCUSDT", 7).fetch_ohlcv("1h", us("2049-12-31"), us("2050-01-01"))) == 24


def test_the_exponential_equals_that_of_numpy() -> None:
    x = np.linspace(-7.9, 7.9, 4001)
    np.testing.assert_allclose(_exp(x), np.exp(x), rtol=1e-11)


def test_the_normals_have_the_moments_of_a_normal_distribution() -> None:
    normals = _normal(np.random.default_rng(1).integers(0, 2**64, 300_000, dtype=np.uint64))
    assert abs(normals.mean()) < 0.02
    assert abs(normals.std() - 1) < 0.02
    assert abs((np.abs(normals) < 1).mean() - 0.6827) < 0.01
