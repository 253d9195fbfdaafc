"""The effect of an arm against the baseline, with the noise of the market and that of the model apart.

Two levels of noise reach the mean difference of two arms:

1. time: another period of the market would have shown another difference (and the model's answers scatter from bar
   to bar). The stationary bootstrap of the paired differences, averaged over replicates, measures all of this.
2. replicates: the same model on the same market answers differently. The spread of the replicates' results measures
   all of this, with as few degrees of freedom as there are replicates.

What both see, answers that scatter from bar to bar, must not count twice. So the second level is added only as far as
the replicates spread more than their own bars explain (a whole run that drifts, because its account took another
path), and only if that excess is more than chance (`DRIFT_LEVEL`). Otherwise the time level alone is the error: with
few replicates, always adding a noisy excess would cost more power than the excess is worth.

The statistic is the effect over its error; its distribution comes from the resamples, each with an error of its own
(a symmetric studentised bootstrap: Hall 1988). That keeps its level where differences are sparse or heavy-tailed, where
a normal quantile would reject too often. A drift enters each resample as a normal draw, its estimate as a chi-squared
one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent_bt.evaluation.stats.block_length import optimal_block_length
from agent_bt.evaluation.stats.bootstrap import mean_error, resample_mean
from agent_bt.evaluation.stats.power import smallest_detectable

DRIFT_LEVEL = 0.10
"""Chance of seeing a drift of whole runs where there is none."""
EQUAL = 1e-12
"""Differences below this share of the largest value are rounding: the arms are identical."""
_QUANTILE_DRAWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNoise:
    """The standard error of the effect that comes from the model alone, in the metric's unit.

    `low` and `high` are its 95% limits (chi-squared with `degrees_of_freedom`): with few replicates they lie far
    apart. `drift` says whether whole runs differ more than their bars explain.
    """

    error: float
    low: float
    high: float
    degrees_of_freedom: float
    drift: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Arm minus baseline, in the metric's unit.

    `error` is its standard error, all noise together; `market_noise` the part that more replicates would leave;
    `model_noise` None if neither arm has a second replicate. `statistics`: absolute Student statistics of the
    resamples, ascending, float64 (B,), infinite where a resample holds no difference at all, or is one block
    of all observations and so has no error of its own.
    """

    value: float
    error: float
    block_length: float
    market_noise: float
    model_noise: ModelNoise | None
    identical: bool
    statistics: np.ndarray

    def p_value(self) -> float:
        """Compute the two-sided p-value of "no difference": the fraction of resamples as far out, the data included."""
        if self.identical:
            return 1.0
        statistic = abs(self.value) / self.error if self.error > 0.0 else math.inf
        return float(1 + np.sum(self.statistics >= statistic)) / (1 + len(self.statistics))

    def critical_value(self, alpha: float) -> float:
        """Compute the statistic whose p-value is `alpha`; infinite where the differences are too few to set one."""
        rank = math.floor(alpha * (1 + len(self.statistics)))
        return float(self.statistics[-rank]) if rank else math.inf

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Compute limits that hold the true effect with confidence 1 - alpha; None where the differences are too few.

        0 is outside exactly where `p_value() <= alpha`, but for ties.
        """
        if self.identical:
            return 0.0, 0.0
        reach = self.critical_value(alpha) * self.error
        return (self.value - reach, self.value + reach) if math.isfinite(reach) else None

    def smallest_detectable(self, alpha: float, power: float = 0.8) -> float | None:
        """Compute the smallest true effect that would be found with this power; None as for `interval`.

        With replicates, a drift that is seen by chance (`DRIFT_LEVEL`) would cost about half of the power; the rest
        of the cases must make up for it.

        Args:
            alpha: chance of a false verdict.
            power: chance to find it.

        Returns:
            In the metric's unit.
        """
        critical = self.critical_value(alpha)
        if not math.isfinite(critical):
            return None
        steady = self.model_noise is not None and not self.model_noise.drift
        needed = min(power / (1.0 - DRIFT_LEVEL / 2.0), (1.0 + power) / 2.0) if steady else power
        return smallest_detectable(self.error, critical, needed)


def measure_effect(
    arm: np.ndarray,
    baseline: np.ndarray,
    *,
    resamples: int = 10_000,
    seed: int,
    block_length: float | None = None,
) -> Effect:
    """Measure the mean of `arm` minus the mean of `baseline`.

    Args:
        arm: float64 (R, n): values whose mean over time is the metric, one row for each replicate.
        baseline: float64 (S, n): the same of the baseline, over the same n observations.
        resamples: how many resamples of time.
        seed: any integer; equal seeds give equal effects.
        block_length: mean block length in observations; None chooses it from the differences.

    Raises:
        ValueError: the arms do not cover the same observations, there are fewer than two, or a value is not finite.
    """
    if arm.ndim != 2 or baseline.ndim != 2 or arm.shape[1] != baseline.shape[1] or arm.shape[1] < 2:
        raise ValueError(
            f"arms of shapes {arm.shape} and {baseline.shape} cannot be compared: "
            "give (replicates, observations) with the same two or more observations"
        )
    if not (np.all(np.isfinite(arm)) and np.all(np.isfinite(baseline))):
        raise ValueError("an arm holds values that are not finite; compare only bars that both arms traded through")

    differences = np.mean(arm, axis=0) - np.mean(baseline, axis=0)
    scale = max(float(np.max(np.abs(arm))), float(np.max(np.abs(baseline))))
    if float(np.max(np.abs(differences))) <= EQUAL * scale:
        return Effect(
            value=0.0,
            error=0.0,
            block_length=1.0,
            market_noise=0.0,
            model_noise=None,
            identical=True,
            statistics=np.zeros(resamples),
        )

    length = optimal_block_length(differences) if block_length is None else block_length
    time_error = float(mean_error(differences, length))
    spread = _replicate_spread(arm, baseline, length)
    rng = np.random.default_rng([seed % 2**64, 1])
    model_noise, excess = (None, 0.0) if spread is None else _judge_spread(spread, rng)

    draws = resample_mean(differences, block_length=length, resamples=resamples, seed=seed)
    deviations, variances = draws.deviations, draws.errors**2
    if spread is not None and excess > 0.0:
        df = spread.degrees_of_freedom
        deviations = deviations + math.sqrt(excess) * rng.standard_normal(resamples)
        drawn = spread.between * rng.chisquare(df, resamples) / df
        variances = variances + np.maximum(drawn - spread.within, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.abs(deviations) / np.sqrt(variances)
    within = 0.0 if spread is None else spread.within
    return Effect(
        value=float(np.mean(differences)),
        error=math.sqrt(time_error**2 + excess),
        block_length=length,
        market_noise=math.sqrt(max(time_error**2 - within, 0.0)),
        model_noise=model_noise,
        identical=False,
        statistics=np.sort(np.nan_to_num(statistics, nan=math.inf, posinf=math.inf)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """Variance of the effect from the model: seen `between` replicates, and explained by the bars `within` them."""

    between: float
    within: float
    degrees_of_freedom: float


def _replicate_spread(arm: np.ndarray, baseline: np.ndarray, length: float) -> _Spread | None:
    """The model's part of the effect's variance; an arm with one replicate borrows the spread of the other."""
    sides = [(len(values), *_spread_of_one(values, length)) for values in (arm, baseline) if len(values) > 1]
    if not sides:
        return None
    if len(sides) == 1:
        _, between, within = sides[0]
        share = 1.0 / len(arm) + 1.0 / len(baseline)
        return _Spread(between=between * share, within=within * share, degrees_of_freedom=float(sides[0][0] - 1))
    parts = [between / count for count, between, _ in sides]
    total = sum(parts)
    # Welch & Satterthwaite: two spreads with a few degrees of freedom each.
    bottom = sum(part**2 / (count - 1) for part, (count, _, _) in zip(parts, sides, strict=True))
    df = total**2 / bottom if bottom > 0.0 else float(sum(count - 1 for count, _, _ in sides))
    return _Spread(between=total, within=sum(within / count for count, _, within in sides), degrees_of_freedom=df)


def _spread_of_one(values: np.ndarray, length: float) -> tuple[float, float]:
    """Variance of one replicate's mean: between the replicates, and from the scatter of the bars within them."""
    between = float(np.var(np.mean(values, axis=1), ddof=1))
    scatter = mean_error(values - np.mean(values, axis=0), length)
    return between, float(np.sum(np.square(scatter))) / (len(values) - 1)


def _judge_spread(spread: _Spread, rng: np.random.Generator) -> tuple[ModelNoise, float]:
    """The model's noise with its limits, and the variance to add for runs that drift as a whole."""
    df = spread.degrees_of_freedom
    low, high, limit = np.quantile(rng.chisquare(df, _QUANTILE_DRAWS) / df, [0.025, 0.975, 1.0 - DRIFT_LEVEL])
    drift = spread.between > spread.within * limit
    error = math.sqrt(spread.between)
    noise = ModelNoise(
        error=error,
        low=error / math.sqrt(high),
        high=error / math.sqrt(low),
        degrees_of_freedom=df,
        drift=bool(drift),
    )
    return noise, spread.between - spread.within if drift else 0.0
