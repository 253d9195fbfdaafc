"""Recompute features in plain Python from their definitions, as an independent check for `features sample`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum, isclose, isnan, nan, sqrt
from statistics import fmean

import polars as pl

from agent_bt.core.errors import StrategyError
from agent_bt.core.types import FeatureSpec
from agent_bt.features.compute import compute
from agent_bt.features.specs import Columns, resolve

Series = Sequence[float]


def recompute(bars: Columns, spec: FeatureSpec) -> list[float]:
    """Compute the column of `spec` in plain Python from its definition, independently of `compute`.

    Args:
        bars: T bars by column name, oldest first.
        spec: the feature.

    Returns:
        T values, NaN where undefined.

    Raises:
        StrategyError: the kind has no independent recomputation.
    """
    if spec.kind not in _SLOW:
        raise StrategyError(f"no independent recomputation of kind {spec.kind!r}; choose one of {', '.join(_SLOW)}")
    kind, periods = resolve(spec)
    inputs = ([float(x) for x in bars[name]] for name in kind.inputs)
    return _SLOW[kind.name](*inputs, *periods)


def _smooth(values: Series, start: int, period: int, weight: float) -> list[float]:
    """Return the mean of `period` values from `start`, then s + weight x (value - s)."""
    result = [nan] * len(values)
    first = start + period - 1
    if first < len(values):
        result[first] = sum(values[start : first + 1]) / period
        for t in range(first + 1, len(values)):
            result[t] = result[t - 1] + weight * (values[t] - result[t - 1])
    return result


def _ema(values: Series, period: int, start: int = 0) -> list[float]:
    return _smooth(values, start, period, 2 / (period + 1))


def _rsi(close: Series, period: int) -> list[float]:
    moves = [0.0] + [b - a for a, b in pairwise(close)]
    gains = _smooth([max(move, 0.0) for move in moves], 1, period, 1 / period)
    losses = _smooth([max(-move, 0.0) for move in moves], 1, period, 1 / period)
    return [100 * gain / (gain + loss) if gain + loss else 0.0 for gain, loss in zip(gains, losses, strict=True)]


def _atr(high: Series, low: Series, close: Series, period: int) -> list[float]:
    ranges = [nan] + [
        max(high[t], close[t - 1]) - min(low[t], close[t - 1])  # the three cases of Wilder's true range at once
        for t in range(1, len(close))
    ]
    return _smooth(ranges, 1, period, 1 / period)


def _cmf(high: Series, low: Series, close: Series, volume: Series, period: int) -> list[float]:
    flow = [
        0.0 if h == lo else ((c - lo) - (h - c)) / (h - lo) * v
        for h, lo, c, v in zip(high, low, close, volume, strict=True)
    ]
    result = [nan] * len(close)
    for t in range(period - 1, len(close)):
        traded = sum(volume[t - period + 1 : t + 1])
        result[t] = sum(flow[t - period + 1 : t + 1]) / traded if traded else 0.0
    return result


def _macd(close: Series, fast: int, slow: int, signal: int) -> tuple[list[float], list[float], list[float]]:
    quick = _ema(close, fast, start=slow - fast)
    steady = _ema(close, slow)
    line = [a - b for a, b in zip(quick, steady, strict=True)]
    average = _ema(line, signal, start=slow - 1)
    line = [nan if mean != mean else value for value, mean in zip(line, average, strict=True)]
    return line, average, [a - b for a, b in zip(line, average, strict=True)]


def _return(close: Series, period: int) -> list[float]:
    past = [nan] * period + list(close)
    return [now / before - 1 for now, before in zip(close, past, strict=False)]


def _windows(values: Series, period: int) -> list[Series]:
    """Return the last `period` values at every bar; those before the first bar are NaN."""
    padded = [nan] * (period - 1) + list(values)
    return [padded[t : t + period] for t in range(len(values))]


def _spread(window: Series, ddof: int) -> float:
    mean = fmean(window)
    return sqrt(fsum((value - mean) ** 2 for value in window) / (len(window) - ddof))


def _mean(values: Series, period: int) -> list[float]:
    return [fmean(window) for window in _windows(values, period)]


def _volatility(close: Series, period: int) -> list[float]:
    return [_spread(window, ddof=1) for window in _windows(_return(close, 1), period)]


def _zscore(close: Series, period: int) -> list[float]:
    windows = _windows(close, period)
    return [0.0 if min(w) == max(w) else (w[-1] - fmean(w)) / _spread(w, ddof=0) for w in windows]


def _band(close: Series, period: int, deviations: int) -> list[float]:
    return [fmean(window) + deviations * _spread(window, ddof=0) for window in _windows(close, period)]


def _extreme(values: Series, period: int, choose: Callable[[Series], float]) -> list[float]:
    return [nan if isnan(window[0]) else choose(window) for window in _windows(values, period)]


_SLOW: dict[str, Callable[..., list[float]]] = {
    "ema": _ema,
    "rsi": _rsi,
    "atr": _atr,
    "cmf": _cmf,
    "macd": lambda *given: _macd(*given)[0],
    "macd_signal": lambda *given: _macd(*given)[1],
    "macd_hist": lambda *given: _macd(*given)[2],
    "return": _return,
    "sma": _mean,
    "quote_volume": _mean,
    "volatility": _volatility,
    "zscore": _zscore,
    "bollinger_upper": _band,
    "bollinger_lower": lambda close, period, deviations: _band(close, period, -deviations),
    "highest": lambda high, period: _extreme(high, period, max),
    "lowest": lambda low, period: _extreme(low, period, min),
}
"""Kind -> its definition, with the arguments of `Kind.compute`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of a feature beside its independent recomputation.

    Attributes:
        close_time: close time of the bar, UTC microseconds.
        column: name of the feature column.
        value: what `compute` gives, NaN where undefined.
        recomputed: what `recompute` gives, NaN where undefined.
    """

    close_time: int
    column: str
    value: float
    recomputed: float

    @property
    def agrees(self) -> bool:
        """Return whether both are equal to 1e-9, relative or absolute, or both undefined."""
        if isnan(self.value) or isnan(self.recomputed):
            return isnan(self.value) and isnan(self.recomputed)
        return isclose(self.value, self.recomputed, rel_tol=1e-9, abs_tol=1e-9)


def sample(bars: pl.DataFrame, specs: Sequence[FeatureSpec], last: int, rows: int) -> list[Sample]:
    """Return the values of the `rows` rows up to row `last`, oldest first, beside their recomputation.

    The values are computed over all bars; the recomputation sees the bars up to `last` only.

    Args:
        bars: bars in `BAR_SCHEMA`, oldest first.
        specs: the features.
        last: index of the last row returned.
        rows: number of rows; fewer are returned near the first bar.

    Raises:
        StrategyError: one of the kinds has no independent recomputation.
    """
    table = compute(bars, specs)
    names = {name for spec in specs for name in resolve(spec)[0].inputs}
    past = {name: bars[name].head(last + 1).to_list() for name in names}
    times = bars["close_time"].to_physical().to_list()
    slow = [recompute(past, spec) for spec in specs]
    return [
        Sample(close_time=times[row], column=spec.column, value=float(table[row, at]), recomputed=slow[at][row])
        for row in range(max(0, last + 1 - rows), last + 1)
        for at, spec in enumerate(specs)
    ]
