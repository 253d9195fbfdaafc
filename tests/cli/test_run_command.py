"""`agent-bt run` from the command line to the run folder: output, messages and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agent_bt.cli import main as cli

CONFIG = Path(__file__).parents[2] / "configs" / "backtest.yaml"


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, str, str]:
    """Run over four days of the sample market; return exit code, stdout and stderr."""
    short = ["--set", "market.end=2024-07-05", "--limit", "12"]
    monkeypatch.setattr(sys, "argv", ["agent-bt", "run", str(CONFIG), *short, *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_json_is_one_object_on_stdout_and_everything_else_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, out, err = run(capsys, monkeypatch, "--json", "--progress", "plain")
    assert code == 0
    summary = json.loads(out)
    assert (summary["status"], summary["decisions"]["total"]) == ("done", 12)
    assert json.loads((tmp_path / "runs" / summary["run_id"] / "summary.json").read_text()) == summary
    assert "btcusdt-agent 12/12 (100%)" in err


def test_without_json_the_table_is_printed_and_the_folder_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, out, err = run(capsys, monkeypatch, "--progress", "none")
    assert code == 0
    assert "final equity" in out
    (folder,) = (tmp_path / "runs").glob("*-btcusdt-agent-*")
    assert err.strip().endswith(f"{folder.name}/report.html")


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capsys, monkeypatch, "-q") == (0, "", "")


def test_too_many_failed_decisions_end_with_3_and_still_show_the_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ["--set", "llm.provider=scripted", "--set", f"llm.params={json.dumps({'replies': ['no json'] * 12})}"]
    code, out, err = run(capsys, monkeypatch, "--json", *scripted)
    assert code == 3
    summary = json.loads(out)
    assert summary["status"] == "failed"
    assert summary["decisions"]["invalid"] == 12
    assert "error: " in err
