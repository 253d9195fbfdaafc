"""Formats numbers as plain text, for the terminal; `html_format` does the same for pages. Undefined is a dash."""

from __future__ import annotations

DASH = "–"


def fixed(value: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """Format a number with thousands separators; rounding noise below zero gives 0, not -0.

    Args:
        value: None is undefined.
        decimals: digits after the point.
        signed: write the sign of positive numbers too.
    """
    if value is None:
        return DASH
    return f"{round(value, decimals) + 0.0:{'+' if signed else ''},.{decimals}f}"


def percent(value: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """Format a fraction as a percentage: 0.1234 -> 12.34%.

    Args:
        value: None is undefined.
        decimals: digits after the point.
        signed: write the sign of positive numbers too.
    """
    return DASH if value is None else f"{fixed(100.0 * value, decimals, signed=signed)}%"


def count(value: float | None) -> str:
    """Format an integer with thousands separators."""
    return DASH if value is None else f"{value:,.0f}"
