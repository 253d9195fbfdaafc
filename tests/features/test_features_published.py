"""Features against published numbers, TA-Lib's conventions against a plain recomputation, and their declarations."""

from __future__ import annotations

import numpy as np
import pytest

from agent_bt.config.model import FeaturesConfig
from agent_bt.core.errors import StrategyError
from agent_bt.core.types import FeatureSpec
from agent_bt.features.check import recompute
from agent_bt.features.compute import compute
from agent_bt.features.specs import KINDS, feature_specs, lookback, register

RSI_CLOSES = """44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328
45.6140 46.2820 46.2820 46.0028 46.0328 46.4116 46.2222 45.6439"""
RSI_PUBLISHED = [70.5328, 66.3186, 66.5498, 69.4063, 66.3552, 57.9749]  # StockCharts

CMF_BARS = """62.34 61.37 62.15 7849.025
62.05 60.69 60.81 11692.075
62.27 60.10 60.45 10575.307
60.79 58.61 59.18 13059.128
59.93 58.71 59.24 20733.508
61.75 59.86 60.20 29630.096
60.00 57.97 58.48 17705.294
59.00 58.02 58.24 7259.203
59.07 57.48 58.69 10474.629
59.22 58.30 58.65 5203.714
58.75 57.83 58.47 3422.865
58.65 57.86 58.02 3962.150
58.47 57.91 58.17 4095.905
58.25 57.83 58.07 3766.006
58.35 57.53 58.13 4239.335
59.86 58.58 58.94 8039.979
59.53 58.30 59.10 6956.717
62.10 58.53 61.92 18171.552
62.16 59.80 61.37 22225.894
62.67 60.93 61.68 14613.509
62.38 60.15 62.09 12319.763
63.73 62.26 62.89 15007.690
63.85 63.00 63.53 8879.667
66.15 63.58 64.01 22693.812
65.34 64.07 64.77 10191.814
66.48 65.20 65.22 10074.152
65.23 63.21 63.28 9411.620
63.40 61.88 62.40 10391.690
63.18 61.11 61.55 8926.512
62.70 61.25 62.69 7459.575"""

CMF_PUBLISHED = [-0.1211, -0.0997, -0.0659, -0.0257, -0.0617, -0.0481, -0.0086, -0.0087]  # StockCharts


def spec(kind: str, **params: int) -> FeatureSpec:
    return FeatureSpec(column=kind, kind=kind, params=tuple(params.items()))


def market(rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    """A random walk with spreads and volumes, in the middle an outage: flat, without volume."""
    rng = np.random.default_rng(seed)
    close = 100 + rng.normal(size=rows).cumsum() * 0.1
    high = close + rng.random(rows)
    low = close - rng.random(rows)
    volume = rng.random(rows) * 10
    gap = slice(rows // 2, rows // 2 + 60)
    close[gap] = high[gap] = low[gap] = close[rows // 2 : rows // 2 + 1]
    volume[gap] = 0.0
    return {"open": close, "high": high, "low": low, "close": close, "volume": volume}


def test_rsi_of_stockcharts() -> None:
    close = np.array([float(x) for x in RSI_CLOSES.split()])
    column = compute({"close": close}, [spec("rsi", period=14)])[:, 0]
    assert np.isnan(column[:14]).all()
    np.testing.assert_allclose(column[14:], RSI_PUBLISHED, atol=5e-5)


def test_cmf_of_stockcharts() -> None:
    high, low, close, volume = np.array([line.split() for line in CMF_BARS.splitlines()], dtype=float).T
    bars = {"high": high, "low": low, "close": close, "volume": volume}
    column = compute(bars, [spec("cmf", period=20)])[:, 0]
    assert np.isnan(column[:19]).all()
    np.testing.assert_allclose(column[19:27], CMF_PUBLISHED, atol=5e-5)


def test_cmf_counts_a_bar_without_range_as_nothing() -> None:
    bars = {"high": [2.0, 1.0], "low": [1.0, 1.0], "close": [2.0, 1.0], "volume": [3.0, 1.0]}
    assert compute(bars, [spec("cmf", period=2)])[1, 0] == 0.75


def test_cmf_is_exactly_zero_in_an_outage() -> None:
    bars = market(400)
    column = compute(bars, [spec("cmf", period=20)])[:, 0]
    assert (column[200 + 19 : 260] == 0.0).all()
    assert (column[261:] != 0.0).any()


def test_default_columns_and_their_order() -> None:
    names = [s.column for s in feature_specs(FeaturesConfig())]
    assert names == ["ema_fast", "ema_slow", "rsi", "cmf", "macd", "macd_signal", "macd_hist", "atr"]


def test_periods_come_from_the_configuration() -> None:
    config = FeaturesConfig(ema_fast=3, ema_slow=5, rsi=7, cmf=4, macd_fast=6, macd_slow=9, macd_signal=2, atr=8)
    periods = [tuple(value for _, value in s.params) for s in feature_specs(config)]
    assert periods == [(3,), (5,), (7,), (4,), (6, 9, 2), (6, 9, 2), (6, 9, 2), (8,)]


@pytest.mark.parametrize("config", [FeaturesConfig(), FeaturesConfig(macd_signal=1, atr=1, ema_fast=1, cmf=1, rsi=2)])
def test_every_column_equals_its_plain_recomputation(config: FeaturesConfig) -> None:
    bars = market(600)
    specs = feature_specs(config)
    table = compute(bars, specs)
    for at, one in enumerate(specs):
        np.testing.assert_allclose(table[:, at], recompute(bars, one), rtol=1e-9, atol=1e-9, err_msg=one.column)


@pytest.mark.parametrize("rows", [0, 1, 33, 34, 100])
def test_lookback_is_the_number_of_bars_of_the_first_value(rows: int) -> None:
    specs = feature_specs(FeaturesConfig())
    table = compute(market(rows), specs)
    assert table.shape == (rows, len(specs))
    for at, one in enumerate(specs):
        undefined = min(rows, lookback(one) - 1)
        assert np.isnan(table[:undefined, at]).all()
        assert not np.isnan(table[undefined:, at]).any()


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(StrategyError, match=r"no kind 'esi'; did you mean rsi\?.*Known: atr, boll"):
        lookback(spec("esi", period=3))


def test_wrong_periods_name_the_right_ones() -> None:
    with pytest.raises(StrategyError, match="takes fast, slow, signal, got period"):
        compute(market(10), [spec("macd", period=3)])


def test_a_registered_kind_is_computed_like_the_others() -> None:
    def momentum(close: np.ndarray, period: int) -> np.ndarray:
        result = np.full(len(close), np.nan)
        result[period:] = close[period:] - close[:-period]
        return result

    register("momentum", inputs=("close",), params=("period",), lookback=lambda period: period + 1)(momentum)
    try:
        table = compute({"close": [1.0, 2.0, 4.0]}, [spec("momentum", period=1)])
        np.testing.assert_array_equal(table[:, 0], [np.nan, 1.0, 2.0])
        with pytest.raises(StrategyError, match="already exists"):
            register("momentum", inputs=(), params=(), lookback=lambda: 1)(momentum)
        with pytest.raises(StrategyError, match="no independent recomputation"):
            recompute(market(3), spec("momentum", period=1))
    finally:
        del KINDS["momentum"]
