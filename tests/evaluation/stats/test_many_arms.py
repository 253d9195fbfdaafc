"""Holm's procedure, the probability of overfitting, and power, against other libraries and slow ways."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from statsmodels.stats.multitest import multipletests

from agent_bt.evaluation.stats.multiple import adjust_holm, holm_levels
from agent_bt.evaluation.stats.pbo import backtest_overfitting
from agent_bt.evaluation.stats.power import smallest_detectable


@given(p_values=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
@settings(max_examples=12)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    rejected, adjusted, _, _ = multipletests(p_values, alpha=0.05, method="holm")
    assert adjust_holm(p_values) == pytest.approx(adjusted, abs=1e-12)
    levels = holm_levels(p_values, 0.05)
    assert [p <= level for p, level in zip(p_values, levels, strict=True)] == rejected.tolist()


@pytest.mark.parametrize("score", ["sharpe", "mean"])
def test_overfitting_is_that_of_the_definition(score: str) -> None:
    returns = np.random.default_rng(1).standard_normal((50, 9)) + np.linspace(0, 0.2, 9)
    blocks = np.array_split(returns[2:], 8)

    def scores(rows: np.ndarray) -> np.ndarray:
        return rows.mean(axis=0) / (rows.std(axis=0) if score == "sharpe" else 1.0)

    logits = []
    for chosen in combinations(range(8), 4):
        inside = np.concatenate([blocks[b] for b in chosen])
        outside = np.concatenate([blocks[b] for b in range(8) if b not in chosen])
        rank = rankdata(scores(outside))[np.argmax(scores(inside))] / 10
        logits.append(np.log(rank / (1 - rank)))
    found = backtest_overfitting(returns, blocks=8, score=score)  # type: ignore[arg-type]
    assert found.logits == pytest.approx(logits, abs=1e-9)
    assert found.probability == np.mean(np.array(logits) <= 1e-12)


def test_overfitting_of_noise_is_high_and_of_a_real_edge_none() -> None:
    rng = np.random.default_rng(2)
    noise = [backtest_overfitting(rng.standard_normal((120, 10))).probability for _ in range(30)]
    assert 0.35 < np.mean(noise) < 0.75
    edge = rng.standard_normal((120, 10)) + np.eye(10)[3]
    assert backtest_overfitting(edge).probability < 0.01


def test_equal_arms_rank_in_the_middle() -> None:
    same = np.repeat(np.random.default_rng(3).standard_normal((64, 1)), 8, axis=1)
    assert backtest_overfitting(same).logits == pytest.approx(0.0)


@pytest.mark.parametrize(("shape", "blocks"), [((100, 1), 8), ((100, 5), 7), ((10, 5), 8), ((3, 5), None)])
def test_overfitting_says_what_it_needs(shape: tuple[int, int], blocks: int | None) -> None:
    with pytest.raises(ValueError, match="needs 2 arms"):
        backtest_overfitting(np.ones(shape), blocks=blocks)


def test_smallest_detectable_effect_has_its_power() -> None:
    effect = smallest_detectable(0.7, 1.96, power=0.8)
    assert norm.sf(1.96 - effect / 0.7) == pytest.approx(0.8)
