"""`agent-bt aggregate` writes one complete file of bars or none, and its errors say what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest

from agent_bt.bars import build_dollar_bars
from agent_bt.bars.files import bars_file
from agent_bt.cli import main as cli
from agent_bt.core.errors import UsageError


@pytest.fixture
def ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Write a hundred ticks to two files in the working folder."""
    monkeypatch.chdir(tmp_path)
    numbers = pl.int_range(100, eager=True)
    frame = pl.DataFrame(
        {"timestamp": 1_722_470_400_000 + numbers * 1000, "price": 100.0 + numbers % 7, "quantity": 1.0 + numbers % 3,
         "is_buyer_maker": numbers % 2 == 0}
    )  # fmt: skip
    frame[:60].write_parquet("a.parquet")
    frame[60:].write_csv("b.csv")
    return frame


def agent_bt(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["agent-bt", "aggregate", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_bars_of_all_files_are_written_in_order(
    ticks: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("BTCUSDT", "a.parquet", "b.csv", "-b", "dollar_bar", "-t", "1e3", "-o", "bars", "--json")
    assert agent_bt(monkeypatch, *arguments) == 0
    output = json.loads(capsys.readouterr().out)
    assert output == {
        "path": "bars/BTCUSDT_dollar_bar_1000.parquet",
        "ticks": 100,
        "bars": output["bars"],
        "repaired": {},
    }
    bars = pl.read_parquet(output["path"])
    assert bars.equals(build_dollar_bars(ticks, 1000.0, symbol="BTCUSDT"))
    assert len(bars) == output["bars"]
    assert [path.name for path in Path("bars").iterdir()] == ["BTCUSDT_dollar_bar_1000.parquet"]


def test_a_failure_leaves_the_existing_file_unchanged(
    ticks: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent_bt(monkeypatch, "BTCUSDT", "a.parquet", "-t", "1min", "-o", "bars") == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == Path("bars/BTCUSDT_time_bar_1min.parquet")
    before = path.read_bytes()
    assert agent_bt(monkeypatch, "BTCUSDT", "b.csv", "a.parquet", "-t", "1min", "-o", "bars") == 1
    assert "in chronological order" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert len(list(Path("bars").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("../x", "a.parquet"), "SYMBOL must be the name of a symbol"),
        (("BTCUSDT", "a.parquet", "-b", "range"), "bar_type must be one of"),
        (("BTCUSDT", "a.parquet", "-t", "soon"), "not a duration"),
        (("BTCUSDT", "a.parquet", "-b", "tick_bar", "-t", "0"), "finite number above 0"),
        (("BTCUSDT", "a.parquet", "--repair", "guess"), "repair must be some of"),
    ],
)
@pytest.mark.usefixtures("ticks")
def test_an_invalid_argument_exits_with_2_and_a_message(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent_bt(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("threshold", "name"),
    [("1h", "1h"), (1_000_000.0, "1000000"), ("2.5", "2.5"), (0.001, "0.001"), ("1e6", "1000000")],
)
def test_the_file_name_contains_the_threshold_as_a_plain_number(threshold: float | str, name: str) -> None:
    kind = "time_bar" if threshold == "1h" else "volume_bar"
    assert bars_file("BTCUSDT", kind, threshold) == f"BTCUSDT_{kind}_{name}.parquet"
    with pytest.raises(UsageError):
        bars_file("", kind, threshold)
