"""Aggregate ticks chunk by chunk and keep the unfinished bar from one chunk to the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from agent_bt.bars import kernels
from agent_bt.bars.kernels import BAR
from agent_bt.bars.ticks import Repair, Ticks, read_ticks
from agent_bt.core.clock import duration_us
from agent_bt.core.errors import UsageError
from agent_bt.core.schema import TIME

BarType = Literal["time_bar", "tick_bar", "volume_bar", "dollar_bar"]
BAR_TYPES: tuple[BarType, ...] = get_args(BarType)
_KINDS = dict(zip(BAR_TYPES, range(4), strict=True))

BASIC_SCHEMA = pl.Schema(
    {
        "start_time": TIME,
        "end_time": TIME,
        **dict.fromkeys(("open", "high", "low", "close", "volume", "buy_volume", "sell_volume"), pl.Float64()),
        "vwap": pl.Float64(),
        "dollar_volume": pl.Float64(),
        "tick_count": pl.Int64(),
    }
)
"""Columns of every bar.

- `start_time`, `end_time`: of a time bar the interval [start, end) on the grid of its length; of any other bar the
  times of its first and its last tick.
- `open`, `high`, `low`, `close`: prices of the first, highest, lowest and last tick, quote units.
- `volume`, `buy_volume`, `sell_volume`: base units; a tick is a buy where the taker bought.
- `vwap`: dollar volume / volume. `dollar_volume`: sum of price x quantity, quote units. `tick_count`: number of ticks.
"""

ADVANCED_SCHEMA = pl.Schema(
    {**BASIC_SCHEMA, "up_move_ratio": pl.Float64(), "medium_price": pl.Float64(), "reversals": pl.Int64()}
)
"""`BASIC_SCHEMA` and three more.

- `up_move_ratio`: of the steps from one tick to the next inside the bar, the fraction with a rising price; 0 for a bar
  of one tick.
- `medium_price`: the median of the tick prices, each tick counted once.
- `reversals`: number of changes of the price's direction inside the bar; steps without a price change are ignored.
"""

_BUFFER_BARS = 16_384


class StreamingAggregator:
    """Aggregate chunks of ticks to bars; any chunking gives bit-identical bars.

    Args:
        bar_type: `time_bar`, `tick_bar`, `volume_bar` or `dollar_bar`.
        threshold: a duration such as `"1h"` for time bars (a number is seconds); the number of ticks; the volume in
            base units; the dollar volume in quote units. A volume or dollar bar ends with the tick that reaches the
            threshold; ticks are not split.
        chunk_size: maximum number of ticks that are processed at once, default 1,000,000; larger chunks are split.
        include_advanced: whether `up_move_ratio`, `medium_price` and `reversals` are computed; default True.
        symbol: value of a first column `symbol`; default: no such column.
        repair: see `bars.ticks.read_ticks`; default: nothing is repaired.
        use_numba: False runs the same functions uncompiled, for debugging; default True.

    Attributes:
        ticks: number of ticks so far.
        repaired: kind of repair -> number of ticks so far.

    Raises:
        UsageError: the bar type, the threshold or the chunk size is not valid.
    """

    def __init__(
        self,
        bar_type: BarType,
        threshold: float | str,
        *,
        chunk_size: int = 1_000_000,
        include_advanced: bool = True,
        symbol: str | None = None,
        repair: Sequence[Repair] = (),
        use_numba: bool = True,
    ) -> None:
        self._kind, self._threshold, self._step = resolve(bar_type, threshold)
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise UsageError(f"chunk_size must be an integer of at least 1, got {chunk_size!r}")
        self._chunk_size = chunk_size
        self._advanced = include_advanced
        self._symbol = symbol
        self._repair = tuple(repair)
        self._aggregate: Any = kernels.aggregate if use_numba else _python(kernels.aggregate)
        self._medians: Any = kernels.medians if use_numba else _python(kernels.medians)
        self._state = np.zeros(1, BAR)
        self._buffer = np.zeros(_BUFFER_BARS, BAR)
        self._begun = False
        self._last: int | None = None
        self._prices: list[np.ndarray] = []
        self.ticks = 0
        self.repaired: dict[str, int] = {}

    def process(self, chunk: Any) -> pl.DataFrame:
        """Add the next ticks and return the bars that they finish.

        Args:
            chunk: a table of ticks that come after those of the chunk before; columns as in `bars.ticks.read_ticks`.

        Returns:
            Finished bars in order, columns of `ADVANCED_SCHEMA` (or `BASIC_SCHEMA`); possibly none.

        Raises:
            UsageError: the chunk is not a table.
            DataError: a tick is invalid or out of order.
        """
        ticks = read_ticks(chunk, self._repair, after=self._last)
        for kind, count in ticks.repaired.items():
            self.repaired[kind] = self.repaired.get(kind, 0) + count
        frames = [
            self._add(ticks, at, min(at + self._chunk_size, len(ticks)))
            for at in range(0, len(ticks), self._chunk_size)
        ]
        if len(ticks):
            self._last = int(ticks.times[-1])
            self.ticks += len(ticks)
        return pl.concat(frames) if frames else self._frame(self._buffer[:0], np.empty(0))

    def finish(self) -> pl.DataFrame:
        """Return the last, unfinished bar (no row if there is none), and reset the aggregator.

        The bar has not reached its threshold, or its interval may continue after the last tick.
        """
        if not self._begun:
            return self._frame(self._buffer[:0], np.empty(0))
        median = self._medians_of(np.concatenate(self._prices), self._state["ticks"]) if self._advanced else np.empty(1)
        self._begun, self._prices = False, []
        return self._frame(self._state.copy(), median)

    def _add(self, ticks: Ticks, start: int, stop: int) -> pl.DataFrame:
        times, prices = ticks.times[start:stop], ticks.prices[start:stop]
        quantities, makers = ticks.quantities[start:stop], ticks.makers[start:stop]
        finished, used = [], 0
        while used < len(times):
            step, written, self._begun = self._aggregate(
                times[used:], prices[used:], quantities[used:], makers[used:],
                self._kind, self._threshold, self._step, self._state, self._begun, self._advanced, self._buffer,
            )  # fmt: skip
            used += step
            finished.append(self._buffer[:written].copy())
        bars = np.concatenate(finished) if finished else self._buffer[:0]
        median = np.empty(len(bars))
        if self._advanced:
            if len(bars):
                # Only the first bar has ticks of earlier chunks.
                before = int(self._prices_before())
                own = int(bars["ticks"].sum()) - before
                first = np.concatenate([*self._prices, prices[: int(bars["ticks"][0]) - before]])
                median[:1] = self._medians_of(first, bars["ticks"][:1])
                rest = prices[int(bars["ticks"][0]) - before : own]
                median[1:] = self._medians_of(rest, bars["ticks"][1:])
                self._prices = [prices[own:].copy()] if own < len(prices) else []
            else:
                self._prices.append(prices.copy())
        return self._frame(bars, median)

    def _prices_before(self) -> int:
        return sum(len(part) for part in self._prices)

    def _medians_of(self, prices: np.ndarray, counts: np.ndarray) -> np.ndarray:
        result = np.empty(len(counts))
        self._medians(np.ascontiguousarray(prices), np.ascontiguousarray(counts), result)
        return result

    def _frame(self, bars: np.ndarray, median: np.ndarray) -> pl.DataFrame:
        def column(name: str) -> np.ndarray:
            return np.ascontiguousarray(bars[name])

        # Rounding can make the sum of buy volumes larger than the volume.
        sell = np.maximum(column("volume") - column("buy_volume"), 0.0)
        columns: dict[str, Any] = {
            "start_time": pl.Series(column("start")).cast(TIME),
            "end_time": pl.Series(column("end")).cast(TIME),
            **{name: column(name) for name in ("open", "high", "low", "close", "volume", "buy_volume")},
            "sell_volume": sell,
            "vwap": column("dollar_volume") / column("volume"),
            "dollar_volume": column("dollar_volume"),
            "tick_count": column("ticks"),
        }
        if self._advanced:
            steps = np.maximum(column("ticks") - 1, 1)
            columns |= {
                "up_move_ratio": column("ups") / steps,
                "medium_price": median,
                "reversals": column("reversals"),
            }
        frame = pl.DataFrame(columns, schema=ADVANCED_SCHEMA if self._advanced else BASIC_SCHEMA)
        return frame if self._symbol is None else frame.select(pl.lit(self._symbol).alias("symbol"), pl.all())


def create_streaming_aggregator(
    bar_type: BarType, threshold: float | str, chunk_size: int = 1_000_000, **options: Any
) -> StreamingAggregator:
    """Create an aggregator for data larger than memory.

    Args:
        bar_type: `time_bar`, `tick_bar`, `volume_bar` or `dollar_bar`.
        threshold: a duration, a number of ticks, a volume or a dollar volume; see `StreamingAggregator`.
        chunk_size: maximum number of ticks that are processed at once; default 1,000,000.
        options: other parameters of `StreamingAggregator`: `include_advanced`, `symbol`, `repair`, `use_numba`.

    Raises:
        UsageError: a parameter is not valid.
    """
    return StreamingAggregator(bar_type, threshold, chunk_size=chunk_size, **options)


def resolve(bar_type: str, threshold: float | str) -> tuple[int, float, int]:
    """Return the kernel parameters of a bar type and its threshold.

    Args:
        bar_type: `time_bar`, `tick_bar`, `volume_bar` or `dollar_bar`.
        threshold: a duration (a number is seconds), a number of ticks, a volume in base units or a dollar volume in
            quote units.

    Returns:
        `kind`, `threshold` and `step` as `bars.kernels.aggregate` takes them; an unused one is 0.

    Raises:
        UsageError: the type or the threshold is not valid.
    """
    if bar_type not in _KINDS:
        raise UsageError(f"bar_type must be one of {', '.join(BAR_TYPES)}, got {bar_type!r}")
    kind = _KINDS[bar_type]
    if kind == kernels.TIME_BAR:
        return kind, 0.0, _interval(threshold)
    if isinstance(threshold, str):
        if re.fullmatch(r"\s*[+-]?[\d_]*\.?\d+([eE][+-]?\d+)?\s*", threshold) is None:
            raise UsageError(f"threshold of a {bar_type} must be a number, got {threshold!r}")
        threshold = float(threshold)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < float("inf"):
        raise UsageError(f"threshold of a {bar_type} must be a finite number above 0, got {threshold!r}")
    if kind == kernels.TICK_BAR:
        if threshold != int(threshold):
            raise UsageError(f"threshold of a tick_bar must be an integer, got {threshold!r}")
        return kind, 0.0, int(threshold)
    return kind, float(threshold), 0


def _interval(threshold: float | str) -> int:
    if isinstance(threshold, str) and not threshold.strip().isdigit():
        try:
            length = duration_us(threshold)
        except ValueError as error:
            raise UsageError(f"threshold of a time_bar: {error}") from None
    else:
        try:
            length = round(float(threshold) * 1_000_000)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"threshold of a time_bar must be a duration such as '1h', got {threshold!r}") from None
    if length < 1:
        raise UsageError(f"threshold of a time_bar must be at least 1 microsecond, got {threshold!r}")
    return length


def _python(kernel: Any) -> Any:
    return getattr(kernel, "py_func", kernel)
