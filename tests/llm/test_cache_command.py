"""`agent-bt cache`: stats, export, import, prune."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from agent_bt.cli.cache import app
from agent_bt.core.errors import RecordError, UsageError
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.llm.cache_entry import Entry
from agent_bt.llm.cache_store import ReplyStore

ROOT = Path(__file__).parents[2]
DAY = 86_400_000_000


def make_request(n: int) -> Request:
    messages = [{"role": "user", "content": f"bar {n}"}]
    model = "new" if n % 2 else "old"
    return Request(provider="openai", endpoint_id="host", body={"model": model, "messages": messages})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    now = time.time_ns() // 1000
    usage = Usage(prompt_tokens=1000, completion_tokens=20)
    with ReplyStore(tmp_path / "runs" / "cache.sqlite") as store:
        store.put_all(
            Entry(
                request=make_request(n),
                reply=Reply(text="{}", usage=usage, cost_usd=None if n == 3 else 0.5),
                obtained_at=now - n * 10 * DAY,
            )
            for n in range(6)
        )
    run = tmp_path / "runs" / "a-run"
    run.mkdir()
    exchange = pl.Struct({"request": pl.String})
    used = {"request": [make_request(1).address, make_request(4).address], "others": [[], []]}
    pl.DataFrame(used, schema={"request": pl.String, "others": pl.List(exchange)}).write_parquet(
        run / "decisions.parquet"
    )
    return tmp_path


def call(*arguments: str, answer: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def call_json(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json").stdout)


def stored() -> set[int]:
    with ReplyStore("runs/cache.sqlite") as store:
        return {n for n in range(6) if store.get(make_request(n)) is not None}


def test_stats() -> None:
    shown = call_json("stats")
    assert [(row["model"], row["replies"], row["unpriced"]) for row in shown["models"]] == [
        ("new", 3, 1),
        ("old", 3, 0),
    ]
    assert shown["bytes"] > 0
    text = call("stats").output
    assert "1.0000 USD + 1 unpriced" in text and "3,000" in text and "6 replies" in text
    with pytest.raises(RecordError, match="no store of replies"):
        call("stats", "--path", "elsewhere.sqlite")


def test_the_path_comes_from_the_config(folder: Path) -> None:
    (folder / "runs" / "cache.sqlite").rename(folder / "mine.sqlite")
    (folder / "c.yaml").write_text("cache: {path: mine.sqlite}\n")
    assert len(call_json("stats", "--config", "c.yaml")["models"]) == 2
    assert len(call_json("stats", "--path", "mine.sqlite")["models"]) == 2


def test_export_and_import() -> None:
    assert call_json("export", "all.xz")["replies"] == 6
    assert call_json("export", "run.xz", "--run", "runs/a-run") | {"bytes": 0} == {
        "file": "run.xz",
        "replies": 2,
        "bytes": 0,
        "missing": [],
    }
    assert call_json("import", "run.xz", "--path", "new/cache.sqlite")["new"] == 2
    assert "4 new replies, 2 known" in call("import", "all.xz", "--path", "new/cache.sqlite").output


def test_prune_confirms_and_removes_what_meets_all_conditions() -> None:
    assert call_json("prune", "--older-than", "25d", "--dry-run") | {"path": ""} == {
        "path": "",
        "selected": 3,
        "removed": 0,
        "kept": 3,
    }
    assert call("prune", "--older-than", "25d", answer="n\n").exit_code == 1
    assert stored() == {0, 1, 2, 3, 4, 5}
    assert call_json("prune", "--older-than", "25d", "--model", "new", "--yes")["removed"] == 2
    assert stored() == {0, 1, 2, 4}
    call("prune", "--unused-by", "runs", answer="y\n")
    assert stored() == {1, 4}
    assert call_json("prune", "--model", "absent", "--yes")["removed"] == 0


def test_prune_needs_a_condition_and_a_confirmation() -> None:
    for arguments, said in (
        ([], "give what to remove"),
        (["--older-than", "90"], "90d|duration"),
        (["--model", "old", "--json"], "--yes or --dry-run"),
        (["--unused-by", "nowhere"], "no run in nowhere"),
    ):
        with pytest.raises(UsageError, match=said):
            call("prune", *arguments)
    assert stored() == {0, 1, 2, 3, 4, 5}


def test_the_module_is_light() -> None:
    code = "import agent_bt.cli.cache, sys; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"polars", "pydantic", "orjson", "sqlite3"} & set(shown.stdout.split())
