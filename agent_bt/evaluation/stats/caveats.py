"""What a verdict must say beside its numbers: conditions under which they mean less than they seem to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_bt.core.clock import iso
from agent_bt.evaluation.stats.two_level import Effect

IDENTICAL = "arms identical"
FEW_TRADES = 20
"""Closed trades in a run, below which its result is an anecdote."""
FEW_UNITS = 30
FAILED_SHARE = 0.01
FEW_DEGREES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm of a comparison: what it earned, and what a reader must know about how.

    `returns`: float64 (R, T), the simple return of each bar, one row for each replicate. `trade_results`: closed
    trades of each replicate as shares of the equity, None if unknown. `decisions` and `failed` are summed over the
    replicates; `response_format` is the one that was effective, empty where no endpoint was asked.
    """

    name: str
    returns: np.ndarray
    trade_results: Sequence[Sequence[float]] | None = None
    decisions: int = 0
    failed: int = 0
    response_format: str = ""


def find_warnings(
    arm: Arm,
    baseline: Arm,
    effect: Effect,
    *,
    differences: np.ndarray,
    times: np.ndarray,
    knowledge_cutoff: int | None,
) -> list[str]:
    """List every caveat of one comparison, the most general first; each reads as the end of "but ...".

    Args:
        arm: the arm.
        baseline: what it is compared with.
        effect: what was measured.
        differences: float64 (n,), arm minus baseline over time, in the metric's unit.
        times: close times of the bars, int64 (T,), UTC us, ascending.
        knowledge_cutoff: the instant up to which the model may have read about the market, UTC us; None if unknown.
    """
    if effect.identical:
        return [IDENTICAL]
    warnings = []
    if len(differences) < FEW_UNITS:
        warnings.append(f"only {len(differences)} observations in time")
    if effect.interval(0.05) is None:
        warnings.append("the arms differ at too few times to give an interval")
    for side in (arm, baseline):
        trades = _trades_per_run(side)
        if trades is not None and trades < FEW_TRADES:
            warnings.append(f"too few trades ({side.name}: {trades:.3g} in a run)")
    if _depends_on_one_trade(_contributions(arm, baseline, effect, differences)):
        warnings.append("one trade makes the whole difference")
    formats = (arm.response_format, baseline.response_format)
    if all(formats) and formats[0] != formats[1]:
        warnings.append(f"the arms have different response formats ({formats[0]} and {formats[1]})")
    warnings.extend(
        f"{side.failed / side.decisions:.1%} of the decisions of {side.name} failed"
        for side in (arm, baseline)
        if side.decisions and side.failed / side.decisions > FAILED_SHARE
    )
    if knowledge_cutoff is not None:
        before = float(np.mean(times <= knowledge_cutoff))
        if before > 0.0:
            warnings.append(f"{before:.0%} of the bars are before the model's knowledge cutoff {iso(knowledge_cutoff)}")
    if effect.model_noise is None:
        warnings.append("one replicate: the model's noise is unknown, another run may differ")
    return warnings


def find_notes(effect: Effect, unit: str) -> list[str]:
    """List what is worth knowing about the noise and does not change the wording of a verdict.

    Args:
        effect: the difference between two arms.
        unit: of the metric, for the text.
    """
    noise = effect.model_noise
    if noise is None:
        return []
    notes = []
    if noise.degrees_of_freedom < FEW_DEGREES and noise.error > 0.0:
        notes.append(
            f"few replicates: the model's noise, {noise.error:.3g} {unit}, is known to lie between {noise.low:.3g} and "
            f"{noise.high:.3g} ({noise.degrees_of_freedom:.1f} degrees of freedom)"
        )
    if noise.drift:
        notes.append("whole runs of one arm differ more than their bars explain; the interval is widened for it")
    return notes


def _trades_per_run(arm: Arm) -> float | None:
    if arm.trade_results is None or not len(arm.trade_results):
        return None
    return sum(len(results) for results in arm.trade_results) / len(arm.trade_results)


def _contributions(arm: Arm, baseline: Arm, effect: Effect, differences: np.ndarray) -> list[np.ndarray]:
    """Two ways to take the difference apart into trades: closed trades, and the periods in which the arms differ."""
    parts = []
    if arm.trade_results is not None and baseline.trade_results is not None:
        gains = [result / len(arm.trade_results) for results in arm.trade_results for result in results]
        costs = [-result / len(baseline.trade_results) for results in baseline.trade_results for result in results]
        parts.append(np.array(gains + costs))
    differing = differences != 0.0
    # Where the arms differ nearly always, a period is not a trade.
    if np.mean(differing) < 0.5:
        starts = np.flatnonzero(np.diff(differing, prepend=False) & differing)
        parts.append(np.add.reduceat(differences, starts))
    return [part if effect.value >= 0.0 else -part for part in parts]


def _depends_on_one_trade(contributions: list[np.ndarray]) -> bool:
    """Whether without its largest part a sum has no longer its sign, and this part is also most of the scatter."""
    for parts in contributions:
        largest = float(np.max(parts, initial=0.0))
        if largest > 0.0 and largest >= float(np.sum(parts)) > 0.0 and 2.0 * largest**2 >= float(np.sum(parts**2)):
            return True
    return False
