"""`agent-bt prompts`: list, show, render, diff."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent_bt.cli.prompts import app
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
    """A working folder with a prompt of one's own in two versions, and one that is broken."""
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
    assert [row["prompt"] for row in told] == [
        "btcusdt_trader/v1",
        "btcusdt_trader/v2",
        "mine/v1",
        "mine/v2",
        "mine/v3",
    ]
    assert told[2]["description"] == "Mine."
    assert [row["error"] is None for row in told] == [True, True, True, True, False]
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
