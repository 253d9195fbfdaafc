"""The verdict about every arm of a comparison: better, worse, or cannot tell, with the evidence for it.

For each arm:
  1. returns become values over time whose mean is the metric           `measures.values_over_time`
  2. their paired differences become an effect with its noise           `two_level.measure_effect`
Then over all arms:
  3. p-values and levels are adjusted by Holm's procedure               `multiple`
  4. caveats are looked for, and the sentence is written                `caveats`, `_sentence`
  5. several arms: Hansen's test against the baseline; from eight arms on the probability of overfitting
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from agent_bt.evaluation.stats.caveats import Arm, find_notes, find_warnings
from agent_bt.evaluation.stats.measures import daily_returns, values_over_time
from agent_bt.evaluation.stats.metric import Metric, find_metric
from agent_bt.evaluation.stats.multiple import adjust_holm, holm_levels
from agent_bt.evaluation.stats.pbo import Overfitting, backtest_overfitting
from agent_bt.evaluation.stats.regimes import RegimeEffect, regime_effects
from agent_bt.evaluation.stats.sharpe import sharpe_evidence
from agent_bt.evaluation.stats.spa import SuperiorAbility, superior_ability
from agent_bt.evaluation.stats.two_level import Effect, ModelNoise, measure_effect

Outcome = Literal["better", "worse", "cannot_tell"]
MANY_ARMS = 3
"""From so many arms on, the baseline included, the best of them is tested as the best of several."""
OVERFITTING_ARMS = 8
_OVERFITTING_DAYS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One arm against the baseline.

    `effect`, its limits, `mde` (the smallest effect seen with 80% power) and the noises are in `unit`. `p_value` is
    Holm's over all arms, `p_single` the arm's own. The limits have confidence 1 - `level`, the level at which Holm
    decided this arm, so that they exclude 0 exactly where the verdict is not "cannot tell". Limits and `mde` are None
    where the arms differ at too few times. `psr` and `dsr` are the arm's own, from daily returns; `trials` is the
    number of variants tried that deflates. `market_noise` and `model_noise` are parts of the effect's standard error;
    `model_noise` is None with one replicate.
    """

    arm: str
    baseline: str
    verdict: Outcome
    metric: str
    unit: str
    effect: float
    ci_low: float | None
    ci_high: float | None
    p_value: float
    p_single: float
    mde: float | None
    alpha: float
    level: float
    trials: int
    psr: float | None
    dsr: float | None
    market_noise: float
    model_noise: ModelNoise | None
    replicates: int
    block_length: float
    regimes: tuple[RegimeEffect, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperiorArm:
    """Hansen's test over all arms: the arm with the largest statistic, and the p-values of "none is better"."""

    arm: str
    p_value: float
    p_lower: float
    p_upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All verdicts of one comparison. `spa` is None below 3 arms, `pbo` (a probability) below 8 arms or 16 days."""

    baseline: str
    metric: str
    unit: str
    alpha: float
    verdicts: tuple[Verdict, ...]
    spa: SuperiorArm | None
    pbo: float | None
    pbo_blocks: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def judge(
    arms: Sequence[Arm],
    *,
    baseline: str,
    times: np.ndarray,
    metric: str = "mean_return",
    alpha: float = 0.05,
    market_returns: np.ndarray | None = None,
    bars_per_decision: int = 1,
    trials: int | None = None,
    trial_variance: float | None = None,
    knowledge_cutoff: int | None = None,
    resamples: int = 10_000,
    seed: int,
) -> Comparison:
    """Judge every arm against the baseline.

    Args:
        arms: two or more, the baseline among them; all over the same T bars.
        baseline: name of the arm that the others are compared with.
        times: close times of the bars, int64 (T,), UTC us, ascending.
        metric: see `stats.metric.find_metric`.
        alpha: chance of any false verdict, over all arms.
        market_returns: float64 (T,), the market's simple returns, for bull and bear days; None leaves those out.
        bars_per_decision: bars from one decision to the next, >= 1.
        trials: variants tried so far, as the registry counts them; None or fewer than the arms here: these arms.
        trial_variance: variance of the trials' daily Sharpe ratios; None: see `sharpe.sharpe_evidence`.
        knowledge_cutoff: the instant up to which the model may know the market, UTC us.
        resamples: how many resamples for each arm.
        seed: any integer; equal seeds give equal verdicts.

    Raises:
        ValueError: unknown metric or baseline, a name used twice, no second arm, or arms over different bars.
    """
    measure = find_metric(metric)
    names = [arm.name for arm in arms]
    if len(set(names)) < max(2, len(names)) or baseline not in names:
        raise ValueError(f"arms {', '.join(names)} with baseline {baseline!r}: give two or more names, each once")
    for arm in arms:
        if arm.returns.ndim != 2 or arm.returns.shape[1] != len(times) or not len(arm.returns) or len(times) < 2:
            raise ValueError(
                f"arm {arm.name!r} has returns of shape {arm.returns.shape} for {len(times)} bars: "
                "give (replicates, bars), the same two or more bars for every arm"
            )
    tried = max(trials or 0, len(arms))
    values = {
        arm.name: values_over_time(measure, arm.returns, times, bars_per_decision=bars_per_decision) for arm in arms
    }
    base = next(arm for arm in arms if arm.name == baseline)
    others = [arm for arm in arms if arm.name != baseline]
    effects = [measure_effect(values[arm.name], values[baseline], resamples=resamples, seed=seed) for arm in others]
    singles = [effect.p_value() for effect in effects]
    adjusted, levels = adjust_holm(singles), holm_levels(singles, alpha)
    differences = np.stack([values[arm.name].mean(axis=0) - values[baseline].mean(axis=0) for arm in others], axis=1)

    verdicts = []
    for at, (arm, effect) in enumerate(zip(others, effects, strict=True)):
        daily = daily_returns(arm.returns, times)
        evidence = sharpe_evidence(daily, trials=tried, trial_variance=trial_variance)
        low, high = effect.interval(levels[at]) or (None, None)
        outcome: Outcome = "cannot_tell"
        if adjusted[at] <= alpha and low is not None and high is not None:
            outcome = "better" if low > 0.0 else "worse" if high < 0.0 else "cannot_tell"
        warnings = find_warnings(
            arm, base, effect, differences=differences[:, at], times=times, knowledge_cutoff=knowledge_cutoff
        )
        mde = None if effect.identical else effect.smallest_detectable(levels[at])
        split: list[RegimeEffect] = []
        if market_returns is not None:
            split = regime_effects(
                arm.returns,
                base.returns,
                market_returns=market_returns,
                times=times,
                alpha=alpha,
                resamples=resamples,
                seed=seed,
            )
        verdicts.append(
            Verdict(
                arm=arm.name,
                baseline=baseline,
                verdict=outcome,
                metric=measure.name,
                unit=measure.unit,
                effect=effect.value,
                ci_low=low,
                ci_high=high,
                p_value=adjusted[at],
                p_single=singles[at],
                mde=mde,
                alpha=alpha,
                level=levels[at],
                trials=tried,
                psr=evidence.psr if evidence else None,
                dsr=evidence.dsr if evidence else None,
                market_noise=effect.market_noise,
                model_noise=effect.model_noise,
                replicates=len(arm.returns),
                block_length=effect.block_length,
                regimes=tuple(split),
                warnings=tuple(warnings),
                notes=tuple(find_notes(effect, measure.unit)),
                sentence=_sentence(arm.name, baseline, outcome, measure, effect, adjusted[at], levels[at], warnings),
            )
        )

    found = _best_of_many(differences, [arm.name for arm in others], resamples, seed)
    overfitting = _overfitting(arms, times)
    return Comparison(
        baseline=baseline,
        metric=measure.name,
        unit=measure.unit,
        alpha=alpha,
        verdicts=tuple(verdicts),
        spa=found,
        pbo=overfitting.probability if overfitting else None,
        pbo_blocks=overfitting.blocks if overfitting else None,
    )


def _best_of_many(differences: np.ndarray, names: list[str], resamples: int, seed: int) -> SuperiorArm | None:
    if len(names) + 1 < MANY_ARMS or len(differences) < 3:
        return None
    found: SuperiorAbility = superior_ability(differences, resamples=resamples, seed=seed)
    return SuperiorArm(arm=names[found.best], p_value=found.consistent, p_lower=found.lower, p_upper=found.upper)


def _overfitting(arms: Sequence[Arm], times: np.ndarray) -> Overfitting | None:
    if len(arms) < OVERFITTING_ARMS:
        return None
    daily = np.stack([daily_returns(arm.returns, times).mean(axis=0) for arm in arms], axis=1)
    return backtest_overfitting(daily) if len(daily) >= _OVERFITTING_DAYS else None


def _sentence(
    arm: str,
    baseline: str,
    outcome: Outcome,
    metric: Metric,
    effect: Effect,
    p_value: float,
    level: float,
    warnings: list[str],
) -> str:
    """The verdict in words; a caveat turns "is" into "looks"."""
    if effect.identical:
        return f"Cannot tell {arm} from {baseline}: the arms are identical."
    interval = effect.interval(level)
    limits = "no interval"
    if interval is not None:
        limits = f"{100 * (1 - level):.4g}% interval {interval[0]:+.3g} to {interval[1]:+.3g}"
    evidence = f"({limits}, p = {p_value:.3g})"
    caveat = f"; {'; '.join(warnings)}" if warnings else ""
    if outcome == "cannot_tell":
        needed = effect.smallest_detectable(level)
        rest = f"; it would have needed an effect of {needed:.3g} {metric.unit}" if needed is not None else ""
        return f"Cannot tell {arm} from {baseline}: {effect.value:+.3g} {metric.unit} {evidence}{rest}{caveat}."
    verb = "looks" if warnings else "is"
    caveat = f", but {'; '.join(warnings)}" if warnings else ""
    return f"{arm} {verb} {outcome} than {baseline} by {abs(effect.value):.3g} {metric.unit} {evidence}{caveat}."
