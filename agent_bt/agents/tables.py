"""Write bars and days as compact text: prices in basis points of the last close, fixed decimals, one line per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from math import fsum

import numpy as np

from agent_bt.core.errors import PromptError
from agent_bt.core.suggest import did_you_mean


class Unit(Enum):
    """The unit that a column's numbers are converted to."""

    PRICE = "bps from the last close"
    DIFFERENCE = "a difference of prices, in bps of the last close"
    AMOUNT = "per cent of the column's mean"
    SHARE = "per cent"
    PLAIN = "as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The format of a column.

    Attributes:
        unit: what its numbers are converted to.
        decimals: digits after the point.
    """

    unit: Unit
    decimals: int


_PRICE, _PLAIN = Style(unit=Unit.PRICE, decimals=1), Style(unit=Unit.PLAIN, decimals=4)
_DIFFERENCE, _AMOUNT = Style(unit=Unit.DIFFERENCE, decimals=2), Style(unit=Unit.AMOUNT, decimals=0)

BAR_STYLES: Mapping[str, Style] = {
    **dict.fromkeys(("open", "high", "low", "close", "ema_fast", "ema_slow"), _PRICE),
    **dict.fromkeys(("macd", "macd_signal", "macd_hist", "atr"), _DIFFERENCE),
    **dict.fromkeys(("volume", "quote_asset_volume", "trades", "taker_base", "taker_quote"), _AMOUNT),
    "rsi": Style(unit=Unit.PLAIN, decimals=1),
    "cmf": Style(unit=Unit.SHARE, decimals=0),
    "filled": Style(unit=Unit.PLAIN, decimals=0),
}
"""Columns of bars and of the standard features; any other is written as it is, with four decimals."""

DAY_STYLES: Mapping[str, Style] = {
    "day": Style(unit=Unit.PLAIN, decimals=0),
    **dict.fromkeys(("open", "high", "low", "close"), Style(unit=Unit.PRICE, decimals=0)),
    "volume": _AMOUNT,
    "taker_share": Style(unit=Unit.SHARE, decimals=0),
    "filled_share": Style(unit=Unit.SHARE, decimals=0),
}
"""Columns of the 7-day summary; `day` counts back from now: -1 is the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    indices: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    relative: np.ndarray
    amounts: tuple[int, ...]
    powers: np.ndarray
    header: str
    row: str
    line: str


@lru_cache(maxsize=256)
def _plan(columns: tuple[str, ...], available: tuple[str, ...], day: bool) -> _Plan:
    styles_of = DAY_STYLES if day else BAR_STYLES
    for column in columns:
        if column not in available:
            hint = did_you_mean(column, available)
            raise PromptError(f"the table has no column {column!r} (columns: {', '.join(available)}){hint}")
    if not columns:
        raise PromptError(f"a table needs columns (columns: {', '.join(available)})")
    styles = [styles_of.get(column, _PLAIN) for column in columns]
    units = [style.unit for style in styles]
    cells = [f"%.{style.decimals}f" for style in styles]
    return _Plan(
        indices=np.array([available.index(column) for column in columns]),
        scale=np.array([100.0 if unit is Unit.SHARE else 1.0 for unit in units]),
        offset=np.array([1e4 if unit is Unit.PRICE else 0.0 for unit in units]),
        relative=np.array([unit in (Unit.PRICE, Unit.DIFFERENCE) for unit in units]),
        amounts=tuple(at for at, unit in enumerate(units) if unit is Unit.AMOUNT),
        powers=np.array([10.0**style.decimals for style in styles]),
        header=",".join(columns),
        row="\n" + ",".join(cells),
        line=", ".join(map(" ".join, zip(columns, cells, strict=True))),
    )


def table(data: np.ndarray, available: Sequence[str], columns: Sequence[str], last: float, *, day: bool = False) -> str:
    """Return a header and one line per row, cells separated by commas.

    The numbers are rounded (half to even) before they are printed and never show a negative zero; an undefined one
    is `na`. Equal input gives equal text on any machine: every step is one correctly rounded operation.

    Args:
        data: float64 (rows, available columns).
        available: names of the data's columns.
        columns: those to write, in their order.
        last: the last close (quote units), which prices are relative to.
        day: whether the rows are days of the summary, not bars.

    Raises:
        PromptError: a column does not exist; names the nearest.
    """
    plan = _plan(tuple(columns), tuple(available), day)
    return plan.header + _format_rows(plan.row, _values(plan, data, last))


def last_row(data: np.ndarray, available: Sequence[str], columns: Sequence[str], last: float) -> str:
    """Return the last line of a `table` of bars, each cell with its name: `rsi 47.2, atr 5.85`.

    Args:
        data: float64 (rows, available columns).
        available: names of the data's columns.
        columns: those to write, in their order.
        last: the last close (quote units).

    Raises:
        PromptError: a column does not exist; names the nearest.
    """
    plan = _plan(tuple(columns), tuple(available), False)
    return _format_rows(plan.line, _values(plan, data, last)[-1:])


def _values(plan: _Plan, data: np.ndarray, last: float) -> np.ndarray:
    values = data[:, plan.indices]
    scale = np.where(plan.relative, 1e4 / last, plan.scale)
    for at in plan.amounts:
        total = fsum(values[:, at].tolist())
        scale[at] = 100.0 * len(values) / total if total else 0.0
    return np.asarray(np.rint((values * scale - plan.offset) * plan.powers) / plan.powers + 0.0)


def _format_rows(row: str, values: np.ndarray) -> str:
    text = row * len(values) % tuple(values.ravel().tolist())
    return text.replace("nan", "na") if np.isnan(values).any() else text
