# mypy: allow-untyped-defs, allow-untyped-calls
"""Whole lots: quantities are integer multiples of a decimal step, so that they add up exactly."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from agent_bt.core.jit import njit


def lot_of(step: float) -> tuple[int, int]:
    """A decimal lot step as (multiple, scale): step = multiple / scale, both whole.

    Raises:
        ValueError: the step is not a positive decimal number of at most 15 places.
    """
    exact = Decimal(repr(step))
    exponent = exact.as_tuple().exponent
    if not exact.is_finite() or exact <= 0 or not isinstance(exponent, int) or exponent < -15:
        raise ValueError(f"lot step {step!r} must be a positive decimal of at most 15 places")
    scale = 10 ** max(0, -exponent)
    return int(exact * scale), scale


@njit
def lots_in(quantity: float, multiple: float, scale: float) -> int:
    """Whole lots in a quantity (>= 0), rounded down; a quantity within 4 ulp of a lot boundary counts as on it."""
    lots = quantity * scale / multiple
    nearest = np.rint(lots)
    if abs(lots - nearest) <= 4.0 * 2.220446049250313e-16 * abs(lots):
        return int(nearest)
    return int(np.floor(lots))
