"""Whole runs over several symbols: all files are written, verified and replayed, and the figures add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from terminal_text import plain

from agent_bt import load_config, load_run
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.preview import validate
from agent_bt.backtest.replay import replay
from agent_bt.backtest.run import run_config
from agent_bt.core.errors import RecordError
from agent_bt.core.progress import SilentProgress
from agent_bt.records.read import Run
from agent_bt.records.verify import verify

SYMBOLS = "[AUSDT, BUSDT, CUSDT, DUSDT, EUSDT]"
MARKET = [
    "mode=cross_sectional", "market.kind=um", "market.interval=1h", "market.start=2024-08-20", "market.end=2024-09-04",
    "market.warmup=2d", f"market.symbols={SYMBOLS}", "risk.allow_short=true",
]  # fmt: skip
PANEL = [
    *MARKET, "strategy.kind=momentum", "strategy.params.top_n_long=1", "strategy.params.top_n_short=2", "rebalance=D",
]  # fmt: skip
TABLES = ("legs", "snapshots", "rebalances", "attribution")
EXPORTS = ("nav_history.csv", "trade_log.json", "backtest_summary.json")


def run(folder: Path, *settings: str, **options: Any) -> Run:
    config = load_config(None, [f"output={folder}", f"cache.path={folder / 'c.sqlite'}", *settings], env={})
    return load_run(run_config(config, report=False, **options).run_dir)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("ranked"), *PANEL)


def adds_up(run: Run) -> None:
    measured, portfolio = run.summary["performance"], run.summary["portfolio"]
    for account in (measured, *run.summary["baselines"].values()):
        parts = account["realised_pnl"] + account["unrealised_pnl"] - account["fees"] - account["funding"]
        assert account["total_pnl"] == pytest.approx(parts, rel=1e-9, abs=1e-6)
    pnl = run.attribution
    assert pnl["pnl"].sum() == pytest.approx(measured["total_pnl"], rel=1e-9, abs=1e-6)
    for name in ("fees", "slippage", "funding", "turnover"):
        assert pnl[name].sum() == pytest.approx(measured[name], rel=1e-9, abs=1e-9), name
    assert pnl["trades"].sum() == measured["trades"]
    legs = portfolio["long_pnl"] + portfolio["short_pnl"]
    assert legs - measured["fees"] - measured["funding"] == pytest.approx(measured["total_pnl"], rel=1e-9, abs=1e-6)


def test_a_run_over_several_symbols_is_complete_and_adds_up(ranked: Run) -> None:
    files = {path.name for path in ranked.path.iterdir()}
    assert {f"{name}.parquet" for name in TABLES} | set(EXPORTS) <= files
    adds_up(ranked)
    summary = ranked.summary
    assert summary["performance"]["funding"] != 0.0
    assert all(account["funding"] for name, account in summary["baselines"].items() if account["fees"])
    about, portfolio = summary["about"], summary["portfolio"]
    assert about["symbols"] == {"count": 5, "names": SYMBOLS[1:-1].split(", ")}
    assert (about["kind"], about["mode"], about["rebalance"], about["every"]) == ("um", "cross_sectional", "D", None)
    assert portfolio["delisted"] == ["DUSDT"]
    assert portfolio["mean_positions"] > 1
    assert portfolio["rebalances"] == summary["decisions"]["total"] == len(ranked.decisions)
    assert (portfolio["long_pnl"] != 0.0, portfolio["short_pnl"] != 0.0) == (True, True)
    assert any("Delisted during the run" in line and "DUSDT" in line for line in summary["warnings"])


def test_it_is_verified_and_replays(ranked: Run) -> None:
    assert verify(ranked.path) == []
    assert replay(ranked.path).identical


@pytest.mark.parametrize("table", TABLES)
def test_any_changed_cell_of_its_tables_is_found(ranked: Run, table: str) -> None:
    path = ranked.path / f"{table}.parquet"
    whole = pl.read_parquet(path)
    try:
        for column, dtype in whole.schema.items():
            new = (
                pl.col(column) + "x"
                if dtype == pl.String
                else pl.col(column).dt.offset_by("1h")
                if dtype.is_temporal()
                else pl.col(column) * 2 + 1
            )
            last = pl.int_range(pl.len()) == pl.len() - 1
            changed = whole.with_columns(pl.when(last).then(new).otherwise(pl.col(column)).cast(dtype).alias(column))
            changed.write_parquet(path)
            assert [found.what for found in verify(ranked.path)] == [f"{table}.parquet"], column
        whole[:-1].write_parquet(path)
        assert "shape" in str(verify(ranked.path)[0])
        path.unlink()
        assert f"has no {table}.parquet" in str(verify(ranked.path)[0])
    finally:
        whole.write_parquet(path)


@pytest.mark.parametrize("name", EXPORTS)
def test_changed_and_missing_exports_are_found(ranked: Run, name: str) -> None:
    path = ranked.path / name
    whole = path.read_bytes()
    try:
        path.write_bytes(whole.replace(b"1", b"2", 1))
        assert [found.what for found in verify(ranked.path)] == [name]
        path.unlink()
        assert [found.what for found in verify(ranked.path)] == [name]
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("table", "column"), [("fills", "symbol"), ("equity", "time"), ("market", "symbol"), ("decisions", "bar")]
)
def test_changed_sources_are_found_and_nothing_is_derived_from_them(ranked: Run, table: str, column: str) -> None:
    path = ranked.path / f"{table}.parquet"
    whole = pl.read_parquet(path)
    try:
        whole.with_columns(pl.col(column).reverse()).write_parquet(path)
        found = [difference.what for difference in verify(ranked.path)]
        assert found
        assert not {f"{name}.parquet" for name in TABLES} & set(found)
    finally:
        whole.write_parquet(path)


def test_changed_config_is_found(ranked: Run) -> None:
    path = ranked.path / "config.yaml"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole.replace(b"lot_step: 1.0e-05", b"lot_step: 1.0e-03"))
        assert path.read_bytes() != whole
        assert "config.yaml" in [difference.what for difference in verify(ranked.path)]
        path.write_bytes(b"no: config")
        assert {"config.yaml", "holdings"} <= {difference.what for difference in verify(ranked.path)}
    finally:
        path.write_bytes(whole)


def test_exports_equal_the_tables(ranked: Run) -> None:
    nav = pl.read_csv(ranked.path / "nav_history.csv", try_parse_dates=True)
    assert nav.columns == ["time", "nav", "return", "drawdown", "cash", "exposure"]
    assert nav["nav"].to_list() == ranked.equity["equity"].to_list()
    assert nav["time"].to_list() == ranked.equity["time"].to_list()
    grown = (1.0 + nav["return"]).product() - 1.0
    assert grown == pytest.approx(ranked.summary["performance"]["total_return"], rel=1e-9)
    trades = json.loads((ranked.path / "trade_log.json").read_bytes())
    assert len(trades) == len(ranked.fills)
    assert trades[0]["time"] == f"{ranked.fills['time'][0]:%Y-%m-%dT%H:%M:%SZ}"
    assert [trade["quantity"] for trade in trades] == ranked.fills["quantity"].to_list()
    exported = json.loads((ranked.path / "backtest_summary.json").read_bytes())
    assert set(exported) == {"name", "strategy", "period", "performance", "portfolio", "decisions", "hashes"}
    assert exported["performance"] == ranked.summary["performance"]


def test_a_run_that_ends_soon_after_a_delisting_replays(tmp_path: Path) -> None:
    """The bars up to its end do not show that the symbol was delisted; those after it do."""
    limited = run(tmp_path, *MARKET, "strategy.kind=equal_weight", "rebalance=4h", limit=74)
    assert "2024-09-01T08" < limited.equity["time"][-1].isoformat() < "2024-09-01T20"
    assert limited.summary["portfolio"]["delisted"] == ["DUSDT"]
    assert "delisted" in limited.fills["reason"].to_list()
    assert verify(limited.path) == []
    assert replay(limited.path).identical


class _Stops(SilentProgress):
    def update(self, done: int, **facts: Any) -> None:
        if done == 12:
            raise KeyboardInterrupt


def test_an_interrupted_run_has_its_tables_and_replays(tmp_path: Path) -> None:
    stopped = run(tmp_path, *PANEL, progress=_Stops())
    assert stopped.status == "interrupted"
    adds_up(stopped)
    assert verify(stopped.path) == []
    assert replay(stopped.path).identical
    whole = run(tmp_path, *PANEL)
    assert (whole.run_id, whole.status) == (stopped.run_id, "done")
    assert verify(whole.path) == []


@pytest.mark.parametrize("symbols", ["null", SYMBOLS])
def test_unchanged_decisions_are_counted_and_replayed(tmp_path: Path, symbols: str) -> None:
    found = run(
        tmp_path, "market.interval=1h", "market.start=2024-08-20", "market.end=2024-09-04", "market.warmup=3d",
        "strategy.kind=rsi", f"market.symbols={symbols}",
    )  # fmt: skip
    decisions = found.summary["decisions"]
    assert decisions["total"] + decisions["silent"] + decisions["skipped"] == 15 * 24
    assert decisions["silent"] > 10 * decisions["total"] > 0
    assert verify(found.path) == []
    assert replay(found.path).identical
    assert set(EXPORTS) <= {path.name for path in found.path.iterdir()}
    assert "unchanged (not recorded)" in plain(found.summary, 1000)
    if symbols == "null":
        assert (found.multi_symbol, found.summary["portfolio"]) == (False, None)
        with pytest.raises(RecordError, match="has one symbol; only a run over several has snapshots"):
            _ = found.snapshots


def test_one_perpetual_pays_funding_in_every_account(tmp_path: Path) -> None:
    found = run(
        tmp_path, "market.kind=um", "market.interval=1h", "market.start=2024-08-20", "market.end=2024-09-04",
        "market.warmup=5d", "strategy.kind=ma_cross", "strategy.params.allow_short=true", "risk.allow_short=true",
        "strategy.params.fast=5", "strategy.params.slow=20",
    )  # fmt: skip
    assert found.fills["quantity"].min() < 0
    for account in (found.summary["performance"], *found.summary["baselines"].values()):
        assert account["funding"] != 0.0 or not account["fees"]
        parts = account["realised_pnl"] + account["unrealised_pnl"] - account["fees"] - account["funding"]
        assert account["total_pnl"] == pytest.approx(parts, rel=1e-9, abs=1e-6)
    assert replay(found.path).identical


def test_an_account_that_is_used_up_is_a_warning(tmp_path: Path) -> None:
    found = run(
        tmp_path, *PANEL, "risk.max_leverage=125", "risk.max_position=125", "risk.max_gross=125",
        "strategy.params.gross=90",
    )  # fmt: skip
    assert any("The account was used up" in line for line in found.summary["warnings"])
    adds_up(found)
    assert verify(found.path) == []
    assert replay(found.path).identical


def test_orders_to_sell_short_on_spot_are_a_warning(tmp_path: Path) -> None:
    found = run(tmp_path, *PANEL, "market.kind=spot", "risk.allow_short=false")
    cut = found.summary["decisions"]["cuts"]["allow_short"]
    assert cut > 0
    assert (
        f"{cut} orders to sell short were cut: spot cannot be sold short; market.kind: um can"
        in found.summary["warnings"]
    )
    assert found.legs["short"].min() == 0.0


def test_missing_data_and_a_short_look_back_of_the_pool_are_warnings(tmp_path: Path) -> None:
    file, settings = tmp_path / "panel.parquet", [*PANEL, "execution.funding=false", "market.end=2024-08-25"]
    load_bars(load_config(None, settings, env={})).bars.drop("funding_rate", strict=False).write_parquet(file)
    whole = [*settings, f"market.source={file}", "pool.enabled=true", "pool.lookback=2d"]
    assert load_bars(load_config(None, whole, env={})).notes == ()
    wider = [*whole, "market.warmup=3d", "market.end=2024-09-01", "pool.lookback=30d"]
    found = run(tmp_path, *wider)
    expected = (
        "No bars before 2024-08-18T00:00Z; the run needs bars from 2024-08-17T00:00Z (market.start minus "
        "market.warmup)",
        "No bars after 2024-08-25T00:00Z: the run ends there, not at market.end (2024-09-01T00:00Z)",
        "The first selection of the pool has 48 hours of bars before the run, less than its lookback of 30d; "
        "market.warmup reads more",
    )
    assert set(expected) <= set(found.summary["warnings"])
    checked = validate(load_config(None, wider, env={}))
    assert set(expected) <= {finding.what for finding in checked if finding.level == "warning"}


def test_the_terminal_summary_shows_the_holdings(ranked: Run) -> None:
    text = plain(ranked.summary, 100)
    for expected in (
        "perpetuals · cross-sectional · 5 symbols · 1h",
        "rebalanced D",
        "holdings ",
        "one-way per decision on average",
    ):
        assert expected in text
    assert "PnL by leg" in text
    assert "and funding of" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_single_symbol_can_be_ranked(tmp_path: Path) -> None:
    found = run(tmp_path, *PANEL[:6], "market.symbols=[AUSDT]", "strategy.kind=equal_weight", "rebalance=D")
    adds_up(found)
    assert (found.summary["about"]["symbol"], found.summary["portfolio"]["symbols"]) == ("AUSDT", 1)
    assert found.equity["price"].to_list() == found.market["close"].to_list()[-len(found.equity) :]
    assert verify(found.path) == []
    assert replay(found.path).identical


@pytest.mark.market
def test_momentum_on_the_real_panel(tmp_path: Path, market_data: Path) -> None:
    panel = market_data / "panel" / "spot_30usdt_1h_2024-01_2024-09.parquet"
    found = run(
        tmp_path, f"market.source={panel}", "mode=cross_sectional", "market.interval=1h", "market.start=2024-02-01",
        "market.end=2024-09-01", "market.warmup=30d", "strategy.kind=momentum",
        "strategy.params.lookback_col=return_168", "strategy.params.top_n_long=5", "rebalance=W-MON",
    )  # fmt: skip
    adds_up(found)
    portfolio = found.summary["portfolio"]
    assert (portfolio["symbols"], portfolio["rebalances"]) == (30, 30)
    assert found.snapshots.group_by("bar").len()["len"].unique().to_list() == [5]
    assert found.snapshots["share"].to_numpy() == pytest.approx(0.2, abs=2e-3)
    assert any("has no quote_asset_volume" in line for line in found.summary["warnings"])
    assert verify(found.path) == []
    assert replay(found.path).identical
