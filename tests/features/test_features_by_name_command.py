"""`agent-bt features`: the list of kinds, and columns asked for by name."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from agent_bt.cli.features import app
from agent_bt.core.errors import UsageError
from agent_bt.features.names import ALIASES
from agent_bt.features.specs import KINDS

A_DAY = ["--set", "market.start=2024-07-01", "--set", "market.end=2024-07-02"]
BY_NAME = ["--column", "sma_3", "--column", "close", "--column", "highest_2"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_every_kind_is_listed_with_its_meaning() -> None:
    printed = json.loads(run("list", "--json").stdout)
    assert len(printed) == len(KINDS) + len(ALIASES)
    assert all(one["meaning"] and one["reads"] for one in printed)
    assert {"column": "highest_<period>", "reads": ["high"]}.items() <= printed[6].items()
    shown = run("list").stdout
    assert all(one["column"] in shown for one in printed)


def test_columns_asked_for_by_name_are_computed(tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    result = run("compute", "--out", str(out), *BY_NAME, *A_DAY)
    assert result.exit_code == 0, result.output
    table = pl.read_parquet(out)
    assert table.columns == ["open_time", "close_time", "close", "sma_3", "highest_2"]
    assert table["sma_3"][:2].null_count() == 2
    assert table["sma_3"][2] == pytest.approx(table["close"][:3].mean())


def test_columns_asked_for_by_name_are_recomputed() -> None:
    result = run("sample", "--json", "--rows", "2", *BY_NAME, "--column", "quote_volume_5", *A_DAY)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["agree"] is True
    assert [one["feature"] for one in printed["samples"]] == ["sma_3", "highest_2", "quote_volume_5"] * 2


@pytest.mark.parametrize(
    ("column", "message"),
    [("smaa_5", "--column: no column 'smaa_5'; did you mean sma_5"), ("close", "these are columns of the bars")],
)
def test_an_unknown_feature_name_is_a_usage_error(column: str, message: str) -> None:
    result = run("compute", "--column", column, *A_DAY)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
