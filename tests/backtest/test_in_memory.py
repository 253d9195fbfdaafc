"""Rules and rankers from config to result: in memory, recorded, by flags, on real prices; always the same bits."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import cli

from agent_bt import (
    RuleCondition,
    RuleSignalGenerator,
    create_backtest_engine,
    create_mean_reversion_backtest,
    create_momentum_backtest,
    create_strategy,
    load_config,
    load_run,
    run,
)
from agent_bt.core.errors import ConfigError
from agent_bt.strategies.registration import registered
from agent_bt.strategies.registry import asks_model

ROOT = Path(__file__).parents[2]
CONFIGS = sorted([*(ROOT / "configs" / "rules").glob("*.yaml"), *(ROOT / "configs" / "rankers").glob("*.yaml")])
PANEL = "panel/spot_30usdt_1h_2024-01_2024-09.parquet"
SECTION = {
    "mode": "cross_sectional",
    "market": {"interval": "1h", "warmup": "8d", "end": "2024-07-15"},
    "rebalance": "D",
}

every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def shortened(path: Path, folder: Path, *settings: str) -> Any:
    return load_config(path, [f"output={folder}", f"cache.path={folder / 'cache.sqlite'}", *settings])


def test_every_kind_has_a_config() -> None:
    kinds = {load_config(path).strategy.kind for path in CONFIGS}
    assert set(registered()) - {"buy_and_hold", "stay_out", "technical"} == kinds


@every_config
def test_a_recorded_run_and_one_in_memory_are_the_same(path: Path, tmp_path: Path) -> None:
    config = shortened(path, tmp_path, "market.end=2024-07-24")
    recorded = run(config)
    assert recorded.status == "done"
    assert (recorded.path / "report.html").is_file()
    if asks_model(config.strategy.kind, config.strategy.params):
        assert recorded.summary["decisions"]["model"] == recorded.summary["decisions"]["total"] > 0
        return
    result = create_backtest_engine(config).run()
    assert result.nav["nav"].to_list() == recorded.equity["equity"].to_list()
    assert result.trades.equals(recorded.fills)
    assert result.performance.final_equity == recorded.summary["performance"]["final_equity"]
    again = create_backtest_engine(config).run()
    assert again.nav.equals(result.nav)


@pytest.mark.market
@every_config
def test_every_strategy_runs_on_real_prices_with_a_report(path: Path, market_data: Path, tmp_path: Path) -> None:
    config = load_config(path)
    settings = [
        f"market.source={market_data / PANEL}",
        "market.start=2024-02-01",
        "market.end=2024-03-01",
        "market.warmup=10d",
        "execution.funding=false",  # the panel is of spot prices: perpetuals on it have no rates
    ]
    done = run(shortened(path, tmp_path, *settings))
    assert done.status == "done"
    assert done.summary["bars"] == 29 * 24
    assert len(done.fills) > 0
    assert (done.path / "report.html").stat().st_size > 10_000
    assert ("portfolio" in done.summary and done.summary["portfolio"] is not None) == config.multi_symbol


def test_flags_and_config_are_the_same_run(tmp_path: Path) -> None:
    flags = ["--fast", "24", "--slow", "96", "--end", "2024-07-24", "--output", str(tmp_path / "flags")]
    assert cli("backtest", "ma_cross", *flags, "-q", "--no-report").code == 0
    (made,) = (tmp_path / "flags").glob("2*")
    by_config = run(shortened(ROOT / "configs" / "rules" / "ma_cross.yaml", tmp_path / "c", "market.end=2024-07-24"))
    assert load_run(made).summary["hashes"]["equity"] == by_config.summary["hashes"]["equity"]


@pytest.mark.parametrize("words", [["rsi"], ["ma_cross", "--fast", "5", "--slow", "20"]])
def test_a_flag_of_zero_is_a_value(words: list[str], tmp_path: Path) -> None:
    options = ["--end", "2024-08-01", "--output", str(tmp_path), "-q", "--no-report"]
    assert cli("backtest", *words, "--fee-rate", "0", "--slippage-bps", "0", *options).code == 0
    (folder,) = tmp_path.glob("2*")
    config = load_config(folder / "config.yaml", env={})
    assert (config.execution.fee_rate, config.execution.slippage_bps) == (0.0, 0.0)
    performance = json.loads((folder / "summary.json").read_text())["performance"]
    assert performance["trades"] > 0
    assert performance["fees"] == performance["slippage"] == 0.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rsi", "--cash", "0"], "--cash: account.cash must be more than 0, got 0"),
        (["rsi", "--period", "0"], "period must be at least 1, got 0"),
        (["momentum", "--pool", "0"], "pool.top_n must be at least 1, got 0"),
        (["momentum", "--start", ""], "--start: market.start"),
    ],
)
def test_an_invalid_zero_is_rejected(words: list[str], message: str, tmp_path: Path) -> None:
    done = cli("backtest", *words, "--output", str(tmp_path), "-q")
    assert (done.code, list(tmp_path.glob("2*"))) == (2, [])
    assert message in done.err


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1E6", 1e6), ("-2e-1", -0.2), ("0", 0), ("0.0", 0.0)])
def test_a_parameter_in_scientific_notation_is_a_number(
    text: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rule.py").write_text(
        "from agent_bt import Decision, Strategy\nclass Own(Strategy):\n    name, lookback, features = 'own', 1, ()\n"
        "    def __init__(self, threshold):\n        self.threshold = threshold\n"
        "    def decide(self, view, portfolio):\n        return Decision.hold()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["--end", "2024-07-02", "--output", str(tmp_path), "-q", "--no-report"]
    done = cli("backtest", "own_rule:Own", f"--threshold={text}", *options)
    assert done.code == 0, done.err
    (folder,) = tmp_path.glob("2*")
    assert load_config(folder / "config.yaml", env={}).strategy.params == {"threshold": value}


def test_a_rule_over_two_symbols_decides_at_every_bar_and_shorts_where_it_may(tmp_path: Path) -> None:
    options = ["--end", "2024-07-10", "--output", str(tmp_path), "-q", "--no-report"]
    words = ["ma_cross", "--slow", "48", "--symbols", "BTCUSDT,ETHUSDT", "--kind", "um", "--allow-short"]
    assert cli("backtest", *words, *options).code == 0
    (folder,) = tmp_path.glob("2*")
    about = json.loads((folder / "summary.json").read_text())["about"]
    assert (about["mode"], about["every"]) == ("time_series", "1h")
    shares = load_run(folder).decisions["targets"].explode().struct.field("share")
    assert shares.min() == pytest.approx(-0.5)


def test_an_agent_that_ranks_needs_no_prompt_named(tmp_path: Path) -> None:
    options = ["--rebalance", "W-MON", "--end", "2024-07-20", "--warmup", "8d", "--output", str(tmp_path)]
    done = cli(
        "backtest", "agent_ranker", *options, "--set", f"cache.path={tmp_path / 'c.sqlite'}", "-q", "--no-report"
    )
    assert done.code == 0, done.err
    (made,) = tmp_path.glob("2*")
    assert load_run(made).manifest["prompt"]["name"] == "panel_ranker/v1"


def test_a_backtest_leaves_files_for_other_programs(tmp_path: Path) -> None:
    options = ["--end", "2024-07-20", "--warmup", "8d", "--output", str(tmp_path), "-q", "--no-report"]
    assert cli("backtest", "momentum", "--top-n-long", "2", *options).code == 0
    (folder,) = tmp_path.glob("2*")
    summary = json.loads((folder / "summary.json").read_text())
    told = json.loads((folder / "backtest_summary.json").read_text())
    assert told["performance"] == summary["performance"]
    trades = json.loads((folder / "trade_log.json").read_text())
    assert len(trades) == len(load_run(folder).fills) > 0
    with (folder / "nav_history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["nav"]) == pytest.approx(summary["performance"]["final_equity"], rel=1e-12)
    assert len(rows) == summary["bars"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["momentm"], "did you mean momentum?"),
        (["momentum", "--lokback-col", "return_20"], "did you mean lookback_col?"),
        (["momentum", "--start", "banana"], "--start: market.start"),
        (["ma_cross", "--fast"], "--fast has no value"),
        (["ma_cross", "fast=3"], "is not a flag"),
        (["ma_cross", "--fast", "9", "--slow", "5"], "fast must be below slow (5), got 9"),
        (["ma_cross", "--allow-short"], "market.kind: um"),
        (["rsi", "--symbol", "BTC/USDT"], "must be a symbol"),
        (["rsi", "--strat", "2024-07-02"], "did you mean --start?"),
        (["rsi", "--fee-rates", "0"], "did you mean --fee-rate?"),
        (["momentum", "--every", "4h"], "write --rebalance 4h"),
        (["rule"], "such as long: [rsi_14 < 30]"),
    ],
)
def test_a_wrong_flag_is_reported(words: list[str], message: str, tmp_path: Path) -> None:
    done = cli("backtest", *words, "--output", str(tmp_path), "-q")
    assert done.code == 2
    assert message in done.err
    assert not [*tmp_path.glob("2*")]


def test_momentum_and_mean_reversion_choose_opposite_ends() -> None:
    up = create_momentum_backtest(SECTION, lookback_col="return_24", top_n_long=2).run()
    down = create_mean_reversion_backtest(SECTION, lookback_col="return_24", top_n_long=2).run()
    first = up.snapshots["time"].min()
    held = [set(result.snapshots.filter(time=first)["symbol"]) for result in (up, down)]
    returns = up.market.column("return_24")[np.searchsorted(up.market.times, first.timestamp() * 1e6)]
    by_return = [up.market.symbols[at] for at in np.argsort(returns) if np.isfinite(returns[at])]
    assert held == [set(by_return[-2:]), set(by_return[:2])]


def test_python_users_get_rows_and_frames() -> None:
    rule = RuleSignalGenerator(long=[RuleCondition("rsi_14", "<", 40)], exit=[RuleCondition("rsi_14", ">", 60)])
    result = create_backtest_engine({"market": {"interval": "1h", "end": "2024-07-20"}}, rule).run()
    assert result.sample
    nav, trades, snapshots = result.get_nav_history(), result.get_trades(), result.get_snapshots()
    assert (len(nav), len(trades), len(snapshots)) == (19 * 24, result.trades.height, result.snapshots.height)
    assert set(nav[0]) == {"time", "nav", "return", "drawdown", "cash", "exposure"}
    assert {"time", "symbol", "quantity", "price", "fee"} < set(trades[0])
    assert {"time", "symbol", "quantity", "share"} < set(snapshots[0])
    earned = np.prod([1.0 + row["return"] for row in nav])
    assert earned == pytest.approx(1.0 + result.performance.total_return, rel=1e-9)


def test_an_engine_refuses_what_it_cannot_run() -> None:
    with pytest.raises(ConfigError, match=r"run it with agent_bt.run"):
        create_backtest_engine({"strategy": {"kind": "agent"}})
    with pytest.raises(ConfigError, match="cross_sectional"):
        create_momentum_backtest({"mode": "time_series"})
    with pytest.raises(ConfigError, match=r"did you mean market\.interval"):
        create_backtest_engine({"market": {"intervall": "1h"}}, "rsi")
    with pytest.raises(ConfigError, match="top_n_long"):
        create_strategy("momentum", top_n_lon=3)
