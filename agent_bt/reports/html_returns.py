"""The monthly table and the daily calendar of returns for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from agent_bt.evaluation.metrics import daily_returns
from agent_bt.reports.html_cards import sign_class
from agent_bt.reports.html_format import signed_percent

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def build_returns(equity: pl.DataFrame, baselines: pl.DataFrame | None, initial: float) -> dict[str, Any]:
    """Build monthly returns of strategy and buy and hold, and daily returns of the strategy, by UTC days.

    Args:
        equity: columns of `EQUITY_SCHEMA`.
        baselines: `time` and one column per baseline; None without any.
        initial: starting cash, quote units.
    """
    curves = {"Strategy": equity["equity"]}
    times = equity["time"].to_physical().to_numpy()
    if baselines is not None and len(baselines) == len(equity):
        curves["B&H"] = baselines["buy_and_hold"]
    months = {name: _monthly(times, curve.to_numpy(), initial) for name, curve in curves.items()}
    years = sorted({year for year, _ in months["Strategy"]})
    largest = max((abs(v) for by_month in months.values() for v in by_month.values()), default=0.0)
    rows = [
        {
            "year": year,
            "name": name,
            "cells": [_heat(by_month.get((year, month)), largest) for month in range(1, 13)],
            "total": _heat(_compound(v for (y, _), v in by_month.items() if y == year), 0.0),
        }
        for year in years
        for name, by_month in months.items()
    ]
    return {"months": _MONTHS, "rows": rows, "days": _calendar(times, equity["equity"].to_numpy(), initial)}


def _monthly(times: np.ndarray, equity: np.ndarray, initial: float) -> dict[tuple[int, int], float]:
    """Return (year, month) -> return since the end of the previous month; a bar that closes at midnight ends it."""
    months = (times - 1).astype("datetime64[us]").astype("datetime64[M]")
    last = np.append(np.flatnonzero(months[1:] != months[:-1]), len(months) - 1)
    marks = np.concatenate([[initial], equity[last]])
    numbers = months[last].astype(int)
    returns = (marks[1:] / marks[:-1] - 1.0).tolist()
    return {(1970 + n // 12, n % 12 + 1): value for n, value in zip(numbers.tolist(), returns, strict=True)}


def _compound(returns: Iterable[float]) -> float:
    return math.prod(1.0 + value for value in returns) - 1.0


def _calendar(times: np.ndarray, equity: np.ndarray, initial: float) -> list[dict[str, Any]]:
    """Build for each year the days with their return; `column` (week) and `row` (Monday = 1) of a grid."""
    days = np.unique((times - 1) // 86_400_000_000)
    returns = daily_returns(times, equity, initial)
    # The 98 % quantile gets the deepest colour, so that one extreme day does not make all others pale.
    largest = float(np.quantile(np.abs(returns), 0.98)) if len(returns) else 0.0
    years: dict[int, dict[str, Any]] = {}
    first_week: dict[int, int] = {}
    for day, value in zip(days.tolist(), returns.tolist(), strict=True):
        date = np.datetime64(day, "D").item()
        week = (day + 3) // 7
        year = years.setdefault(date.year, {"year": date.year, "days": [], "months": {}})
        column = week - first_week.setdefault(date.year, week) + 1
        year["months"].setdefault(_MONTHS[date.month - 1], column)
        year["days"].append(
            {
                "column": column,
                "row": date.weekday() + 1,
                "title": f"{date}  {signed_percent(value)}",
                **_heat(value, largest),
            }
        )
    return list(years.values())


def _heat(value: float | None, largest: float) -> dict[str, Any]:
    if value is None:
        return {"text": "", "sign": "", "heat": 0}
    relative = min(1.0, abs(value) / largest) if largest else 0.0
    return {
        "text": signed_percent(value, 1),
        "sign": sign_class(value),
        "heat": round(100 * relative**0.7) if value else 0,
    }
