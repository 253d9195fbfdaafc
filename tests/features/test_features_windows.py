"""Returns, means, spreads and extremes against published numbers, other libraries and exact sums."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agent_bt.core.errors import StrategyError
from agent_bt.features.check import recompute
from agent_bt.features.compute import compute
from agent_bt.features.names import spec_of
from agent_bt.features.specs import lookback

BOLLINGER_CLOSES = """86.16 89.09 88.78 90.32 89.07 91.15 89.44 89.18 86.93 87.68 86.96 89.43 89.32 88.72 87.45 87.26
89.50 87.90 89.13 90.70 92.90 92.98 91.80 92.66 92.68 92.30 92.77 92.54 92.95 93.20 91.07 89.83 89.74 90.40 90.74
88.02 88.09 88.84 90.78 90.54 91.39 90.65"""
BOLLINGER_PUBLISHED = """88.71 91.29 86.12
89.05 91.95 86.14
89.24 92.61 85.87
89.39 92.93 85.85
89.51 93.31 85.70
89.69 93.73 85.65
89.75 93.90 85.59
89.91 94.27 85.56
90.08 94.57 85.60
90.38 94.79 85.98
90.66 95.04 86.27
90.86 94.91 86.82
90.88 94.90 86.87
90.91 94.90 86.91
90.99 94.86 87.12
91.15 94.67 87.63
91.19 94.56 87.83
91.12 94.68 87.56
91.17 94.58 87.76
91.25 94.53 87.97
91.24 94.53 87.95
91.17 94.37 87.96
91.05 94.15 87.95"""  # StockCharts: mid, upper, lower

NAMES = [
    *("return_1", "return_7", "sma_1", "sma_7", "quote_volume_7", "volatility_2", "volatility_7", "zscore_2"),
    *("zscore_7", "bollinger_upper_7_2", "bollinger_lower_7_3", "bollinger_upper_1_2", "highest_7", "lowest_7"),
]


def column(name: str, bars: dict[str, np.ndarray]) -> np.ndarray:
    spec = spec_of(name)
    assert spec is not None
    return compute(bars, [spec])[:, 0]


def bars_of(close: np.ndarray, volume: np.ndarray | None = None) -> dict[str, np.ndarray]:
    volume = np.ones(len(close)) if volume is None else volume
    return {"high": close * 1.01, "low": close * 0.98, "close": close, "volume": volume, "quote_asset_volume": volume}


def run_decisions(rows: int, seed: int = 1, scale: float = 100.0) -> np.ndarray:
    return scale * np.exp(np.random.default_rng(seed).normal(size=rows).cumsum() * 0.01)


def windows(values: np.ndarray, period: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, period)


def test_bollinger_bands_of_stockcharts() -> None:
    bars = bars_of(np.array([float(x) for x in BOLLINGER_CLOSES.split()]))
    names = ("bollinger_mid_20", "bollinger_upper_20_2", "bollinger_lower_20_2")
    found = np.column_stack([column(name, bars) for name in names])
    published = np.array([line.split() for line in BOLLINGER_PUBLISHED.splitlines()], dtype=float)
    assert np.isnan(found[:19]).all()
    # The closes are published in cents too, which moves a band by a few tenths of one.
    np.testing.assert_allclose(found[19:], published, atol=0.0151)


@pytest.mark.parametrize("period", [2, 3, 20, 200])
def test_kinds_that_talib_has_are_equal_to_it(period: int) -> None:
    close = run_decisions(1_000)
    bars = bars_of(close)
    upper, mid, lower = talib.BBANDS(close, period, 2, 2)
    expected = {
        f"sma_{period}": talib.SMA(close, period),
        f"bollinger_mid_{period}": mid,
        f"bollinger_upper_{period}_2": upper,
        f"bollinger_lower_{period}_2": lower,
        f"return_{period}": talib.ROCP(close, period),
        f"highest_{period}": pl.Series(bars["high"]).rolling_max(period).to_numpy(),
        f"lowest_{period}": pl.Series(bars["low"]).rolling_min(period).to_numpy(),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(column(name, bars), values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("period", [2, 3, 20, 200])
def test_spreads_equal_numpy_and_scipy_window_by_window(period: int) -> None:
    close = run_decisions(700)
    bars = bars_of(close)
    volatility = windows(close[1:] / close[:-1] - 1, period).std(axis=1, ddof=1)
    np.testing.assert_allclose(column(f"volatility_{period}", bars)[period:], volatility, rtol=1e-10)
    scores = [stats.zscore(window)[-1] for window in windows(close, period)]
    np.testing.assert_allclose(column(f"zscore_{period}", bars)[period - 1 :], scores, rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(1e-6, 1e6), max_size=40), st.integers(1, 12))
@settings(max_examples=50)
def test_means_and_bands_of_any_prices_are_as_precise_as_their_window_allows(prices: list[float], period: int) -> None:
    close = np.array(prices)
    bars = bars_of(close, volume=close[::-1].copy())
    if len(close) < period:
        assert np.isnan(column(f"sma_{period}", bars)).all()
        return
    for name, values in (("sma", close), ("quote_volume", close[::-1])):
        means = windows(values, period).mean(axis=1)
        np.testing.assert_allclose(column(f"{name}_{period}", bars)[period - 1 :], means, rtol=1e-13)
    band = column(f"bollinger_upper_{period}_1", bars)[period - 1 :]
    expected = windows(close, period).mean(axis=1) + windows(close, period).std(axis=1)
    np.testing.assert_allclose(band, expected, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_column_equals_its_plain_recomputation_and_starts_at_its_lookback(name: str) -> None:
    spec = spec_of(name)
    assert spec is not None
    close = run_decisions(200, seed=4)
    close[80:110] = close[80]
    volume = np.where((np.arange(200) >= 80) & (np.arange(200) < 110), 0.0, run_decisions(200, seed=5, scale=1e6))
    for rows in (0, 1, lookback(spec) - 1, lookback(spec), 200):
        bars = {key: values[:rows] for key, values in bars_of(close, volume).items()}
        found = column(name, bars)
        np.testing.assert_allclose(found, recompute(bars, spec), rtol=1e-9, atol=1e-9)
        assert np.isnan(found[: lookback(spec) - 1]).all()
        assert not np.isnan(found[lookback(spec) - 1 :]).any()


@pytest.mark.parametrize("offset", range(7))
def test_a_price_jump_does_not_affect_windows_after_it(offset: int) -> None:
    calm = run_decisions(60, seed=2, scale=1e-5)
    jump = np.concatenate([np.full(20 + offset, 1e9), calm])
    for name in ("sma_7", "volatility_7", "zscore_7", "bollinger_upper_7_2", "bollinger_lower_7_2"):
        np.testing.assert_allclose(
            column(name, bars_of(jump))[20 + offset + 7 :], column(name, bars_of(calm))[7:], rtol=1e-11, atol=1e-18
        )


def test_a_flat_market_is_exactly_flat() -> None:
    close = np.concatenate([run_decisions(53, scale=0.1), np.full(60, 0.1), run_decisions(50, scale=3.0)])
    bars = bars_of(close, volume=np.where(close == 0.1, 0.0, run_decisions(163, scale=1e9)))
    flat = slice(53 + 20, 53 + 60)
    for name in ("sma_20", "bollinger_upper_20_2", "bollinger_lower_20_2"):
        assert (column(name, bars)[flat] == 0.1).all()
    for name in ("volatility_20", "zscore_20", "return_20", "quote_volume_20"):
        assert (column(name, bars)[flat] == 0.0).all()


def test_a_zscore_is_the_number_of_bollinger_deviations() -> None:
    bars = bars_of(run_decisions(100))
    band, mid, score = (column(name, bars) for name in ("bollinger_upper_20_1", "bollinger_mid_20", "zscore_20"))
    np.testing.assert_allclose((mid + score * (band - mid))[19:], bars["close"][19:], rtol=1e-12)


def test_an_undefined_price_is_undefined_for_its_windows_only() -> None:
    close = run_decisions(60)
    close[23] = np.nan
    for name in ("sma_7", "zscore_7", "bollinger_upper_7_2"):
        found = column(name, bars_of(close))
        assert np.flatnonzero(np.isnan(found)).tolist() == [*range(6), *range(23, 30)]


def test_a_period_longer_than_the_market_is_undefined_everywhere() -> None:
    for name in ("return_99", "sma_99", "volatility_99", "zscore_99", "bollinger_lower_99_2", "highest_99"):
        assert np.isnan(column(name, bars_of(run_decisions(50)))).all()


@pytest.mark.parametrize("name", ["volatility_1", "zscore_1", "highest_1", "lowest_1", "rsi_1"])
def test_a_period_of_one_bar_is_an_error(name: str) -> None:
    with pytest.raises(StrategyError, match=f"'{name}': the period must be at least 2"):
        spec_of(name)
