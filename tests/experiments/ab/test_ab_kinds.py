"""A/B over strategies of different kinds: an agent and a rule, rankers and agent rankers, what cannot be compared."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest
from ab_files import loaded, run, write_experiment
from rich.console import Console

from agent_bt.cli.schema import experiment_schema_text
from agent_bt.config.yaml import parse_yaml
from agent_bt.core.errors import ConfigError
from agent_bt.experiments.ab.cells import cells_of
from agent_bt.experiments.ab.evidence import bars_per_decision, common_bars
from agent_bt.experiments.ab.pairs import overlap, read_targets, unchanged_count
from agent_bt.experiments.ab.report import write_ab_report
from agent_bt.experiments.ab.spec import load_experiment
from agent_bt.experiments.ab.terminal import render
from agent_bt.records.read import Run, load_run
from agent_bt.records.registry import identify_trial

ROOT = Path(__file__).parents[3]
TRADERS = """
name: base
market: {start: 2024-07-01, end: 2024-07-08, interval: 1h, warmup: 4d}
features: {window: 30}
llm: {params: {eagerness: 0.9}}
strategy: {kind: agent, every: 2h}
"""
RANKERS = """
name: base
mode: cross_sectional
rebalance: 12h
market: {start: 2024-07-01, end: 2024-07-08, interval: 1h, warmup: 3d}
strategy: {kind: agent_ranker, prompt: panel_ranker/v1, params: {columns: [return_24]}}
"""
SPOKEN = '''
"""Rules that say at every decision what they want, so that all of their decisions are recorded."""
from agent_bt import Strategy
from agent_bt.strategies.registry import create_strategy

class Spoken(Strategy):
    def __init__(self, fast=4, slow=12):
        self.rule = create_strategy("ma_cross", fast=fast, slow=slow)
        self.lookback, self.features = self.rule.lookback, self.rule.features

    def decide(self, view, portfolio):
        return self.rule.decide(view, portfolio)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "spoken.py").write_text(SPOKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spoken", raising=False)
    return tmp_path


def runs_of(folder: Path, record: dict[str, Any], arm: str) -> list[Run]:
    home = next(folder.glob(f"runs/ab/{record['experiment_id']}"))
    return [load_run(home / cell["run"]) for cell in record["cells"] if cell["arm"] == arm]


def rule(kind: str, **params: Any) -> dict[str, Any]:
    return {"strategy.kind": kind, "strategy.params": params}


def test_a_decision_that_a_rule_did_not_record_is_a_hold(folder: Path) -> None:
    arms = {
        "rule": rule("ma_cross", fast=4, slow=12),
        "agent": {},
        "other": rule("ma_cross", fast=6, slow=30),
        "spoken": rule("spoken:Spoken"),
        "spoken_other": rule("spoken:Spoken", fast=6, slow=30),
    }
    found = {base: run(write_experiment(folder, arms, base=TRADERS, baseline=base)) for base in ("rule", "spoken")}
    assert all(unchanged_count(each) > 0 for each in runs_of(folder, found["rule"], "rule"))
    assert all(unchanged_count(each) == 0 for each in runs_of(folder, found["rule"], "spoken"))
    unchanged, told = (found[base]["arms"] for base in ("rule", "spoken"))
    for arm, same in (("agent", "agent"), ("other", "spoken_other"), ("spoken_other", "other")):
        one, other = unchanged[arm]["decisions"], told[same]["decisions"]
        assert one["kind"] == "actions"
        assert one["flip_matrix"] == other["flip_matrix"]
        assert (one["paired"], one["unpaired"]) == (other["paired"], other["unpaired"]) == (84, 0)
        assert np.allclose(one["flip_pnl"], other["flip_pnl"])
        assert one["pnl_before_first_flip"] == pytest.approx(other["pnl_before_first_flip"])
    matrix = np.array(unchanged["agent"]["decisions"]["flip_matrix"])
    made = runs_of(folder, found["rule"], "rule")[0].summary["decisions"]
    assert matrix[:2].sum() == made["buy"] + made["sell"] > 2
    assert unchanged["spoken"]["decisions"]["agreement"]["rate"]["share"] == 1.0
    assert unchanged["spoken"]["sentence"].startswith("Cannot tell")
    page = write_ab_report(folder / "runs" / "ab" / found["rule"]["experiment_id"], single_file=False)
    assert "Flips" in page.read_text()


def test_parameters_of_the_base_are_not_those_of_another_kind(folder: Path) -> None:
    arms = {"agent": {}, "momentum": rule("momentum", top_n_long=2), "equal": {"strategy.kind": "equal_weight"},
            "rising": {"strategy.kind": "momentum", "strategy.params.lookback_col": "return_24"}}  # fmt: skip
    found = loaded(write_experiment(folder, arms, base=RANKERS)).arms
    assert {name: dict(config.strategy.params) for name, config in found.items()} == {
        "agent": {"columns": ["return_24"]},
        "momentum": {"top_n_long": 2},
        "equal": {},
        "rising": {"lookback_col": "return_24"},
    }


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Rankers over the sample market: a rule, agents with and without what is held; a fifth of the replies spoiled."""
    folder = tmp_path_factory.mktemp("ranked")
    arms = {
        "momentum": rule("momentum", lookback_col="return_24", top_n_long=3),
        "agent": {},
        "blind": {"strategy.prompt": "panel_ranker/v1-blind"},
        "twin": rule("momentum", lookback_col="return_24", top_n_long=3),
    }
    more = {"llm.params": {"malformed": 0.2}, "risk.max_failed_share": 1.0}
    return folder, run(write_experiment(folder, arms, base=RANKERS, replicates=2, set=more))


def test_rankers_are_compared_by_the_weights_they_want(ranked: tuple[Path, dict[str, Any]]) -> None:
    folder, record = ranked
    assert record["results"]["agent"]["decisions"]["invalid"] > 0
    for arm in ("agent", "blind", "twin"):
        found = record["arms"][arm]["decisions"]
        assert found["kind"] == "targets"
        same, shared, count = 0, 0.0, 0
        for one, other in zip(runs_of(folder, record, "momentum"), runs_of(folder, record, arm), strict=True):
            stood = [told_slowly(each) for each in (one, other)]
            for time in stood[0].keys() & stood[1].keys():
                first, second = stood[0][time], stood[1][time]
                symbols = first.keys() | second.keys()
                pairs = [(first.get(symbol, 0.0), second.get(symbol, 0.0)) for symbol in symbols]
                same += all(round(100 * a) == round(100 * b) for a, b in pairs)
                gross = max(sum(abs(a) for a, _ in pairs), sum(abs(b) for _, b in pairs))
                shared += sum(min(a, b) for a, b in pairs) / gross if gross else 1.0
                count += 1
        assert found["paired"] == count == 28 and found["unpaired"] == 0
        assert found["equal"]["share"] == pytest.approx(same / count)
        assert found["overlap"] == pytest.approx(shared / count)
    assert record["arms"]["twin"]["decisions"]["equal"]["share"] == 1.0
    assert 0.0 < record["arms"]["agent"]["decisions"]["overlap"] < 1.0
    statistics = record["arms"]["agent"]["decisions"]["baseline"]
    assert statistics["positions"] == pytest.approx(3.0) and statistics["gross"] == pytest.approx(1.0)


def told_slowly(run: Run) -> dict[Any, dict[str, float]]:
    """The weights that stood after each decision: an invalid one leaves everything as it was."""
    standing: dict[str, float] = {}
    found = {}
    for row in run.decisions.iter_rows(named=True):
        for each in row["targets"] or ():
            standing[each["symbol"]] = each["share"]
        found[row["time"]] = dict(standing)
    return found


def test_the_report_of_rankers_says_so_where_the_flips_would_be(ranked: tuple[Path, dict[str, Any]]) -> None:
    folder, record = ranked
    page = write_ab_report(folder / "runs" / "ab" / record["experiment_id"])
    text = page.read_text()
    assert "there is no one action over many symbols" in text
    assert "Symbols wanted" in text
    assert "data-flip=" not in text
    console = Console(width=120, record=True, file=StringIO())
    console.print(render(record))
    shown = console.export_text()
    assert "agent and momentum want the same weights after" in shown
    assert "turnover/decision" in shown


def test_rankers_meet_bars_and_market_as_they_are(ranked: tuple[Path, dict[str, Any]]) -> None:
    folder, record = ranked
    runs = runs_of(folder, record, "momentum")
    assert bars_per_decision(runs) == 12
    bars = common_bars({"momentum": [[runs[0]]]})
    market = pl.read_parquet(runs[0].folder.market)
    closes = {key[0]: dict(zip(part["close_time"], part["close"], strict=True))
              for key, part in market.group_by("symbol")}  # fmt: skip
    at = [market["close_time"].dt.timestamp("us").unique().sort().to_list().index(int(time)) for time in bars.times]
    times = market["close_time"].unique().sort().to_list()
    for row in (1, 50, len(at) - 1):
        now, before = times[at[row]], times[at[row] - 1]
        changes = [
            prices[now] / prices[before] - 1.0 for prices in closes.values() if now in prices and before in prices
        ]
        assert bars.market_returns[row] == pytest.approx(np.mean(changes), abs=1e-12)
    targets = read_targets(runs[0])
    assert targets.weights.shape == (14, len(targets.symbols))
    assert not targets.at(targets.times[:1] - 1, targets.symbols).any()


def test_overlap_of_portfolios() -> None:
    one = np.array([[0.5, 0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.0]])
    two = np.array([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert overlap(one, two).tolist() == [0.5, 0.5, 1.0, 0.0, 0.2]


@pytest.mark.parametrize(
    ("base", "arm", "words"),
    [
        (TRADERS, {"mode": "cross_sectional"}, "several symbols, and arm a one symbol: there is nothing to compare"),
        (TRADERS, {"market.symbols": ["BTCUSDT", "ETHUSDT"]}, "market.symbols is"),
        (RANKERS, {"market.symbols": ["SAMPLE01USDT", "SAMPLE02USDT"]}, "market.symbols is"),
        (RANKERS, {"market.kind": "um"}, "market.kind is um"),
    ],
)
def test_arms_over_different_symbols_are_refused(folder: Path, base: str, arm: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loaded(write_experiment(folder, {"a": {}, "b": arm}, base=base))


def test_arms_may_differ_in_rhythm_and_pool(folder: Path) -> None:
    arms = {"a": {}, "b": {"rebalance": "D"}, "c": {"pool": {"enabled": True, "top_n": 3, "lookback": "2d"}}}
    experiment = loaded(write_experiment(folder, arms, base=RANKERS))
    assert [cell.expected_decisions for cell in cells_of(experiment)] == [14, 7, 14]


@pytest.mark.parametrize(
    ("frequency", "every", "fits"), [("W-MON", "7d", True), ("W-MON", "5d", False), ("MS", "7d", False)]
)
def test_every_window_of_rankers_holds_a_rebalance(folder: Path, frequency: str, every: str, fits: bool) -> None:
    base = RANKERS.replace("12h", frequency).replace("2024-07-08", "2024-09-01")
    path = write_experiment(folder, {"a": {}, "b": {}}, base=base, windows={"every": every})
    if fits:
        loaded(path)
    else:
        with pytest.raises(ConfigError, match=f"too short for a rebalance in every window, here {frequency}"):
            loaded(path)


def test_trials_are_counted_by_their_universe() -> None:
    market = {"kind": "spot", "symbol": "BTCUSDT", "symbols": None, "source": "store", "start": "2024-07-01",
              "end": "2024-08-01"}  # fmt: skip
    series = [
        identify_trial({"market": {**market, "symbols": symbols}, "mode": mode, "seed": 7}).series
        for mode, symbols in (
            ("time_series", None),
            ("cross_sectional", None), ("cross_sectional", ["B", "A"]), ("time_series", ["A", "B"]),
        )
    ]  # fmt: skip
    assert series == ["spot/BTCUSDT/store", "spot/all/store", "spot/A+B/store", "spot/A+B/store"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ab_rule", ["market.end=2024-07-06"]), ("ab_rankers", ["market.end=2024-07-06", "replicates=1"])],
)
def test_the_shipped_experiments_run(folder: Path, name: str, settings: list[str]) -> None:
    path = ROOT / "configs" / f"{name}.yaml"
    jsonschema.validate(parse_yaml(path.read_text()).data, json.loads(experiment_schema_text()))
    load_experiment(path)
    record = run(path, *settings, f"output={folder / 'runs'}", f"cache.path={folder / 'cache.sqlite'}")
    assert record["status"] == "done"
    assert all(cell["status"] == "done" for cell in record["cells"])
    kinds = {arm["decisions"]["kind"] for arm in record["arms"].values()}
    assert kinds == ({"actions"} if name == "ab_rule" else {"targets"})
