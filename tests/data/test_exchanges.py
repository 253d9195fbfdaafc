"""An exchange is one file: the example of docs/extending.md can be backfilled, stored separately, and run on."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from agent_bt import load_config
from agent_bt.backtest.bars import load_bars
from agent_bt.cli import main as cli
from agent_bt.core.clock import MINUTE, time_us
from agent_bt.core.errors import ConfigError
from agent_bt.data.exchange import EXCHANGES, exchange_of

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
START = time_us("2024-07-01")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the example exchange of the page to the working folder, with a day of its archive."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "toy_exchange", raising=False)
    (code,) = re.findall(r"```python\n# toy_exchange\.py\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "toy_exchange.py").write_text(code)
    folder = tmp_path / "archive" / "BTCUSDT"
    folder.mkdir(parents=True)
    rows = [f"{START // 10**6 + 60 * n},{100 + n % 7},{108},{99},{101 + n % 5},{2.5}" for n in range(1440)]
    with zipfile.ZipFile(folder / "BTCUSDT-2024-07-01.zip", "w") as container:
        container.writestr("BTCUSDT-2024-07-01.csv", "\n".join(rows))
    return tmp_path / "archive"


def agent_bt(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["agent-bt", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_exchange_of_the_page_is_backfilled_and_stored_separately(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("toy.yaml").write_text(
        "data: {exchange: 'toy_exchange:Toy'}\n"
        "market: {source: store, interval: 1m, start: 2024-07-01, end: 2024-07-02}\n"
    )
    days = ("--symbol", "BTCUSDT", "--start", "2024-07-01", "--end", "2024-07-02")
    url = archive.as_uri()
    command = ("data", "backfill", *days, "--no-rest", "--archive-url", url, "--config", "toy.yaml", "--json")
    assert agent_bt(monkeypatch, *command) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["folder"].startswith("data/toy_exchange.Toy/")
    assert agent_bt(monkeypatch, "data", "list", "--config", "toy.yaml") == 0
    assert "BTCUSDT" in capsys.readouterr().out
    bars = load_bars(load_config("toy.yaml")).bars
    assert len(bars) == 1440
    assert bars["open_time"].cast(pl.Int64).to_list() == [START + n * MINUTE for n in range(1440)]
    assert bars["open"][:8].to_list() == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 100.0]


@pytest.mark.usefixtures("archive")
def test_an_unknown_exchange_is_a_config_error() -> None:
    assert EXCHANGES.names() == ["binance"]
    with pytest.raises(ConfigError, match="'binanse' is not one of binance, or module:Class; did you mean binance"):
        exchange_of("binanse")
    with pytest.raises(ConfigError, match=r"derive the class from agent_bt\.data\.exchange\.Exchange"):
        exchange_of("toy_exchange:pl")
    with pytest.raises(ConfigError, match="has no REST API for spot; run with --no-rest"):
        exchange_of("toy_exchange:Toy").rest("spot")
