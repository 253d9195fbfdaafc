"""Values over time average to the metric, and spread as the metric does."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from agent_bt.core.clock import DAY, HOUR, MINUTE, time_us
from agent_bt.core.errors import ConfigError
from agent_bt.evaluation import metrics, verdict_metrics
from agent_bt.evaluation.stats.bootstrap import mean_error
from agent_bt.evaluation.stats.measures import (
    MAX_UNITS,
    daily_returns,
    values_over_time,
)
from agent_bt.evaluation.stats.metric import METRICS, find_metric
from agent_bt.evaluation.verdict_metrics.sharpe import sharpe_values
from agent_bt.evaluation.verdict_metrics.sortino import sortino_values

RNG = np.random.default_rng(23)
START = time_us("2024-07-01")


def hourly(days: int, scale: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    times = START + HOUR * np.arange(1, 24 * days + 1)
    return times, scale * RNG.standard_normal((2, 24 * days)) + scale / 20


def test_ratios_average_to_the_headline_metrics() -> None:
    times, returns = hourly(60)
    for row in returns:
        daily = metrics.daily_returns(times, np.cumprod(1 + row), 1.0)
        expected = {"sharpe": metrics.sharpe_ratio(daily), "sortino": metrics.sortino_ratio(daily)}
        for name, value in expected.items():
            values = values_over_time(find_metric(name), row[None], times, bars_per_decision=1)
            assert values.shape == (1, 60)
            assert values.mean() == pytest.approx(value, rel=1e-9)


def test_returns_average_to_bps_a_day() -> None:
    times, returns = hourly(60)
    for unit in (1, 4, 7):
        values = values_over_time(find_metric("mean_return"), returns, times, bars_per_decision=unit)
        assert values.shape == (2, math.ceil(24 * 60 / unit))
        assert values.mean(axis=1) == pytest.approx(1e4 * returns.sum(axis=1) / 60)
        grown = values_over_time(find_metric("total_return"), returns, times, bars_per_decision=unit)
        assert grown.mean(axis=1) == pytest.approx(1e4 * np.log(np.prod(1 + returns, axis=1)) / 60)


def test_minutes_are_summed_to_whole_decisions() -> None:
    times = START + MINUTE * np.arange(1, 90 * 1440 + 1)
    returns = RNG.standard_normal((1, len(times)))
    assert values_over_time(find_metric("mean_return"), returns, times, bars_per_decision=60).shape == (1, 2160)
    assert values_over_time(find_metric("mean_return"), returns, times, bars_per_decision=1).shape[1] <= MAX_UNITS


@pytest.mark.parametrize("ratio", [sharpe_values, sortino_values])
def test_influence_has_the_standard_error_of_the_ratio(ratio) -> None:  # type: ignore[no-untyped-def]
    n = 300
    sample = 0.1 + RNG.standard_t(8, size=(4000, n))
    values = ratio(sample)
    errors = mean_error(values[:200], 1.0)
    assert np.std(values.mean(axis=1)) == pytest.approx(np.median(errors), rel=0.06)


def test_arms_without_variance_or_loss_count_as_zero() -> None:
    assert sharpe_values(np.zeros((2, 10))).tolist() == np.zeros((2, 10)).tolist()
    assert sortino_values(np.full((1, 10), 0.01)).tolist() == np.zeros((1, 10)).tolist()


def test_daily_returns_are_those_of_the_report() -> None:
    times, returns = hourly(5)
    shifted = times + 5 * HOUR
    expected = metrics.daily_returns(shifted, np.cumprod(1 + returns[0]), 1.0)
    assert daily_returns(returns, shifted)[0] == pytest.approx(expected)
    assert len(expected) == 6
    assert (shifted[-1] - START) // DAY == 5


def test_an_unknown_metric_lists_what_there_is_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'luck' is not one of mean_return, sharpe, sortino, total_return"):
        find_metric("luck")
    with pytest.raises(ConfigError, match="did you mean"):
        find_metric("sharp")


def test_a_metric_of_the_users_own_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    page = (Path(__file__).parents[3] / "docs" / "extending.md").read_text()
    (code,) = re.findall(r"```python\n# losses\.py\n(.*?)```", page, flags=re.DOTALL)
    Path("downside_metric.py").write_text(code + "NOTHING = 3\n")
    metric = find_metric("downside_metric:LOSSES")
    returns, times = np.array([[0.01, -0.02, 0.0]]), START + np.arange(1, 4) * DAY
    values = values_over_time(metric, returns, times, bars_per_decision=1)
    assert values[0] == pytest.approx([0.0, -200.0, 0.0])
    with pytest.raises(ConfigError, match="must be a Metric"):
        find_metric("downside_metric:NOTHING")
    with pytest.raises(ConfigError, match="has no class MISSING"):
        find_metric("downside_metric:MISSING")


def test_a_shipped_metric_is_one_file_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_metrics, "__path__", [*verdict_metrics.__path__, str(tmp_path)])
    (tmp_path / "worst_day.py").write_text(
        "from agent_bt.evaluation.stats.metric import Metric, register_metric\n"
        "register_metric(Metric(name='worst_day', unit='1', daily=True, values=lambda r: r))\n"
    )
    monkeypatch.setattr(METRICS, "_registered", dict(METRICS._registered))
    assert "worst_day" in METRICS.names()
    assert find_metric("worst_day").unit == "1"
