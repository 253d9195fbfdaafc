"""Compute the 7-day summary: bars up to a decision, aggregated to calendar days or to 24-hour blocks back from it."""

from __future__ import annotations

import numpy as np
import polars as pl

from agent_bt.core.clock import DAY
from agent_bt.core.jit import njit
from agent_bt.core.types import DaySummary

DAYS = 7
_COLUMNS = ("open", "high", "low", "close", "volume", "taker_base", "filled")


class SummaryTable:
    """Gives the summary at every bar of one market.

    Mode `calendar`: the last 7 UTC days that have ended by the bar's close_time. Mode `rolling`: 7 blocks of 24 h
    back from it. Oldest first; fewer where the market does not reach back so far, as a day that began before the
    first bar is not complete; a day without a single bar that is not filled is left out. Filled bars give no price.
    """

    def __init__(self, bars: pl.DataFrame, interval_us: int, mode: str) -> None:
        """Prepare the summaries of a market.

        Args:
            bars: T rows in `BAR_SCHEMA`, sorted by time.
            interval_us: bar interval in microseconds.
            mode: `calendar` or `rolling`.

        Raises:
            ValueError: the mode is unknown.
        """
        if mode not in ("calendar", "rolling"):
            raise ValueError(f"summary mode must be calendar or rolling, got {mode!r}")
        self._opens = np.ascontiguousarray(bars["open_time"].to_physical(), dtype=np.int64)
        self._closes = np.ascontiguousarray(bars["close_time"].to_physical(), dtype=np.int64)
        self._data = np.empty((len(bars), len(_COLUMNS)))
        for at, name in enumerate(_COLUMNS):
            self._data[:, at] = bars[name].cast(pl.Float64).to_numpy()
        self._slots = max(1, DAY // interval_us)
        self._rolling = mode == "rolling"
        self._first_day = 0
        self._days: list[DaySummary | None] = []
        if not self._rolling and len(bars):
            self._first_day = int(-(-self._opens[0] // DAY))
            ended = int(self._closes[-1] // DAY) - self._first_day
            self._days = self._blocks(self._first_day * DAY, max(0, ended))

    def at(self, bar: int) -> tuple[DaySummary, ...]:
        """Return the summary at the close of row `bar`, from rows up to and including it; 0 to 7 days, oldest first."""
        now = int(self._closes[bar])
        if self._rolling:
            count = min(DAYS, (now - int(self._opens[0])) // DAY)
            found = self._blocks(now - count * DAY, count)
        else:
            ended = now // DAY - self._first_day
            found = self._days[max(0, ended - DAYS) : max(0, ended)]
        return tuple(day for day in found if day is not None)

    def _blocks(self, start: int, count: int) -> list[DaySummary | None]:
        table = _aggregate(self._opens, self._data, start, count, self._slots)
        return [
            DaySummary(
                start=start + at * DAY,
                open=row[0],
                high=row[1],
                low=row[2],
                close=row[3],
                volume=row[4],
                taker_share=row[5],
                filled_share=row[6],
            )
            if row[0] == row[0]
            else None
            for at, row in enumerate(table.tolist())
        ]


@njit
def _aggregate(opens: np.ndarray, data: np.ndarray, start: int, count: int, slots: int) -> np.ndarray:
    """Return the fields of `DaySummary` for consecutive days from `start`, float64 (count, 7); NaN without real bars.

    Each day is summed from its own rows, so that it does not depend on where the data starts or ends. Missing
    bars of a day count as filled, and filled ones give no price: dropping gaps or filling them gives the same values.
    """
    result = np.full((count, 7), np.nan)
    row = int(np.searchsorted(opens, start))
    for day in range(count):
        end = start + (day + 1) * 86_400_000_000
        first, last = -1, -1
        high, low, volume, taker, real = -np.inf, np.inf, 0.0, 0.0, 0.0
        while row < len(opens) and opens[row] < end:
            if data[row, 6] == 0.0:
                first = row if first < 0 else first
                last = row
                high = max(high, data[row, 1])
                low = min(low, data[row, 2])
            volume += data[row, 4]
            taker += data[row, 5]
            real += 1.0 - data[row, 6]
            row += 1
        if first >= 0:
            result[day, 0] = data[first, 0]
            result[day, 1] = high
            result[day, 2] = low
            result[day, 3] = data[last, 3]
            result[day, 4] = volume
            result[day, 5] = taker / volume if volume > 0.0 else 0.0
            result[day, 6] = 1.0 - real / slots
    return result
