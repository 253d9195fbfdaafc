"""The leak check's verdict: which kinds of memory show, each with a p-value, all of them together at one level.

A model has remembered if it foresees more than it could have read:
- `masked`: with symbol, dates and levels it foresees what it does not foresee without them
- `mirrored`, `shuffled`, `shifted`: shown a market that never was, it still foresees the one that was. Every innocent
  reason must fall (Berger 1982): no foresight at all, as much as behind the mask, and the mirror image of that
- `recall`: it knows prices by their date alone
Holm's procedure keeps the chance that an innocent model is flagged at all below `alpha`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agent_bt.evaluation.leakcheck.measures import Answers, Foresight, Response, compare, foresight, p_above
from agent_bt.evaluation.leakcheck.recall import Recall
from agent_bt.evaluation.stats.multiple import adjust_holm

PLAIN, MASKED = "plain", "masked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question: how far it speaks for memory, its p-value, Holm's over all questions, and whether it flags."""

    name: str
    p_single: float
    p_value: float
    flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakVerdict:
    """What the probes of a model came to; `flagged` if any test is. Foresights and responses by history.

    `failed` is the largest share of answers about one history that were not valid.
    """

    flagged: bool
    alpha: float
    decisions: int
    replicates: int
    failed: float
    tests: tuple[Question, ...]
    foresight: Mapping[str, float]
    responses: Mapping[str, Response]
    recall: Recall | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "flagged": self.flagged,
            "alpha": self.alpha,
            "decisions": self.decisions,
            "replicates": self.replicates,
            "failed": self.failed,
            "tests": [asdict(test) for test in self.tests],
            "foresight": dict(self.foresight),
            "responses": {name: asdict(response) for name, response in self.responses.items()},
            "recall": None if self.recall is None else self.recall.to_dict(),
        }


def judge_memory(
    answers: Mapping[str, Answers],
    next_returns: np.ndarray,
    recall: Recall | None,
    *,
    alpha: float = 0.01,
    seed: int,
) -> LeakVerdict:
    """Judge what a model answered.

    Args:
        answers: by history: `plain`, `masked`, and the counterfactual ones, over the same n >= 2 decisions.
        next_returns: of the real market from each decision to the next, float64 (n,).
        recall: the scored recall probes, if there were any days to ask about.
        alpha: chance of flagging a model that remembers nothing.
        seed: of the resampling.
    """
    seen = {name: foresight(given, next_returns) for name, given in answers.items()}
    singles = {
        MASKED: max(_above(seen[PLAIN], seen[MASKED].scores, seed), _above(seen[PLAIN], None, seed)),
        **{
            name: max(
                _above(found, None, seed),
                _above(found, seen[MASKED].scores, seed),
                _above(found, -seen[MASKED].scores, seed),
            )
            for name, found in seen.items()
            if name not in (PLAIN, MASKED)
        },
    }
    if recall is not None and recall.asked > 1:
        singles["recall"] = p_above(recall.hits[None], recall.expected[None], seed=seed)
    adjusted = adjust_holm(list(singles.values()))
    tests = tuple(
        Question(name=name, p_single=single, p_value=p, flagged=p <= alpha)
        for (name, single), p in zip(singles.items(), adjusted, strict=True)
    )
    plain = answers[PLAIN]
    return LeakVerdict(
        flagged=any(test.flagged for test in tests),
        alpha=alpha,
        decisions=plain.actions.shape[1],
        replicates=plain.actions.shape[0],
        failed=max(given.failed for given in answers.values()),
        tests=tests,
        foresight={name: found.score for name, found in seen.items()},
        responses={name: compare(plain, given) for name, given in answers.items() if name != PLAIN},
        recall=recall,
    )


def _above(found: Foresight, others: np.ndarray | None, seed: int) -> float:
    return p_above(found.scores, np.zeros_like(found.scores) if others is None else others, seed=seed)
