"""Sweeps from their file to their folder: what is tried, counted, chosen and held back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest
from scipy import stats
from small_run import cli
from sweep_files import rows_of, slow_way, swept, write_market, write_sweep
from whole_runs import START, minutes, with_future

from agent_bt import run
from agent_bt.cli.schema import sweep_schema_text
from agent_bt.config.yaml import parse_yaml
from agent_bt.core.errors import ConfigError
from agent_bt.evaluation.stats.sharpe import deflated_sharpe
from agent_bt.experiments.sweep import evaluate
from agent_bt.experiments.sweep.plan import plan_sweep
from agent_bt.experiments.sweep.spec import WalkForwardConfig, load_sweep
from agent_bt.experiments.sweep.verdict import judge_best, sentence
from agent_bt.experiments.sweep.walk_forward import windows_of
from agent_bt.records.registry import Registry, identify_trial

MEASURES = ("final_equity", "max_drawdown", "sharpe", "sortino", "win_rate", "trades", "total_return", "volatility")
DAY = 86_400_000_000


def inner(row: dict[str, Any]) -> dict[str, Any]:
    prefix = "strategy.params."
    return {path.removeprefix(prefix): value for path, value in row.items() if path.startswith(prefix)}


def test_every_row_is_what_the_slow_way_gives(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        params={
            "strategy.params.fast": [3, 12],
            "strategy.params.slow": [12, 40],
            "risk.stop_loss": [None, 0.01],
            "execution.fill": ["close", "next_open"],
            "strategy.params.kind": ["sma", "ema"],
        },
    )
    folder, record = swept(path)
    rows = rows_of(folder)
    assert record["combinations"]["tried"] == len(rows) == 3 * 2 * 2 * 2
    assert record["combinations"]["skipped"] == 8
    config = load_sweep(path).config
    for row in rows[::5]:
        risk = config.risk.model_copy(update={"stop_loss": row["risk.stop_loss"]})
        execution = config.execution.model_copy(update={"fill": row["execution.fill"]})
        own, fills = slow_way(config.model_copy(update={"risk": risk, "execution": execution}), inner(row))
        assert {name: row[name] for name in MEASURES} == {name: asdict(own)[name] for name in MEASURES}
        assert row["fills"] == len(fills)
        for name in ("fees", "turnover", "exposure", "profit_factor", "realised_pnl", "slippage"):
            assert row[name] == pytest.approx(getattr(own, name), rel=1e-9)


def test_small_blocks_of_columns_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sweep(tmp_path)
    whole = swept(path)[0].results.read_bytes()
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", 1)
    assert swept(path)[0].results.read_bytes() == whole


def test_a_row_is_the_run_of_that_combination_and_the_same_trial(tmp_path: Path) -> None:
    _, record = swept(write_sweep(tmp_path))
    best = record["best"]
    trials = best_trials(tmp_path, record)
    config = load_sweep(tmp_path / "sweep.yaml").config
    chosen = config.strategy.model_copy(update={"params": inner(best["params"])})
    done = run(config.model_copy(update={"strategy": chosen}))
    own = done.summary["performance"]
    assert {name: best["performance"][name] for name in MEASURES} == {name: own[name] for name in MEASURES}
    assert trials == record["combinations"]["tried"] == best_trials(tmp_path, record)


def best_trials(folder: Path, record: dict[str, Any]) -> int:
    plan = plan_sweep(load_sweep(folder / "sweep.yaml"))
    trial = identify_trial(plan.combinations[0].identity)
    return Registry(folder / "runs").count(trial.series, trial.start, trial.end)


def test_the_same_command_gives_the_same_folder_and_counts_nothing_twice(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, walk_forward={"train": "4d", "test": "2d"})
    folder, record = swept(path)
    before = folder.results.read_bytes(), folder.curves.read_bytes()
    again, second = swept(path)
    assert again == folder
    assert (folder.results.read_bytes(), folder.curves.read_bytes()) == before
    assert {**record, "telemetry": None} == {**second, "telemetry": None}
    assert record["evidence"]["trials"] == 5
    other, third = swept(path, "params.strategy.params.fast=[3, 5]")
    assert other != folder
    assert third["evidence"]["trials"] == 5 + 2


def test_data_after_a_window_does_not_change_its_choice(tmp_path: Path) -> None:
    cut = START + timedelta(days=8)
    history, other = minutes(12 * 1440, seed=5), minutes(12 * 1440, seed=99)
    records = []
    for name, bars in (("one", history), ("two", with_future(history, other, cut))):
        (tmp_path / name).mkdir()
        bars.write_parquet(tmp_path / name / "market.parquet")
        path = write_sweep(tmp_path / name, walk_forward={"train": "4d", "test": "2d"})
        records.append(swept(path)[1])
    one, two = (record["walk_forward"]["windows"] for record in records)
    early = [at for at, row in enumerate(one) if row["train"]["end"] <= f"{cut:%Y-%m-%dT%H:%MZ}"]
    assert len(early) == 3 < len(one) == 4
    for at in early:
        assert (one[at]["chosen"], one[at]["in_sample"]) == (two[at]["chosen"], two[at]["in_sample"])
    assert one[0] == two[0]
    assert one[-1]["in_sample"] != two[-1]["in_sample"]


def test_a_window_is_chosen_and_reported_as_runs_over_its_days_are(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, walk_forward={"train": "4d", "test": "3d"}, metric="total_return")
    folder, record = swept(path)
    config, capital = load_sweep(path).config, 10_000.0
    for row in record["walk_forward"]["windows"]:
        returns = []
        for each in rows_of(folder):
            market = config.market.model_copy(update={**bounds(row["train"]), "warmup": "1d"})
            over = config.model_copy(update={"market": market})
            if row["train"]["start"] != f"{START:%Y-%m-%dT%H:%MZ}":
                returns.append(slow_way(over, inner(each))[0].total_return)
        if returns:
            assert row["chosen"] == int(np.argmax(returns))
            assert row["in_sample"] == max(returns)
        market = config.market.model_copy(update={**bounds(row["test"]), "warmup": "1d"})
        account = config.account.model_copy(update={"cash": capital})
        assert row["capital"] == capital
        expected, _ = slow_way(config.model_copy(update={"market": market, "account": account}), inner(row["params"]))
        assert row["out_of_sample"] == expected.total_return
        capital = expected.final_equity
    assert record["walk_forward"]["performance"]["final_equity"] == capital
    curve = pl.read_parquet(folder.curves).filter(pl.col("curve") == "walk_forward")
    assert curve["equity"][-1] == capital
    assert len(curve) == 8


def bounds(period: dict[str, str]) -> dict[str, str]:
    return {"start": period["start"].removesuffix("T00:00Z"), "end": period["end"].removesuffix("T00:00Z")}


def test_windows_roll_or_are_anchored() -> None:
    rolling = windows_of(WalkForwardConfig(train="4d", test="2d"), 0, 9 * DAY)
    assert [(w.start // DAY, w.cut // DAY, w.end // DAY) for w in rolling] == [(0, 4, 6), (2, 6, 8), (4, 8, 9)]
    anchored = windows_of(WalkForwardConfig(train="4d", test="2d", anchored=True), 0, 9 * DAY)
    assert [w.start for w in anchored] == [0, 0, 0]
    assert [w.cut for w in anchored] == [w.cut for w in rolling]


def test_the_best_is_deflated_by_the_trials_and_their_spread(tmp_path: Path) -> None:
    folder, record = swept(write_sweep(tmp_path))
    config = load_sweep(tmp_path / "sweep.yaml").config
    curve = pl.read_parquet(folder.curves).filter(pl.col("curve") == "best")["equity"].to_numpy()
    returns = np.diff(np.concatenate([[config.account.cash], curve])) / np.concatenate([[10_000.0], curve[:-1]])
    ratios = np.array([row["sharpe"] for row in rows_of(folder)]) / math.sqrt(365)
    expected = deflated_sharpe(
        float(returns.mean() / returns.std(ddof=1)), observations=len(returns), skew=float(stats.skew(returns)),
        kurtosis=float(stats.kurtosis(returns, fisher=False)), trials=5, trial_variance=float(ratios.var(ddof=1)),
    )  # fmt: skip
    assert record["evidence"]["dsr"] == pytest.approx(expected, rel=1e-9)


def test_the_sentence_follows_the_numbers() -> None:
    draw = np.random.default_rng(3)
    luck = [draw.normal(0.0, 0.01, 200) for _ in range(50)]
    ratios = [each.mean() / each.std() for each in luck]
    best = luck[int(np.argmax(ratios))]
    judged = judge_best(best, luck, trials=50)
    assert 0.0 < judged["dsr"] < 0.9
    assert "without skill" in sentence(judged)
    assert "50 variants were tried" in sentence(judged)
    # As many trials by chance alone reach about 2.25 standard deviations.
    assert judged["expected_best"] == pytest.approx(2.25 * judged["trial_sharpe_deviation"], rel=0.02)
    assert judge_best(best, luck, trials=5000)["dsr"] < judged["dsr"]
    lost = judge_best(-np.abs(best), [*luck, -np.abs(best)], trials=51)
    assert sentence(lost).endswith("Even the best lost money.")
    flat = judge_best(np.zeros(200), luck, trials=50)
    assert "its Sharpe ratio is undefined" in sentence(flat)


def test_a_random_search_is_a_part_of_the_grid_and_repeats(tmp_path: Path) -> None:
    params = {"strategy.params.fast": {"from": 2, "to": 30, "step": 1}, "strategy.params.slow": list(range(10, 60, 5))}
    path = write_sweep(tmp_path, params=params, search="random", samples=12)
    one, two = ([inner(row) for row in rows_of(swept(path, f"seed={seed}")[0])] for seed in (1, 2))
    assert len(one) == len(two) == 12
    assert one != two
    assert one == [inner(row) for row in rows_of(swept(path, "seed=1")[0])]
    for row in one:
        assert 2 <= row["fast"] <= 30
        assert row["fast"] < row["slow"] in params["strategy.params.slow"]
    assert len({tuple(row.values()) for row in one}) == 12


def test_ranges_are_exact_and_include_both_ends(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, params={"risk.stop_loss": {"from": 0.1, "to": 0.5, "step": 0.1}})
    assert load_sweep(path).params["risk.stop_loss"] == (0.1, 0.2, 0.3, 0.4, 0.5)
    path = write_sweep(tmp_path, params={"strategy.params.slow": {"from": 20, "to": 45, "step": 10}})
    assert load_sweep(path).params["strategy.params.slow"] == (20, 30, 40)


def test_a_sweep_of_rankers_over_several_symbols(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        params={"strategy.params.top_n_long": [1, 2], "strategy.params.lookback_col": ["return_3", "return_12"]},
        set={
            "mode": "cross_sectional", "market.source": "sample", "market.interval": "1h", "rebalance": "D",
            "strategy.kind": "momentum", "market.symbols": ["AUSDT", "BUSDT", "CUSDT"], "strategy.every": "1h",
        },
    )  # fmt: skip
    folder, record = swept(path)
    assert record["banners"][0].startswith("SAMPLE MARKET")
    config = load_sweep(path).config
    for row in rows_of(folder)[::3]:
        own, fills = slow_way(config, inner(row))
        assert {name: row[name] for name in MEASURES} == {name: asdict(own)[name] for name in MEASURES}
        assert row["fills"] == len(fills) > 0


OWN = '''
from agent_bt import Decision, Strategy


class Streak(Strategy):
    """Buys after some falling closes in a row, sells after one that rises; looks at what it holds."""

    def __init__(self, falls: int) -> None:
        self.lookback = falls + 1

    def decide(self, view, portfolio):
        closes = view.column("close")
        held = bool(portfolio.positions)
        if not held and (closes[1:] < closes[:-1]).all():
            return Decision.buy(view.symbols[0], 1.0)
        if held and closes[-1] > closes[-2]:
            return Decision.sell(view.symbols[0], 1.0)
        return Decision.hold()
'''


def test_a_strategy_without_decide_all_runs_stepwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "streaks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = write_sweep(
        tmp_path, days=4, params={"strategy.params.falls": [2, 3]},
        set={"strategy.kind": "streaks:Streak", "strategy.every": "1h"},
    )  # fmt: skip
    folder, record = swept(path)
    config = load_sweep(path).config
    for row in rows_of(folder):
        own, fills = slow_way(config, inner(row))
        assert {name: row[name] for name in asdict(own)} == asdict(own)
        assert row["fills"] == len(fills) > 0
    assert record["evidence"]["trials"] == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"params": {"strategy.params.fast": []}}, "must have at least one value, got an empty list"),
        ({"params": {"strategy.params.fast": 5}}, "must be a list, .*, got 5"),
        ({"params": {"strategy.params.fast": [5, 5]}}, "must list every value once, got 5 twice"),
        ({"params": {"strategy.params.fast": {"from": "a", "to": 5, "step": 1}}}, "from must be a number, got 'a'"),
        ({"params": {"strategy.params.fast": {"from": 9, "to": 5, "step": 1}}}, "is empty; step must be above 0"),
        ({"params": {"strategy.params.fast": {"from": 1, "to": 5}}}, "a range must have from, to and step"),
        ({"params": {"strategy.params.fast": {"from": 1, "to": 9e9, "step": 1}}}, "must have at most 50,000 values"),
        ({"params": {"strategy.params.a": list(range(300)), "strategy.params.b": list(range(300))}}, "got 90,000"),
        ({"params": {"strategi.params.fast": [5]}}, "strategi"),
        ({"params": {"risk.stop_los": [0.1]}}, "did you mean risk.stop_loss"),
        ({"params": {"market.start": ["2024-07-01"]}}, "cannot vary"),
        ({"params": {"llm.temperature": [0, 1]}}, "cannot vary"),
        ({"params": {"strategy.params.fats": [5, 6]}}, "none of 2 combinations is valid"),
        ({"params": {"execution.fill": ["clse"]}}, "none of 1 combinations is valid"),
        ({"params": {}}, "params must name what varies"),
        ({"metric": "sharp"}, "did you mean sharpe"),
        ({"serch": "grid"}, "did you mean search"),
        ({"walk_forward": {"train": "20d", "test": "2d"}}, "longer than the data"),
        ({"walk_forward": {"train": "2d", "test": "6h"}}, "test at least 1d"),
        ({"walk_forward": {"train": "2d"}}, "walk_forward.test is missing"),
        ({"set": {"strategy.kind": "agent"}}, "agent-bt ab run"),
        ({"params": {"strategy.kind": ["agent"]}}, "agent-bt ab run"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_sweep(load_sweep(write_sweep(tmp_path, days=4, **keys)))


def test_the_command_prints_writes_and_exits_with_0(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, days=8, walk_forward={"train": "4d", "test": "2d"})
    result = cli("sweep", path, "--progress", "none")
    assert result.code == 0, result.err
    assert "BEST ON THIS DATA" in result.out
    assert "WALK-FORWARD" in result.out
    assert "biased" in result.out
    made = Path(result.err.strip().splitlines()[-1])
    assert made.name == "report.html"
    assert "variants were tried" in made.read_text(encoding="utf-8")
    again = cli("sweep", path, "--json", "--no-report")
    assert again.json["sweep_id"] == made.parent.name
    assert cli("sweep", tmp_path / "swep.yaml").code == 2
    assert cli("sweep", path, "--set", "metric=fun").code == 2
    clash = cli("sweep", path, "--set", "strategy.params.fast=3")
    assert clash.code == 2
    assert "the sweep varies it" in clash.err


def test_a_market_on_which_nothing_trades_gets_a_warning(tmp_path: Path) -> None:
    write_market(tmp_path / "market.parquet", days=4)
    path = write_sweep(tmp_path, days=4, params={"strategy.params.lookback": [3, 6], "strategy.params.threshold": [9]},
                       set={"strategy.kind": "momentum_rule"})  # fmt: skip
    folder, record = swept(path)
    assert record["best"] is None
    assert any("none traded" in warning for warning in record["warnings"])
    assert rows_of(folder)[0]["trades"] == 0
    assert cli("sweep", path, "--progress", "none").code == 0


def test_the_shipped_sweep_is_valid_and_its_schema_current() -> None:
    root = Path(__file__).parents[3]
    kept = (root / "configs" / "sweep-schema.json").read_text(encoding="utf-8")
    assert kept == sweep_schema_text(), "write it again: agent-bt schema --sweep -o configs/sweep-schema.json"
    shipped = (root / "configs" / "sweep.yaml").read_text(encoding="utf-8")
    assert shipped.startswith("# yaml-language-server: $schema=sweep-schema.json\n")
    jsonschema.validate(parse_yaml(shipped).data, json.loads(kept))
    assert load_sweep(root / "configs" / "sweep.yaml").size == 144


def test_a_sweep_of_perpetuals_with_funding_and_shorts(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        params={"strategy.params.fast": [3, 6], "strategy.params.slow": [24], "risk.max_leverage": [1.0, 2.0]},
        set={
            "market.kind": "um", "market.source": "sample", "risk.allow_short": True,
            "strategy.params.allow_short": True, "risk.max_daily_loss": 0.03,
        },
    )  # fmt: skip
    folder, _ = swept(path)
    config = load_sweep(path).config
    for row in rows_of(folder):
        risk = config.risk.model_copy(update={"max_leverage": row["risk.max_leverage"]})
        own, fills = slow_way(config.model_copy(update={"risk": risk}), {**inner(row), "allow_short": True})
        assert {name: row[name] for name in MEASURES} == {name: asdict(own)[name] for name in MEASURES}
        assert row["funding"] == own.funding != 0.0
        assert row["fills"] == len(fills) > 10
