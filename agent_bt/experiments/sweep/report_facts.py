"""Names and formats the parameters of a sweep, for the terminal and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from agent_bt.core.canonical import canonical


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return for each path its shortest unique ending.

    >>> short_names(["strategy.params.fast", "risk.stop_loss"])
    {'strategy.params.fast': 'fast', 'risk.stop_loss': 'stop_loss'}
    """
    left, parts = list(paths), 1
    names: dict[str, str] = {}
    while left:
        endings = {path: ".".join(path.split(".")[-parts:]) for path in left}
        shared = Counter(endings.values())
        names |= {path: ending for path, ending in endings.items() if shared[ending] == 1 or ending == path}
        left = [path for path in left if path not in names]
        parts += 1
    return names


def value_text(value: Any) -> str:
    """Format a value of a parameter: 5, 0.1, sma, and anything else as JSON."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else canonical(value).decode()
