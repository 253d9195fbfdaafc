"""The effect on bull days and on bear days, apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from agent_bt.evaluation.stats.measures import BPS, daily_returns, day_starts
from agent_bt.evaluation.stats.two_level import measure_effect

Regime = Literal["bull", "bear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegimeEffect:
    """Arm minus baseline on the days of one regime, bps a day of mean return; no limits where days are too few."""

    regime: Regime
    days: int
    effect: float
    ci_low: float | None
    ci_high: float | None


def regime_effects(
    arm: np.ndarray,
    baseline: np.ndarray,
    *,
    market_returns: np.ndarray,
    times: np.ndarray,
    alpha: float = 0.05,
    resamples: int = 10_000,
    seed: int,
) -> list[RegimeEffect]:
    """Split the effect by the sign of the market's day; days without a change are in neither.

    The mean over some of the days is a ratio, sum of the differences over number of days; both vary. It is resampled
    through its influence function, over all days in their order, so that blocks stay what they are. The limits are
    not adjusted for there being two regimes or several arms: they describe, the verdict decides.

    Args:
        arm: float64 (R, T), simple return of each bar, one row for each replicate.
        baseline: float64 (S, T).
        market_returns: float64 (T,), the market's own simple returns.
        times: close times, int64 (T,), UTC us, ascending.
        alpha: 1 - confidence of the limits.
        resamples: how many.
        seed: any integer.

    Returns:
        Bull, then bear; a regime without two days is missing.
    """
    market = daily_returns(market_returns, times)
    starts = day_starts(times)
    effects: list[RegimeEffect] = []
    regimes: tuple[tuple[Regime, np.ndarray], ...] = (("bull", market > 0.0), ("bear", market < 0.0))
    for regime, days in regimes:
        count = int(np.sum(days))
        if count < 2:
            continue
        values = []
        for returns in (arm, baseline):
            daily = BPS * np.add.reduceat(returns, starts, axis=1)
            mean = np.mean(daily[:, days], axis=1, keepdims=True)
            values.append(mean + days * (daily - mean) * (len(days) / count))
        effect = measure_effect(*values, resamples=resamples, seed=seed)
        low, high = effect.interval(alpha) or (None, None)
        effects.append(RegimeEffect(regime=regime, days=count, effect=effect.value, ci_low=low, ci_high=high))
    return effects
