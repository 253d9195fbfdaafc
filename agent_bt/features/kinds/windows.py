"""Register returns, and the mean, standard deviation and extremes of the last n bars."""

from __future__ import annotations

from typing import cast

import numpy as np
import talib

from agent_bt.core.jit import njit
from agent_bt.features.specs import register, two_or_more

_BAND = ("period", "deviations")


@njit
def _window_means(values: np.ndarray, period: int) -> np.ndarray:
    """Return the mean of the last `period` values, float64 (T,); the half of `_window_moments` that needs no
    squares, in less than half of its time."""
    count = len(values)
    mean = np.full(count, np.nan)
    tail, coming = np.zeros(min(period, count)), np.zeros(min(period, count))
    for start in range(0, count, period):
        anchor, after = values[start], start + period
        total = 0.0
        if start > 0 and after < count:
            # This block, and the end of it that the next one needs: two sums at once take the time of one.
            following, ahead = values[after], 0.0
            for step in range(period):
                total += values[start + step] - anchor
                mean[start + step] = anchor + (total + tail[period - 1 - step]) / period
                if step > 0:
                    ahead += values[after - step] - following
                    coming[step] = ahead
        else:
            for row in range(start, min(after, count)):
                total += values[row] - anchor
                if row >= period - 1:
                    mean[row] = anchor + (total + tail[after - 1 - row]) / period
            if after < count:
                ahead = 0.0
                for step in range(1, period):
                    ahead += values[after - step] - values[after]
                    coming[step] = ahead
        tail, coming = coming, tail
    return mean


@njit
def _window_moments(values: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the last `period` values and the sum of squared deviations from it; float64 (T,) each.

    Constant time a row, and yet nothing outside a window touches its value (a running sum, TA-Lib's way, carries the
    rounding of a price of 1e9 on into prices of 1e-5 for good): rows are cut into blocks of `period`, so
    a window is the end of one block and the beginning of the next, and both are summed by themselves (van Herk's
    scheme for running extremes, 1992). Sums are of differences from the first row of the later block, which lies in
    every such window: a flat window has its price as the mean and exactly no spread, and the textbook difference
    sum(d^2) - sum(d)^2 / n loses at most a factor n of precision, as no row is further than sqrt(n) deviations
    from the mean of its own window.
    """
    count = len(values)
    mean = np.full(count, np.nan)
    squares = np.full(count, np.nan)
    tail = np.zeros(min(period, count))
    tail_squares = np.zeros(min(period, count))
    for start in range(0, count, period):
        anchor = values[start]
        total = 0.0
        square = 0.0
        if start > 0:
            for back in range(1, period):
                distance = values[start - back] - anchor
                total += distance
                square += distance * distance
                tail[back] = total
                tail_squares[back] = square
        total = 0.0
        square = 0.0
        for row in range(start, min(start + period, count)):
            distance = values[row] - anchor
            total += distance
            square += distance * distance
            if row >= period - 1:
                back = start + period - 1 - row
                shift = (total + tail[back]) / period
                spread = square + tail_squares[back] - shift * shift * period
                mean[row] = anchor + shift
                # Rounding may leave a hair below zero; a NaN has to stay one.
                squares[row] = 0.0 if spread < 0.0 else spread
    return mean, squares


@register("return", inputs=("close",), params=("period",), lookback=lambda period: period + 1)
def simple_return(close: np.ndarray, period: int) -> np.ndarray:
    """Simple return over `period` bars: close / close `period` bars ago - 1.

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 1.
    """
    result = np.full(len(close), np.nan)
    result[period:] = close[period:] / close[:-period] - 1.0
    return result


@register("sma", inputs=("close",), params=("period",), lookback=lambda period: period)
def sma(close: np.ndarray, period: int) -> np.ndarray:
    """Simple moving average of the last `period` closes (quote units).

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 1.
    """
    return cast(np.ndarray, _window_means(close, period))


@register("quote_volume", inputs=("quote_asset_volume",), params=("period",), lookback=lambda period: period)
def quote_volume(quote_asset_volume: np.ndarray, period: int) -> np.ndarray:
    """Mean quote volume a bar over the last `period` bars (quote units).

    Args:
        quote_asset_volume: traded volume (quote units), float64 (T,), oldest first.
        period: length in bars, at least 1.
    """
    return cast(np.ndarray, _window_means(quote_asset_volume, period))


@register("volatility", inputs=("close",), params=("period",), lookback=lambda period: period + 1, demand=two_or_more)
def volatility(close: np.ndarray, period: int) -> np.ndarray:
    """Sample standard deviation (ddof 1) of the last `period` one-bar simple returns; per bar, not annualised.

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 2.
    """
    result = np.full(len(close), np.nan)
    _, squares = _window_moments(simple_return(close, 1)[1:], period)
    result[1:] = np.sqrt(squares / (period - 1))
    return result


@register("zscore", inputs=("close",), params=("period",), lookback=lambda period: period, demand=two_or_more)
def zscore(close: np.ndarray, period: int) -> np.ndarray:
    """Distance of the close from the mean of the last `period` closes, in their population deviations (ddof 0).

    The deviation is that of the Bollinger bands: a close on the upper band of 2 has a z-score of 2. A flat window
    has 0.

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 2.
    """
    mean, squares = _window_moments(close, period)
    deviation = np.sqrt(squares / period)
    result = np.where(np.isnan(mean), np.nan, 0.0)
    np.divide(close - mean, deviation, out=result, where=deviation > 0.0)
    return result


def _band_lookback(period: int, deviations: int) -> int:  # noqa: ARG001 - every kind's lookback takes its numbers
    return period


@register("bollinger_upper", inputs=("close",), params=_BAND, lookback=_band_lookback)
def bollinger_upper(close: np.ndarray, period: int, deviations: int) -> np.ndarray:
    """Mean of the last `period` closes plus `deviations` population standard deviations (quote units; Bollinger).

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 1.
        deviations: distance from the mean in standard deviations, an integer of at least 1.
    """
    mean, squares = _window_moments(close, period)
    return cast(np.ndarray, mean + deviations * np.sqrt(squares / period))


@register("bollinger_lower", inputs=("close",), params=_BAND, lookback=_band_lookback)
def bollinger_lower(close: np.ndarray, period: int, deviations: int) -> np.ndarray:
    """Mean of the last `period` closes minus `deviations` population standard deviations (quote units; Bollinger).

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 1.
        deviations: distance from the mean in standard deviations, an integer of at least 1.
    """
    mean, squares = _window_moments(close, period)
    return cast(np.ndarray, mean - deviations * np.sqrt(squares / period))


@register("highest", inputs=("high",), params=("period",), lookback=lambda period: period, demand=two_or_more)
def highest(high: np.ndarray, period: int) -> np.ndarray:
    """Highest high of the last `period` bars, the present one included (quote units).

    Args:
        high: highest prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 2.
    """
    return cast(np.ndarray, talib.MAX(high, period))


@register("lowest", inputs=("low",), params=("period",), lookback=lambda period: period, demand=two_or_more)
def lowest(low: np.ndarray, period: int) -> np.ndarray:
    """Lowest low of the last `period` bars, the present one included (quote units).

    Args:
        low: lowest prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 2.
    """
    return cast(np.ndarray, talib.MIN(low, period))
