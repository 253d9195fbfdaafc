"""`agent-bt prompts`: list, show, render, diff, lock."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent_bt import run as run_backtest
from agent_bt.cli.prompts import app
from agent_bt.config.load import load_config
from agent_bt.core.errors import PromptError, UsageError

MINE = """---
name: mine
description: Mine.
inputs: {account: the account}
output: {type: object}
---
user:
You hold {{ account.position }}%.
"""
THREE_DAYS = ["--set", "market.start=2024-07-01", "--set", "market.end=2024-07-04"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a user's prompt in two versions, and one that is broken."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("v1", MINE), ("v2", MINE.replace("hold", "now hold")), ("v3", "user:\n")):
        path = tmp_path / "prompts" / "mine" / f"{name}.prompty"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_list_shows_own_and_shipped_and_what_is_broken() -> None:
    told = json.loads(run("list", "--json").stdout)["prompts"]
    names = [row["prompt"] for row in told]
    assert {"btcusdt_trader/v1", "btcusdt_trader/v2", "panel_ranker/v1"} < set(names)
    assert [name for name in names if name.startswith("mine/")] == ["mine/v1", "mine/v2", "mine/v3"]
    assert told[names.index("mine/v1")]["description"] == "Mine."
    assert [row["prompt"] for row in told if row["error"] is not None] == ["mine/v3"]
    table = run("list")
    assert table.exit_code == 0
    assert "mine/v3" in table.stdout


def test_show_is_the_text_of_the_file() -> None:
    assert run("show", "mine/v1").stdout == MINE
    told = json.loads(run("show", "mine/v1", "--json").stdout)
    assert (told["prompt"], told["uses"], told["text"]) == ("mine/v1", ["account.position"], MINE)
    assert len(told["sha256"]) == 64


def test_show_of_a_missing_version_lists_the_versions() -> None:
    result = run("show", "mine/v9")
    assert isinstance(result.exception, PromptError)
    assert "versions of mine: v1, v2, v3" in str(result.exception)


def test_diff_is_unified() -> None:
    lines = run("diff", "mine/v1", "mine/v2").stdout.splitlines()
    assert lines[0].startswith("--- ") and lines[0].endswith("v1.prompty")
    assert "-You hold {{ account.position }}%." in lines
    assert "+You now hold {{ account.position }}%." in lines
    same = run("diff", "mine/v1", "mine/v1")
    assert same.stdout == ""
    assert "the same text" in same.stderr


def test_render_is_what_the_model_is_sent() -> None:
    arguments = ["render", "--at", "2024-07-03T13:00Z", *THREE_DAYS]
    messages = json.loads(run(*arguments, "--json").stdout)["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "You trade BTCUSDT" in messages[0]["content"]
    assert messages[1]["content"].startswith("Time: 13:00 UTC\n\nDays: 2 complete\n")
    assert "position: flat" in messages[1]["content"]
    text = run(*arguments).stdout
    assert text == "".join(f"{m['role']}:\n{m['content']}\n\n" for m in messages)


def test_render_takes_the_prompt_of_the_config(folder: Path) -> None:
    config = folder / "elsewhere.yaml"
    config.write_text("strategy: {prompt: mine/v2}\nmarket: {start: 2024-07-01, end: 2024-07-02}\n")
    told = json.loads(run("render", "--config", str(config), "--json").stdout)
    assert told == {"messages": [{"role": "user", "content": "You now hold 0%."}]}


@pytest.mark.parametrize(("at", "message"), [("noon", "--at: 'noon'"), ("2025-01-01", "no decision at or after")])
def test_render_at_a_wrong_instant_is_bad_usage(at: str, message: str) -> None:
    result = run("render", "--at", at, *THREE_DAYS)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_a_locked_version_that_changes_is_an_error_that_names_the_next_one(folder: Path) -> None:
    assert run("lock", "mine/v1").exit_code == 0
    locked = json.loads((folder / "prompts" / "lock.json").read_text())
    assert locked == {"mine/v1": hashlib.sha256(MINE.encode()).hexdigest()}
    assert run("show", "mine/v1").stdout == MINE
    (folder / "prompts" / "mine" / "v1.prompty").write_text(MINE + "Now.\n")
    for arguments in (["show", "mine/v1"], ["lock", "mine/v1"], ["lock", "--check"]):
        fault = run(*arguments).exception
        assert isinstance(fault, PromptError)
        assert "make a new version" in str(fault)
        assert "mine/v4" in str(fault)  # v1 to v3 are there
    assert json.loads((folder / "prompts" / "lock.json").read_text()) == locked
    assert run("show", "mine/v2").exit_code == 0


def test_a_run_does_not_begin_with_a_locked_prompt_that_changed(folder: Path) -> None:
    run("lock", "mine/v1")
    (folder / "prompts" / "mine" / "v1.prompty").write_text(MINE + "Now.\n")
    config = load_config(None, ["strategy.prompt=mine/v1", "market.end=2024-07-04", f"output={folder / 'runs'}"])
    with pytest.raises(PromptError, match="make a new version"):
        run_backtest(config, limit=3)
    assert not (folder / "runs").exists()


def test_lock_locks_all_prompts_of_the_user_and_names_new_ones(folder: Path) -> None:
    (folder / "prompts" / "mine" / "v3.prompty").unlink()
    assert [line.split()[:2] for line in run("lock", "mine/v2").stdout.splitlines()] == [["mine/v2", "locked"]]
    lines = [line.split()[:2] for line in run("lock").stdout.splitlines()]
    assert lines == [["mine/v1", "locked"], ["mine/v2", "unchanged"]]
    assert list(json.loads(run("lock", "--check", "--json").stdout)["locked"]) == ["mine/v1", "mine/v2"]


def test_a_prompt_beside_the_config_is_locked_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    run("lock", "mine/v1", "--config", str(folder / "c.yaml"))
    assert list(json.loads((folder / "prompts" / "lock.json").read_text())) == ["mine/v1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine/v9"], "versions of mine: v1, v2, v3"),
        (["mine/v3"], "three dashes"),
        (["btcusdt_trader/v1"], "no prompt"),  # shipped ones are not the user's to lock
        (["--check", "mine/v1"], "not locked: mine/v1"),
    ],
)
def test_lock_refuses_what_cannot_be_locked(folder: Path, arguments: list[str], message: str) -> None:
    fault = run("lock", *arguments).exception
    assert isinstance(fault, PromptError)
    assert message in str(fault)
    assert not (folder / "prompts" / "lock.json").exists()


def test_a_missing_locked_version_and_a_damaged_lock_are_errors(folder: Path) -> None:
    run("lock", "mine/v1")
    (folder / "prompts" / "mine" / "v1.prompty").unlink()
    assert "no prompt 'mine/v1'" in str(run("lock", "--check").exception)
    for damage in ("{", '{"mine/v2": "abc"}', "[]"):
        (folder / "prompts" / "lock.json").write_text(damage)
        fault = run("show", "mine/v2").exception
        assert isinstance(fault, PromptError)
        assert "lock.json" in str(fault)


def test_lock_without_prompts_prints_a_message(folder: Path) -> None:
    assert "nothing is locked" in run("lock", "--check").stderr
