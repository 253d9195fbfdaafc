# mypy: allow-untyped-defs, allow-untyped-calls
"""Whole lots: quantities are whole multiples of a decimal step, so that they add up exactly."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np

from agent_bt.core.errors import ConfigError
from agent_bt.core.jit import njit

MAX_LOTS = 2**53
"""The most lots that are held: above it, float64 amounts of lots are no longer exact."""
TOO_MANY_LOTS = 2**62
"""What `floor_to_lots` returns for more than `MAX_LOTS`; adding a position to it stays within int64."""


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

    More than `MAX_LOTS` are returned as `TOO_MANY_LOTS`.

    Args:
        quantity: base units, >= 0.
        multiple: as of `parse_lot_step`.
        scale: as of `parse_lot_step`.
    """
    lots = quantity * scale / multiple
    if abs(lots) > MAX_LOTS:
        return TOO_MANY_LOTS if lots > 0.0 else -TOO_MANY_LOTS
    nearest = np.rint(lots)
    if abs(lots - nearest) <= 4.0 * 2.220446049250313e-16 * abs(lots):
        return int(nearest)
    return int(np.floor(lots))


def refuse_quantity(quantity: float, step: float, what: str) -> ConfigError:
    """Return the error for a quantity of more than `MAX_LOTS` lots, with the smallest power of ten that holds it.

    Args:
        quantity: base units; what has to be held, or an upper limit of it.
        step: lot step that is too small for it, base units.
        what: begins the message: what would have the quantity.
    """
    exponent = math.ceil(math.log10(quantity / MAX_LOTS))
    while float(f"1e{exponent}") <= step or quantity > MAX_LOTS * float(f"1e{exponent}"):
        exponent += 1
    return ConfigError(
        f"{what} would hold up to {quantity:.6g} units, more than 2^53 lots of {step:g}, which cannot be held exactly; "
        f"set execution.lot_step to {float(f'1e{exponent}'):g} or more"
    )
