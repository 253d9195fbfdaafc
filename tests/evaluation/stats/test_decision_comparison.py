"""Decision-level comparison against hand-made examples and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from agent_bt.evaluation.stats.decisions import (
    ACTIONS,
    agreement,
    attribute_flips,
    flip_matrix,
    per_decision,
    wilson_rate,
)

PAIRS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(ACTIONS)), min_size=1, max_size=40)


def test_flips_are_counted_by_pair() -> None:
    baseline = ["BUY", "HOLD", "HOLD", "SELL", "HOLD"]
    arm = ["BUY", "BUY", "HOLD", "HOLD", "BUY"]
    # Rows: the baseline bought, sold, held; columns: the arm did.
    assert flip_matrix(baseline, arm).tolist() == [[1, 0, 0], [0, 0, 1], [2, 0, 1]]


@given(pairs=PAIRS)
@settings(max_examples=40)
def test_agreement_is_that_of_statsmodels(pairs: list[tuple[str, str]]) -> None:
    matrix = flip_matrix([a for a, _ in pairs], [b for _, b in pairs])
    found = agreement(matrix)
    assert found.rate.share == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    if found.kappa is not None:
        assert found.kappa == pytest.approx(cohens_kappa(matrix, return_results=False))
    else:
        assert len({a for a, _ in pairs} | {b for _, b in pairs}) == 1


@given(total=st.integers(1, 3000), share=st.floats(0, 1), alpha=st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=50)
def test_rate_limits_are_those_of_statsmodels(total: int, share: float, alpha: float) -> None:
    cases = round(share * total)
    low, high = proportion_confint(cases, total, alpha=alpha, method="wilson")
    found = wilson_rate(cases, total, alpha=alpha)
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-9)
    assert found.low <= found.share <= found.high


def test_differences_belong_to_the_last_flip() -> None:
    baseline = ["HOLD", "HOLD", "HOLD", "SELL", "HOLD"]
    arm = ["HOLD", "BUY", "HOLD", "HOLD", "HOLD"]
    found = attribute_flips(baseline, arm, np.array([0.5, 1.0, 2.0, -4.0, 8.0]))
    assert found.before == 0.5
    assert found.by_flip.tolist() == [[0, 0, 0], [0, 0, 4.0], [3.0, 0, 0]]


@given(pairs=PAIRS, seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_flips_and_the_time_before_account_for_everything(pairs: list[tuple[str, str]], seed: int) -> None:
    differences = np.random.default_rng(seed).standard_normal(len(pairs))
    found = attribute_flips([a for a, _ in pairs], [b for _, b in pairs], differences)
    assert found.before + found.by_flip.sum() == pytest.approx(differences.sum(), abs=1e-9)
    assert np.trace(found.by_flip) == 0.0


def test_unknown_costs_are_counted_and_not_free() -> None:
    found = per_decision(np.array([1.0, np.nan, 3.0, 5.0]))
    assert (found.total, found.mean, found.median, found.unknown) == (9.0, 3.0, 3.0, 1)
    assert found.p95 == pytest.approx(4.8)
    assert per_decision(np.array([np.nan])).mean is None


def test_bad_decisions_are_named() -> None:
    with pytest.raises(ValueError, match="'TARGETS' is none of"):
        flip_matrix(["BUY"], ["TARGETS"])
    with pytest.raises(ValueError, match="same decisions"):
        flip_matrix(["BUY"], [])
    with pytest.raises(ValueError, match="one for each decision"):
        attribute_flips(["BUY"], ["SELL"], np.zeros(2))
    with pytest.raises(ValueError, match="3 of 2"):
        wilson_rate(3, 2)
