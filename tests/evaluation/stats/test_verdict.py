"""Verdicts: outcome, wording, warnings and machine-readable form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent_bt.core.canonical import canonical
from agent_bt.core.clock import DAY, HOUR, time_us
from agent_bt.evaluation.stats.caveats import Arm
from agent_bt.evaluation.stats.verdict import Comparison, Verdict, judge

DAYS = 60
BARS = 24 * DAYS
TIMES = time_us("2024-07-01") + HOUR * np.arange(1, BARS + 1)
MARKET = 0.005 * np.random.default_rng(1).standard_normal(BARS)
REQUIRED = {
    "arm",
    "verdict",
    "metric",
    "effect",
    "ci_low",
    "ci_high",
    "p_value",
    "mde",
    "alpha",
    "trials",
    "psr",
    "dsr",
}


def arm(name: str, *, edge_bps: float = 0.0, seed: int = 0, replicates: int = 3, **facts: Any) -> Arm:
    """Follows half of the market, scatters by 10 bps an hour, and earns `edge_bps` a day."""
    scatter = 0.001 * np.random.default_rng([2, seed]).standard_normal((replicates, BARS))
    return Arm(name=name, returns=0.5 * MARKET + scatter + edge_bps / 1e4 / 24, **facts)


def compare(*arms: Arm, **options: Any) -> Comparison:
    return judge(arms, baseline="v1", times=TIMES, **({"resamples": 999, "seed": 3} | options))


def single(challenger: Arm, baseline: Arm | None = None, **options: Any) -> Verdict:
    return compare(baseline or arm("v1"), challenger, **options).verdicts[0]


@pytest.mark.parametrize(("edge_bps", "outcome"), [(40.0, "better"), (-40.0, "worse"), (0.5, "cannot_tell")])
def test_outcome_follows_a_planted_edge(edge_bps: float, outcome: str) -> None:
    found = single(arm("v2", edge_bps=edge_bps, seed=1))
    assert found.verdict == outcome
    assert found.ci_low is not None and found.ci_high is not None
    assert found.ci_low < edge_bps < found.ci_high
    assert found.unit == "bps a day"
    assert not found.warnings
    assert (outcome == "cannot_tell") == (found.p_value > 0.05) == (found.ci_low < 0 < found.ci_high)


def test_sentences_say_the_verdict_and_what_it_would_have_needed() -> None:
    better = single(arm("v2", edge_bps=40.0, seed=1))
    assert better.sentence.startswith(f"v2 is better than v1 by {better.effect:.3g} bps a day (95% interval ")
    unsure = single(arm("v2", seed=1))
    assert unsure.sentence.startswith(f"Cannot tell v2 from v1: {unsure.effect:+.3g} bps a day (95% interval ")
    assert f"it would have needed an effect of {unsure.mde:.3g} bps a day" in unsure.sentence


def test_equal_arms_are_identical_and_nothing_can_be_told() -> None:
    found = single(Arm(name="v2", returns=arm("v1").returns.copy()))
    assert (found.verdict, found.effect, found.p_value, found.warnings) == (
        "cannot_tell",
        0.0,
        1.0,
        ("arms identical",),
    )
    assert (found.ci_low, found.ci_high) == (0.0, 0.0)
    assert found.sentence == "Cannot tell v2 from v1: the arms are identical."


def test_machine_readable_form_is_json_and_has_every_key() -> None:
    comparison = compare(arm("v1"), arm("v2", seed=1), market_returns=MARKET)
    content = comparison.to_dict()
    assert REQUIRED | {"warnings"} <= set(content["verdicts"][0])
    assert canonical(content)
    assert content["verdicts"][0]["alpha"] == 0.05
    assert content["verdicts"][0]["trials"] == 2


@pytest.mark.parametrize(
    ("challenger", "baseline", "options", "warning"),
    [
        ({"trade_results": [[0.01] * 3] * 3}, {}, {}, "too few trades (v2: 3 in a run)"),
        ({}, {"trade_results": [[0.01] * 5] * 3}, {}, "too few trades (v1: 5 in a run)"),
        (
            {"response_format": "json_schema"},
            {"response_format": "text"},
            {},
            "the arms have different response formats (json_schema and text)",
        ),
        ({"decisions": 1000, "failed": 30}, {}, {}, "3.0% of the decisions of v2 failed"),
        ({}, {}, {"knowledge_cutoff": int(TIMES[0]) + 15 * DAY - HOUR}, "25% of the bars are before the model's"),
        ({"replicates": 1}, {"replicates": 1}, {}, "one replicate: the model's noise is unknown"),
        (
            {"trade_results": [[0.2, *[0.001, -0.001] * 15]]},
            {"trade_results": [[0.001] * 30]},
            {},
            "one trade makes the whole difference",
        ),
    ],
)
def test_warnings_change_the_wording(
    challenger: dict[str, Any], baseline: dict[str, Any], options: dict[str, Any], warning: str
) -> None:
    found = single(arm("v2", edge_bps=60.0, seed=1, **challenger), arm("v1", **baseline), **options)
    assert any(text.startswith(warning) for text in found.warnings), found.warnings
    assert len(found.warnings) == 1
    assert found.sentence.startswith("v2 looks better than v1")
    assert f", but {found.warnings[0]}" in found.sentence


def test_healthy_facts_warn_of_nothing() -> None:
    facts = {"trade_results": [[0.01, -0.005] * 20] * 3, "decisions": 1000, "failed": 5, "response_format": "text"}
    found = single(arm("v2", seed=1, **facts), arm("v1", **facts), knowledge_cutoff=int(TIMES[0]) - HOUR)
    assert found.warnings == ()


def test_one_stretch_of_differences_makes_the_whole_difference() -> None:
    base = arm("v1")
    returns = base.returns.copy()
    returns[:, 500:520] += 0.01
    returns[:, 100:110] -= 0.0001
    found = single(Arm(name="v2", returns=returns), base)
    assert found.verdict == "cannot_tell"
    assert "one trade makes the whole difference" in found.warnings


def test_poorly_known_model_noise_is_said() -> None:
    found = single(arm("v2", seed=1), arm("v1"))
    assert found.model_noise is not None
    assert found.notes[0].startswith("few replicates: the model's noise, ")
    assert not any("one replicate" in text for text in found.warnings)


def test_bull_and_bear_days_are_told_apart() -> None:
    days = MARKET.reshape(DAYS, 24)
    rising = np.repeat(np.prod(1 + days, axis=1) > 1, 24)
    base = arm("v1")
    challenger = Arm(name="v2", returns=arm("v2", seed=1).returns + np.where(rising, 30.0, -20.0) / 1e4 / 24)
    found = single(challenger, base, market_returns=MARKET)
    bull, bear = found.regimes
    assert (bull.regime, bear.regime) == ("bull", "bear")
    assert bull.days + bear.days == DAYS
    assert bull.ci_low is not None and bull.ci_high is not None and bull.ci_low < 30.0 < bull.ci_high
    assert bear.ci_low is not None and bear.ci_high is not None and bear.ci_low < -20.0 < bear.ci_high
    difference = (challenger.returns.mean(axis=0) - base.returns.mean(axis=0))[rising]
    assert bull.effect == pytest.approx(1e4 * 24 * difference.mean())
    whole = (bull.effect * bull.days + bear.effect * bear.days) / DAYS
    assert whole == pytest.approx(found.effect)


def test_several_arms_share_one_alpha() -> None:
    arms = [arm("v1"), *(arm(f"v{k}", seed=k) for k in range(2, 7)), arm("good", edge_bps=40.0, seed=9)]
    found = compare(*arms)
    by_name = {verdict.arm: verdict for verdict in found.verdicts}
    assert by_name["good"].verdict == "better"
    assert by_name["good"].p_value == pytest.approx(6 * by_name["good"].p_single)
    for verdict in found.verdicts:
        assert verdict.p_value >= verdict.p_single
        assert verdict.ci_low is not None and verdict.ci_high is not None
        assert (verdict.verdict == "cannot_tell") == (verdict.ci_low <= 0.0 <= verdict.ci_high)
    assert found.spa is not None and found.spa.arm == "good" and found.spa.p_value < 0.05
    assert found.pbo is None


def test_best_of_many_is_tested_from_three_arms_and_overfitting_from_eight() -> None:
    arms = [arm(f"v{k}", seed=k) for k in range(1, 9)]
    assert compare(*arms[:2]).spa is None
    assert compare(*arms[:3]).spa is not None
    assert compare(*arms[:7]).pbo is None
    eight = compare(*arms)
    assert eight.pbo is not None and 0.0 <= eight.pbo <= 1.0
    assert eight.pbo_blocks == 14


def test_trials_of_the_registry_deflate() -> None:
    challenger, base = arm("v2", edge_bps=20.0, seed=1), arm("v1")
    few, many = (single(challenger, base, trials=trials) for trials in (2, 500))
    assert (few.trials, many.trials) == (2, 500)
    assert few.psr == many.psr
    assert few.psr is not None and few.dsr is not None and many.dsr is not None
    assert many.dsr < few.dsr < few.psr


@pytest.mark.parametrize("metric", ["mean_return", "total_return", "sharpe", "sortino"])
def test_every_metric_sees_a_large_edge(metric: str) -> None:
    found = single(arm("v2", edge_bps=150.0, seed=1), arm("v1"), metric=metric)
    assert (found.verdict, found.metric) == ("better", metric)


def test_equal_seeds_give_equal_verdicts() -> None:
    arms = [arm("v1"), arm("v2", seed=1), arm("v3", seed=2)]
    assert compare(*arms).to_dict() == compare(*arms).to_dict()
    assert compare(*arms).to_dict() != compare(*arms, seed=4).to_dict()


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([arm("v1")], "give two or more names, each once"),
        ([arm("v1"), arm("v1")], "give two or more names, each once"),
        ([arm("v2"), arm("v3")], "with baseline 'v1'"),
        ([arm("v1"), Arm(name="v2", returns=np.zeros((1, 5)))], "arm 'v2' has returns of shape"),
        ([arm("v1"), Arm(name="v2", returns=np.zeros(BARS))], "arm 'v2' has returns of shape"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(arms: list[Arm], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(*arms)
