"""`agent-bt features`: the written file, the table, and that a difference is an error."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from agent_bt.cli.features import app
from agent_bt.core.errors import DataError, UsageError
from agent_bt.features import check

TWO_DAYS = ["--set", "market.start=2024-07-01", "--set", "market.end=2024-07-03"]
COLUMNS = ["ema_fast", "ema_slow", "rsi", "cmf", "macd", "macd_signal", "macd_hist", "atr"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, *TWO_DAYS])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_compute_writes_one_row_per_bar(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"f.{suffix}"
    result = run("compute", "--out", str(out), "--json", "--set", "features.rsi=20")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    table = pl.read_parquet(out) if suffix == "parquet" else pl.read_csv(out)
    assert printed == {"file": str(out), "rows": 2880, "columns": ["open_time", "close_time", "close", *COLUMNS]}
    assert table.columns == printed["columns"]
    assert len(table) == 2880
    assert table["rsi"].null_count() == 20
    assert list(tmp_path.iterdir()) == [out]


def test_sample_shows_values_and_their_recomputation() -> None:
    result = run("sample", "--rows", "2", "--at", "2024-07-02T00:00:30Z", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["agree"] is True
    assert [one["close_time"] for one in printed["samples"]] == ["2024-07-01T23:59Z"] * 8 + ["2024-07-02T00:00Z"] * 8
    assert [one["feature"] for one in printed["samples"]] == COLUMNS * 2
    assert all(one["value"] == pytest.approx(one["recomputed"]) for one in printed["samples"])


def test_sample_as_a_table() -> None:
    result = run("sample", "--rows", "1")
    assert result.exit_code == 0, result.output
    assert "2024-07-03T00:00Z" in result.stdout
    assert all(column in result.stdout for column in COLUMNS)


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = check.recompute
    monkeypatch.setattr(
        check, "recompute", lambda bars, spec: [x + 0.001 * (spec.kind == "rsi") for x in original(bars, spec)]
    )
    result = run("sample", "--rows", "3")
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == "3 of 24 values differ from their recomputation: rsi"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--at", "noon"], "--at: 'noon' is not a date"),
        (["sample", "--at", "2024-07-01"], "no bar has closed by then; the first one closes at 2024-07-01T00:01Z"),
        (["compute", "--out", "f.xlsx"], "must end in .parquet or .csv"),
    ],
)
def test_bad_usage_is_explained(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
