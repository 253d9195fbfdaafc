"""The smallest effect that a test could have seen."""

from __future__ import annotations

from statistics import NormalDist


def smallest_detectable(error: float, critical_value: float, power: float = 0.8) -> float:
    """Compute the smallest true effect that the test finds with probability `power`; the unit is that of `error`.

    (critical value + z of the power) x standard error: the effect whose statistic is below the critical value only in
    1 - power of the samples (Bloom 1995).

    Args:
        error: standard error of the effect.
        critical_value: of the absolute statistic at the level of the test.
        power: in (0, 1).
    """
    return (critical_value + NormalDist().inv_cdf(power)) * error
