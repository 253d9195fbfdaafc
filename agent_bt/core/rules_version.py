"""The version of the rules of market and account; the manifest of a run names the version it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RULES_VERSION = 5
"""Raised whenever a changed rule may show, fill, size or mark something else with equal decisions."""

CHANGES: Mapping[int, str] = {
    2: "a quantity of more than 2^53 lots cannot be held exactly and is refused (before, it was rounded or wrapped)",
    3: "a stop-loss or take-profit that a price touches exactly triggers (before, rounding of float64 could miss it)",
    4: "the 7-day summary leaves the prices of forward-filled bars out (before, they were in open, high and low)",
    5: "an order that only reduces a perpetual position may be below `execution.min_notional` (before: rejected)",
}
"""What each version changed; runs to which no change applies are the same under all versions."""


def changes_since(manifest: Mapping[str, Any]) -> list[str]:
    """Return what has changed in the rules since a run was made, oldest first, each with its version.

    >>> changes_since({"rules": RULES_VERSION})
    []

    Args:
        manifest: of the run; without the key `rules` it was made with version 1.
    """
    made_with = manifest.get("rules", 1)
    return [f"version {version}: {CHANGES[version]}" for version in sorted(CHANGES) if version > made_with]
