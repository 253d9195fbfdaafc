"""Formats numbers and times for pages: as `number_format`, with a typographic minus; an undefined value is a dash."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from agent_bt.reports import number_format
from agent_bt.reports.number_format import DASH, count

__all__ = [
    "DASH", "FILTERS", "amount", "count", "dollars", "duration", "milliseconds", "percent", "plain", "ratio",
    "signed_percent",
]  # fmt: skip


def percent(value: float | None, decimals: int = 2) -> str:
    """Format a fraction as a percentage: 0.1234 -> 12.34%.

    Args:
        value: None is undefined.
        decimals: digits after the point.
    """
    return _minus(number_format.percent(value, decimals))


def signed_percent(value: float | None, decimals: int = 2) -> str:
    """Format a fraction as a percentage with its sign: +12.34%.

    Args:
        value: None is undefined.
        decimals: digits after the point.
    """
    return _minus(number_format.percent(value, decimals, signed=True))


def amount(value: float | None, decimals: int = 2) -> str:
    """Format quote units with thousands separators.

    Args:
        value: None is undefined.
        decimals: digits after the point.
    """
    return _minus(number_format.fixed(value, decimals))


def ratio(value: float | None) -> str:
    """Format a ratio with two decimals."""
    return _minus(number_format.fixed(value))


def dollars(value: float | None) -> str:
    """Format US dollars with as many decimals as small amounts need."""
    if value is None:
        return DASH
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}" if value >= 0.001 else f"${value:.2g}"


def milliseconds(value: float | None) -> str:
    """Format a latency in milliseconds: 124 ms, 1.2 ms."""
    if value is None:
        return DASH
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def duration(seconds: float | None) -> str:
    """Format elapsed time: 840 ms, 12.3 s, 3 min 20 s."""
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def plain(value: float | None) -> str:
    """Format a price or a quantity of any magnitude, with at least six significant digits."""
    if value is None:
        return DASH
    size = abs(value)
    return amount(value, 0 if size >= 1e6 else 2) if size >= 100 or size == 0 else _minus(_plain_digits(value))


def _plain_digits(value: float) -> str:
    return f"{value:.{max(0, 5 - math.floor(math.log10(abs(value))))}f}".rstrip("0").rstrip(".")


FILTERS: dict[str, Callable[..., Any]] = {
    "percent": percent,
    "signed_percent": signed_percent,
    "amount": amount,
    "ratio": ratio,
    "count": count,
    "dollars": dollars,
    "milliseconds": milliseconds,
    "duration": duration,
}
"""The formats that templates use, by name."""


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")
