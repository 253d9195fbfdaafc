"""Register the technical indicators: the standard ones from TA-Lib, and Chaikin money flow as a compiled kernel."""

from __future__ import annotations

from typing import cast

import numpy as np
import talib

from agent_bt.core.jit import njit
from agent_bt.features.specs import register, two_or_more

_MACD = ("fast", "slow", "signal")


def _macd_lookback(fast: int, slow: int, signal: int) -> int:  # noqa: ARG001 - every kind's lookback takes its periods
    return slow + signal - 1


def _macd_requirement(fast: int, slow: int, signal: int) -> str | None:  # noqa: ARG001 - as above
    return None if 2 <= fast < slow else "fast must be at least 2 and below slow"


@register("ema", inputs=("close",), params=("period",), lookback=lambda period: period)
def ema(close: np.ndarray, period: int) -> np.ndarray:
    """Exponential moving average, weight 2 / (period + 1), started at the mean of the first `period` closes.

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 1.
    """
    return cast(np.ndarray, talib.EMA(close, period))


@register("rsi", inputs=("close",), params=("period",), lookback=lambda period: period + 1, demand=two_or_more)
def rsi(close: np.ndarray, period: int) -> np.ndarray:
    """Relative strength index in [0, 100], Wilder's smoothing (New Concepts in Technical Trading Systems, 1978).

    A market that has never moved has 0, TA-Lib's convention.

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 2.
    """
    return cast(np.ndarray, talib.RSI(close, period))


@register("macd", inputs=("close",), params=_MACD, lookback=_macd_lookback, demand=_macd_requirement)
def macd(close: np.ndarray, fast: int, slow: int, signal: int) -> np.ndarray:
    """Fast minus slow EMA (quote units), defined from where its signal line is.

    As in TA-Lib, both averages give their first value at the same bar: the fast one starts at the mean of the
    `fast` closes that end there. Source: Appel, Technical Analysis: Power Tools for Active Investors (2005).

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        fast: period of the fast EMA in bars, at least 2 and below `slow`.
        slow: period of the slow EMA in bars.
        signal: period of the signal line's EMA in bars.
    """
    return cast(np.ndarray, talib.MACD(close, fast, slow, signal)[0])


@register("macd_signal", inputs=("close",), params=_MACD, lookback=_macd_lookback, demand=_macd_requirement)
def macd_signal(close: np.ndarray, fast: int, slow: int, signal: int) -> np.ndarray:
    """EMA of the MACD (quote units).

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        fast: period of the fast EMA in bars, at least 2 and below `slow`.
        slow: period of the slow EMA in bars.
        signal: period of the signal line's EMA in bars.
    """
    return cast(np.ndarray, talib.MACD(close, fast, slow, signal)[1])


@register("macd_hist", inputs=("close",), params=_MACD, lookback=_macd_lookback, demand=_macd_requirement)
def macd_hist(close: np.ndarray, fast: int, slow: int, signal: int) -> np.ndarray:
    """MACD minus its signal line (quote units).

    Args:
        close: closing prices (quote units), float64 (T,), oldest first.
        fast: period of the fast EMA in bars, at least 2 and below `slow`.
        slow: period of the slow EMA in bars.
        signal: period of the signal line's EMA in bars.
    """
    return cast(np.ndarray, talib.MACD(close, fast, slow, signal)[2])


@register("atr", inputs=("high", "low", "close"), params=("period",), lookback=lambda period: period + 1)
def atr(high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int) -> np.ndarray:
    """Average true range (quote units), Wilder's smoothing (New Concepts in Technical Trading Systems, 1978).

    Args:
        high: highest prices (quote units), float64 (T,), oldest first.
        low: lowest prices (quote units), float64 (T,), oldest first.
        close: closing prices (quote units), float64 (T,), oldest first.
        period: length in bars, at least 1.
    """
    return cast(np.ndarray, talib.ATR(high, low, close, period))


@register("cmf", inputs=("high", "low", "close", "volume"), params=("period",), lookback=lambda period: period)
@njit
def cmf(high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray, period: int) -> np.ndarray:
    """Chaikin money flow in [-1, 1]: sum of ((close - low) - (high - close)) / (high - low) x volume, over volume.

    Bars with high = low count 0; a window without volume is 0. Each window is summed afresh, so that no rounding
    residue of a running sum survives an outage without volume.

    Args:
        high: highest prices (quote units), float64 (T,), oldest first.
        low: lowest prices (quote units), float64 (T,), oldest first.
        close: closing prices (quote units), float64 (T,), oldest first.
        volume: traded volume (base units), float64 (T,), oldest first.
        period: length in bars, at least 1.
    """
    count = len(close)
    flow = np.zeros(count)
    for t in range(count):
        spread = high[t] - low[t]
        if spread > 0.0:
            flow[t] = ((close[t] - low[t]) - (high[t] - close[t])) / spread * volume[t]
    result = np.full(count, np.nan)
    for t in range(period - 1, count):
        flows = 0.0
        volumes = 0.0
        for row in range(t - period + 1, t + 1):
            flows += flow[row]
            volumes += volume[row]
        result[t] = flows / volumes if volumes > 0.0 else 0.0
    return result
