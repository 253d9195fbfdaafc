"""How numbers and times are written in the report; an undefined value is a dash."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

DASH = "–"


def percent(value: float | None, decimals: int = 2) -> str:
    """A share as per cent: 0.1234 -> 12.34%."""
    return DASH if value is None else _minus(f"{100.0 * value:,.{decimals}f}%")


def signed_percent(value: float | None, decimals: int = 2) -> str:
    """A share as per cent with its sign: +12.34%."""
    return DASH if value is None else _minus(f"{100.0 * value + 0.0:+,.{decimals}f}%")


def amount(value: float | None, decimals: int = 2) -> str:
    """Quote units with thousands separated."""
    return DASH if value is None else _minus(f"{value:,.{decimals}f}")


def ratio(value: float | None) -> str:
    """A plain ratio, two decimals."""
    return DASH if value is None else _minus(f"{value:,.2f}")


def count(value: int | None) -> str:
    """A whole number with thousands separated."""
    return DASH if value is None else f"{value:,}"


def dollars(value: float | None) -> str:
    """US dollars with as many decimals as small amounts need."""
    if value is None:
        return DASH
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}" if value >= 0.001 else f"${value:.2g}"


def milliseconds(value: float | None) -> str:
    """A latency: 12 ms, 1.24 s."""
    if value is None:
        return DASH
    return (
        f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms" if value < 999.5 and value < 10 else f"{value:.2g} ms"
    )


def duration(seconds: float | None) -> str:
    """Elapsed time: 840 ms, 12.3 s, 3 min 20 s."""
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def plain(value: float | None) -> str:
    """A price or a quantity of any size: at least six significant digits."""
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


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")
