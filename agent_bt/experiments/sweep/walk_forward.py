"""Cuts a range into walk-forward windows: a training period, and the test period after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_bt.core.clock import duration_us
from agent_bt.experiments.sweep.spec import WalkForwardConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A training period [start, cut) and a test period [cut, end).

    Attributes:
        start, cut, end: UTC us.
    """

    start: int
    cut: int
    end: int


def windows_of(declared: WalkForwardConfig, start: int, end: int) -> list[Window]:
    """Return the windows that fit between two instants; the last test period may be shorter, but at least a day.

    Args:
        declared: lengths of the periods.
        start: start of the range, UTC us.
        end: end of the range, UTC us, exclusive.
    """
    train, test, day = duration_us(declared.train), duration_us(declared.test), duration_us("1d")
    cuts = range(start + train, end - day + 1, test)
    return [
        Window(start=start if declared.anchored else cut - train, cut=cut, end=min(cut + test, end)) for cut in cuts
    ]


def rows_between(times: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """Return the first and last row of the bars inside [start, end); last < first if there is none.

    Args:
        times: close times, int64 (T,), UTC us; a bar that closes at `end` is inside.
        start: start of the range, UTC us; a bar that closes at `start` is outside.
        end: end of the range, UTC us.
    """
    first, beyond = np.searchsorted(times, (start, end), side="right")
    return int(first), int(beyond) - 1
