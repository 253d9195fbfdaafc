"""Whatever comes after a decision changes nothing about it: the whole path, from the file of bars to the record."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from whole_runs import START, config_over, minutes, recorded, run_over, until, with_future

from agent_bt import Decision, FeatureSpec, MarketView, Portfolio, Strategy
from agent_bt.core.clock import to_datetime
from agent_bt.features.specs import KINDS, register

EAGER = "llm.params={eagerness: 0.9}"
CASES = {
    "as shipped": (3, "market.interval=1m", "strategy.every=1h"),
    "gaps dropped, rolling days": (3, "market.gaps=drop", "features.summary=rolling", "strategy.every=30m"),
    "warm-up": (4, "market.start=2024-07-02T07:00Z", "market.warmup=1d", "features.window=20", "strategy.every=45m"),
    "orders that wait": (2, "execution.fill=next_open", "execution.latency_bars=7", "market.gaps=drop"),
    "stops": (2, "risk.stop_loss=0.004", "risk.take_profit=0.006", "strategy.every=20m", "features.window=5"),
    "five minutes, nine days": (9, "market.interval=5m", "strategy.every=2h", "strategy.sizing=equity"),
    "five minutes, gaps dropped": (4, "market.interval=5m", "market.gaps=drop", "features.summary=rolling"),
    "another prompt": (2, "strategy.prompt=btcusdt_trader/v2"),
}


def run_bars(bars: pl.DataFrame, folder: Path, end: datetime, *settings: str, limit: int | None = None):
    folder.mkdir()
    bars.write_parquet(folder / "market.parquet")
    config = config_over(folder / "market.parquet", *settings, folder=folder, end=end)
    return run_over(config, limit=limit).run_dir


def check(tmp_path: Path, case: str, seeds: range) -> None:
    days, *settings = CASES[case]
    end = START + timedelta(days=days)
    bars = minutes(days * 1440)
    whole = recorded(run_bars(bars, tmp_path / "whole", end, EAGER, *settings))
    assert len(whole) > 10
    assert any(b'"fills":[{' in record.content for record in whole)
    draw = np.random.default_rng(len(case))
    for seed in seeds:
        now = to_datetime(whole[int(draw.integers(1, len(whole) - 1))].time)
        # At the decision itself, and in the middle between decisions.
        since = now if seed % 2 else now + timedelta(minutes=7)
        other = minutes(days * 1440, seed=100 + seed)
        changed = recorded(
            run_bars(with_future(bars, other, since), tmp_path / f"changed-{seed}", end, EAGER, *settings)
        )
        assert until(changed, since) == until(whole, since)
        assert [record.content for record in changed] != [record.content for record in whole]
        earlier = recorded(run_bars(bars, tmp_path / f"cut-{seed}", now, EAGER, *settings))
        assert [record.content for record in earlier] == until(whole, now)


@pytest.mark.parametrize("case", CASES)
def test_records_before_a_changed_or_missing_future_stay_the_same(tmp_path: Path, case: str) -> None:
    check(tmp_path, case, range(2))


@pytest.mark.verify
@pytest.mark.parametrize("case", CASES)
def test_records_before_many_changed_futures_stay_the_same(tmp_path: Path, case: str) -> None:
    check(tmp_path, case, range(2, 27))


@pytest.mark.parametrize("limit", [1, 9])
def test_a_limited_run_is_the_beginning_of_the_whole_one(tmp_path: Path, limit: int) -> None:
    end = START + timedelta(days=2)
    whole = recorded(run_bars(minutes(2880), tmp_path / "whole", end, EAGER))
    part = recorded(run_bars(minutes(2880), tmp_path / "part", end, EAGER, limit=limit))
    assert part == whole[:limit]


def test_bars_before_start_are_not_read_without_warm_up(tmp_path: Path) -> None:
    end = START + timedelta(days=4)
    bars, since = minutes(4 * 1440), START + timedelta(days=2)
    other = with_future(minutes(4 * 1440, seed=9), bars, since)
    settings = (EAGER, "market.start=2024-07-03", "features.summary=rolling")
    one, two = (run_bars(each, tmp_path / name, end, *settings) for each, name in ((bars, "one"), (other, "two")))
    assert recorded(one) == recorded(two)
    warm = run_bars(other, tmp_path / "warm", end, *settings, "market.warmup=2d")
    assert recorded(warm) != recorded(one)


class Peeker(Strategy):
    """Trades on a feature that it must not have: the close of the bar after."""

    lookback = 2
    features = (FeatureSpec(column="next", kind="peek"),)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        rising = view.latest("next") > view.latest("close")
        return Decision.to({view.symbols[0]: 1.0 if rising else 0.0})


def test_the_check_finds_a_feature_that_looks_one_bar_ahead(tmp_path: Path) -> None:
    @register("peek", inputs=("close",), params=(), lookback=lambda: 1)
    def _(close: np.ndarray) -> np.ndarray:
        return np.append(close[1:], close[-1])

    try:
        end = START + timedelta(days=1)
        bars, other = minutes(1440, holes=False), minutes(1440, seed=1, holes=False)
        found = []
        for hour in range(3, 8):
            since = START + timedelta(hours=hour)
            mine, theirs = (
                recorded(run_bars(each, tmp_path / f"{hour}-{name}", end, f"strategy.kind={__name__}:Peeker"))
                for name, each in (("whole", bars), ("changed", with_future(bars, other, since)))
            )
            found.append(until(mine, since) != until(theirs, since))
        assert all(found)
    finally:
        del KINDS["peek"]
