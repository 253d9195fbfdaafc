# mypy: allow-untyped-defs, allow-untyped-calls
"""Whole lots: quantities are whole multiples of a decimal step, so that they add up exactly."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from agent_bt.core.jit import njit


def parse_lot_step(step: float) -> tuple[int, int]:
    """Return a decimal lot step as (multiple, scale), both whole numbers: step = multiple / scale.

    Raises:
        ValueError: the step is not a positive decimal number of at most 15 places.
    """
    exact = Decimal(repr(step))
    exponent = exact.as_tuple().exponent
    if not exact.is_finite() or exact <= 0 or not isinstance(exponent, int) or exponent < -15:
        raise ValueError(f"a lot step must be a positive decimal number of at most 15 places, got {step!r}")
    scale = 10 ** max(0, -exponent)
    return int(exact * scale), scale


@njit
def floor_to_lots(quantity: float, multiple: float, scale: float) -> int:
    """Return the whole lots in a quantity, rounded down; a quantity within 4 ulp of a lot boundary counts as on it.

    Args:
        quantity: base units, >= 0.
        multiple: as of `parse_lot_step`.
        scale: as of `parse_lot_step`.
    """
    lots = quantity * scale / multiple
    nearest = np.rint(lots)
    if abs(lots - nearest) <= 4.0 * 2.220446049250313e-16 * abs(lots):
        return int(nearest)
    return int(np.floor(lots))
