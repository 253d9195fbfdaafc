"""`agent-bt runs list | show | verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from record_examples import make_run, make_step
from typer.testing import CliRunner

from agent_bt.cli.runs import app

runner = CliRunner()


def test_list_names_every_run_with_its_status(tmp_path: Path) -> None:
    done = make_run(tmp_path, [make_step(0)])
    stopped = make_run(tmp_path, [], name="other", status="interrupted")
    result = runner.invoke(app, ["list", "--root", str(tmp_path), "--json"])
    rows = {row["run_id"]: row for row in json.loads(result.stdout)["runs"]}
    assert rows[done.run_id]["status"] == "done"
    assert rows[done.run_id]["total_return"] == 0.001
    assert rows[stopped.run_id]["status"] == "interrupted"
    shown = runner.invoke(app, ["list", "--root", str(tmp_path)])
    assert shown.exit_code == 0
    assert done.run_id in shown.stdout
    assert "0.10%" in shown.stdout


def test_an_empty_list_is_reported(tmp_path: Path) -> None:
    result = runner.invoke(app, ["list", "--root", str(tmp_path)])
    assert result.exit_code == 0
    assert "no runs in" in result.stderr


def test_show_prints_the_summary(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_step(0)])
    shown = runner.invoke(app, ["show", "latest", "--root", str(tmp_path)])
    assert run.run_id in shown.stdout
    assert "SAMPLE MARKET" in shown.stdout
    as_json = runner.invoke(app, ["show", run.run_id, "--root", str(tmp_path), "--json"])
    assert json.loads(as_json.stdout) == json.loads(run.summary.read_bytes())


def test_root_comes_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "elsewhere", [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_BT_OUTPUT", "elsewhere")
    assert run.run_id in runner.invoke(app, ["show"]).stdout


def test_verify_exits_with_1_if_something_was_changed(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_step(0)])
    command = ["verify", "latest", "--root", str(tmp_path)]
    assert runner.invoke(app, command).exit_code == 0
    assert json.loads(runner.invoke(app, [*command, "--json"]).stdout)["verified"] is True
    run.config.write_text("name: changed\n")
    changed = runner.invoke(app, command)
    assert changed.exit_code == 1
    assert "config.yaml: recorded" in changed.stderr
    report = json.loads(runner.invoke(app, [*command, "--json"]).stdout)
    assert [found["what"] for found in report["differences"]] == ["config.yaml"]
