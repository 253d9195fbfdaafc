"""How answers to one history relate to answers to another, and to what really came next.

`Answers` to the same decisions of different histories are compared pair by pair. What a model that reads owes to its
input changes with the input; what it remembers does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_bt.core.types import Decision
from agent_bt.evaluation.stats.two_level import measure_effect

_SIGNS = {"BUY": 1, "SELL": -1, "HOLD": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Decisions about one history: actions int (R, n) with BUY 1, SELL -1, HOLD 0; sizes float64 (R, n), 0 for HOLD.

    One row for each replicate, one column for each decision. `failed` is the share that is no answer of the model.
    """

    actions: np.ndarray
    sizes: np.ndarray
    failed: float = 0.0

    @classmethod
    def of(cls, decisions: Sequence[Sequence[Decision]]) -> Answers:
        """Make the answers from the decisions of each replicate."""
        return cls(
            actions=np.array([[_SIGNS[d.action] for d in row] for row in decisions]),
            sizes=np.array([[d.size if d.action != "HOLD" and d.size else 0.0 for d in row] for row in decisions]),
            failed=float(np.mean([[d.provenance.kind != "model" for d in row] for row in decisions])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How answers changed with the history.

    Attributes:
        prediction_consistency: share of unchanged actions (PC in Li et al. 2025, arXiv 2510.07920, where agents that
            leak reach 0.69 to 0.82).
        acting_consistency: the same among the decisions that were BUY or SELL at first; None without any. A model
            that mostly holds has a high share of unchanged actions without having remembered anything.
        confidence_invariance: 1 - mean |change of size| (CI there, with the size as the confidence).
        divergence: mean Jensen-Shannon divergence in bits (Lin 1991) of the action distributions over replicates: 0
            for equal ones, 1 for none in common (the input dependency of Li et al.). None with one replicate.
    """

    prediction_consistency: float
    acting_consistency: float | None
    confidence_invariance: float
    divergence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """How answers agreed with what came next: mean of action x weighted sign of the next return; 0 for chance."""

    score: float
    scores: np.ndarray


def compare(plain: Answers, changed: Answers) -> Response:
    """Compare the answers to a changed history with those to the plain one.

    Args:
        plain: answers to the history as it was.
        changed: answers to the other one, at the same decisions.
    """
    same = plain.actions == changed.actions
    acting = plain.actions != 0
    replicates = len(plain.actions)
    return Response(
        prediction_consistency=float(np.mean(same)),
        acting_consistency=float(np.mean(same[acting])) if acting.any() else None,
        confidence_invariance=float(1.0 - np.mean(np.abs(plain.sizes - changed.sizes))),
        divergence=_divergence(plain.actions, changed.actions) if replicates > 1 else None,
    )


def foresight(answers: Answers, next_returns: np.ndarray) -> Foresight:
    """Compare answers with the returns from each decision to the next.

    A sign weighs from one half (the smallest move) to one (the largest), by rank: what is remembered of a market is its
    large moves, yet a single crash must not decide everything.

    Args:
        answers: of a model, n decisions in each replicate.
        next_returns: return from each decision to the next, a fraction, float64 (n,).
    """
    sizes = np.abs(next_returns)
    weights = 0.5 + 0.5 * np.searchsorted(np.sort(sizes), sizes, side="right") / len(sizes)
    scores = answers.actions * (np.sign(next_returns) * weights)
    return Foresight(score=float(np.mean(scores)), scores=scores.astype(np.float64))


def p_above(scores: np.ndarray, others: np.ndarray, *, seed: int) -> float:
    """Compute the one-sided p-value of "the mean of `scores` is not above that of `others`".

    The statistic of `measure_effect` is symmetric, so half of its two-sided p-value is the one-sided one; 1 where the
    mean is not above.

    Args:
        scores: of the answers to one history, float64 (R, n).
        others: of those to another, paired in time, float64 (R, n).
        seed: of the bootstrap.
    """
    effect = measure_effect(scores, others, seed=seed)
    return effect.p_value() / 2.0 if effect.value > 0.0 else 1.0


def _divergence(one: np.ndarray, other: np.ndarray) -> float:
    first, second = (np.stack([np.mean(a == sign, axis=0) for sign in (1, -1, 0)]) for a in (one, other))
    middle = (first + second) / 2.0
    return float(np.mean(_entropy(middle) - (_entropy(first) + _entropy(second)) / 2.0))


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Bits of each column."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0.0)
    entropy: np.ndarray = -np.sum(shares * logs, axis=0)
    return entropy
