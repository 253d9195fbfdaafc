"""The `agent-bt data` commands: their output, its stream, and their errors."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from fake_exchange import FakeExchange, path_of, rows
from typer.testing import CliRunner, Result

from agent_bt.cli.data import app
from agent_bt.core.clock import iso
from agent_bt.core.errors import AgentBtError, ConfigError, DataError, MissingData, UsageError
from agent_bt.data.spans import last_months


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_BT_DATA__ARCHIVE_URL", exchange.archive_url)
    monkeypatch.setenv("AGENT_BT_DATA__REST_URL", exchange.url)
    monkeypatch.setenv("COLUMNS", "100")


def run(*words: str, error: type[AgentBtError] | None = None) -> Result:
    result = CliRunner().invoke(app, words)
    if error is None:
        assert result.exit_code == 0, result.exception
    else:
        assert isinstance(result.exception, error), result.exception
    return result


def publish(exchange: FakeExchange) -> None:
    gap = (("2021-02-01T10:00", "2021-02-01T10:30"),)
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02", without=gap))
    exchange.listed = rows("2021-02-01T10:00", "2021-02-01T10:20")


BACKFILL = ("backfill", "--symbol", "BTCUSDT", "--interval", "1m", "--start", "2021-02-01", "--end", "2021-02-02")


def test_backfill_list_info_verify_export_and_back(exchange: FakeExchange, tmp_path: Path) -> None:
    publish(exchange)
    first = run(*BACKFILL)
    assert "1,430 minutes added, 1 archive files, 1 REST pages, 10 minutes recorded as outages" in first.stdout
    assert "1,440 minutes missing" in first.stderr
    assert "nothing missing, nothing fetched" in run(*BACKFILL).stdout
    assert (tmp_path / "data" / "spot" / "BTCUSDT" / "klines_1m" / "2021-02.parquet").is_file()
    assert "1,430" in run("list").stdout
    assert "outages: 2021-02-01T10:20Z to 2021-02-01T10:30Z" in run("info").stdout
    assert "10 minutes that no source has" in run("verify").stdout
    run("export", "-o", "out.csv", "--interval", "15m")
    table = pl.read_csv("out.csv", try_parse_dates=True)
    assert len(table) == 96
    assert table["open_time"][0] == datetime(2021, 2, 1, tzinfo=UTC)
    assert len(pl.read_csv("out.csv")) == 96


def test_json_is_one_object_on_stdout(exchange: FakeExchange) -> None:
    publish(exchange)
    result = json.loads(run(*BACKFILL, "--json").stdout)
    assert (result["added"], result["complete"], len(result["files"])) == (1430, True, 1)
    assert result["months"][0]["outages"] == 10
    [series] = json.loads(run("list", "--json").stdout)["series"]
    assert (series["symbol"], series["bars"], series["covered"]) == (
        "BTCUSDT", 1430, [["2021-02-01T00:00Z", "2021-02-02T00:00Z"]])  # fmt: skip
    info = json.loads(run("info", "--json").stdout)
    assert info["outages"] == [["2021-02-01T10:20Z", "2021-02-01T10:30Z"]]
    assert info["months"][0]["sources"] == [path_of("2021-02-01").removeprefix("/data/")]
    checked = json.loads(run("verify", "--remote", "--json").stdout)
    assert (checked["ok"], [finding["check"] for finding in checked["findings"]]) == (True, ["outage"])
    assert json.loads(run("export", "-o", "x.csv", "--json").stdout)["bars"] == 1430


def test_months_are_the_last_complete_ones(exchange: FakeExchange) -> None:
    result = json.loads(run("backfill", "--months", "2", "--no-rest", "--json", error=DataError).stdout)
    now = int(datetime.now(UTC).timestamp() * 1e6)
    expected = last_months(2, now)
    assert (result["start"], result["end"]) == (iso(expected.start), iso(expected.end))
    assert [month["month"] for month in result["months"]] == [iso(expected.start)[:7], iso(expected.end - 1)[:7]]
    assert not result["complete"]


@pytest.mark.parametrize(
    "words",
    [
        ("backfill",),
        ("backfill", "--months", "2", "--start", "2021-02-01"),
        ("backfill", "--start", "yesterday"),
        ("backfill", "--start", "2021-02-02", "--end", "2021-02-01"),
        ("backfill", "--start", "2021-02-01T00:00:30"),
        ("backfill", "--start", "2100-01-01", "--end", "2100-02-01"),
        ("backfill", "--months", "2", "--interval", "5m"),
        ("backfill", "--months", "2", "--symbol", "../x"),
        ("export", "-o", "x.csv", "--end", "2021-02-01"),
        ("export", "-o", "x.csv", "--interval", "7m"),
    ],
)
def test_invalid_arguments_are_a_usage_error(exchange: FakeExchange, words: tuple[str, ...]) -> None:
    assert run(*words, error=UsageError).exception is not None
    assert exchange.requested == []


@pytest.mark.parametrize("words", [("info",), ("verify",), ("export", "-o", "x.csv")])
def test_an_empty_store_says_how_to_fill_it(words: tuple[str, ...]) -> None:
    assert "agent-bt data backfill" in str(run(*words, error=MissingData).exception)
    assert "agent-bt data backfill" in run("list").stdout


def test_verify_fails_on_damage_and_repairs_it(exchange: FakeExchange, tmp_path: Path) -> None:
    publish(exchange)
    run(*BACKFILL)
    path = tmp_path / "data" / "spot" / "BTCUSDT" / "klines_1m" / "2021-02.parquet"
    path.write_bytes(b"hello")
    failed = run("verify", error=DataError)
    assert "--repair" in str(failed.exception)
    assert "repaired: " in run("verify", "--repair").stdout
    run("verify")


def test_options_override_the_config(exchange: FakeExchange, tmp_path: Path) -> None:
    publish(exchange)
    (tmp_path / "c.yaml").write_text("market: {symbol: BTCUSDT}\ndata: {root: other}\n")
    words = ("backfill", "--config", "c.yaml", "--start", "2021-02-01", "--end", "2021-02-02")
    run(*words)
    assert (tmp_path / "other" / "spot" / "BTCUSDT").is_dir()
    run(*words, "--root", "1e5")
    assert (tmp_path / "1e5" / "spot" / "BTCUSDT").is_dir()
    (tmp_path / "c.yaml").write_text("data: {rot: other}\n")
    run(*words, error=ConfigError)


def test_progress_none_writes_no_output(exchange: FakeExchange) -> None:
    publish(exchange)
    assert run(*BACKFILL, "--progress", "none").stderr == ""


def test_help_loads_no_large_packages() -> None:
    code = "import sys, agent_bt.cli.data; print(*{'polars', 'httpx', 'pydantic', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert "--archive-url" in run("backfill", "--help").stdout
