"""The store of replies under whole runs: offline equality, the export as evidence, and what an edited prompt costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import ChatServer, stand_in_answer
from small_run import cli, small_config

PROMPTS = Path(__file__).parents[2] / "prompts"
HOUR_THREE = "{% if time.hour == 3 %}\nThe third hour.\n{% endif %}\n"


@pytest.fixture(scope="module")
def server() -> Any:
    with ChatServer(stand_in_answer(eagerness=0.6)) as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: ChatServer) -> Path:
    """A folder with config, store and one finished run."""
    folder = tmp_path_factory.mktemp("made")
    done = cli("run", small_config(folder, server.url, prefetch__depth=0), "-q")
    assert done.code == 0, done.err
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    """Of the newest run."""
    path = max(folder.glob("runs/2*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def edited_prompt(folder: Path, old: str, new: str) -> str:
    text = (PROMPTS / "btcusdt_trader" / "v1.prompty").read_text(encoding="utf-8")
    assert text.count(old) == 1
    there = folder / "edited.prompty"
    there.write_text(text.replace(old, new), encoding="utf-8")
    return str(there)


def test_an_export_replays_hash_for_hash_from_an_empty_store_elsewhere(made: Path, tmp_path: Path) -> None:
    (run,) = made.glob("runs/2*")
    evidence = tmp_path / "replies.jsonl.xz"
    exported = cli("cache", "export", evidence, "--run", run, "--path", made / "cache.sqlite", "--json")
    assert exported.code == 0, exported.err
    original = summary_of(made)
    assert exported.json["replies"] == original["decisions"]["total"]
    assert exported.json["missing"] == []
    assert evidence.stat().st_size < 1_500 * exported.json["replies"]  # a prompt alone has three times as many bytes

    shutil.copy(made / "market.parquet", tmp_path)
    config = small_config(tmp_path, "http://127.0.0.1:9/v1")  # nobody listens there
    imported = cli("cache", "import", evidence, "--config", config, "--json")
    assert (imported.code, imported.json["new"]) == (0, original["decisions"]["total"])
    offline = cli("run", config, "--offline", "--json", "--progress", "none")
    assert offline.code == 0, offline.err
    assert offline.json["hashes"] == original["hashes"]
    assert (offline.json["llm"]["calls"], offline.json["llm"]["cached"]) == (0, original["decisions"]["total"])

    again = cli("cache", "import", evidence, "--config", config, "--json")
    assert (again.json["new"], again.json["known"], again.json["differing"]) == (0, imported.json["new"], 0)


def test_after_an_edit_only_the_prompts_that_changed_are_asked(made: Path, tmp_path: Path, server: ChatServer) -> None:
    shutil.copy(made / "market.parquet", tmp_path)
    shutil.copy(made / "cache.sqlite", tmp_path)
    prompt = edited_prompt(tmp_path, "\nAccount\n{% if", f"\n{HOUR_THREE}Account\n{{% if")
    config = small_config(tmp_path, server.url, strategy__prompt=prompt, prefetch__depth=0)
    decisions = pl.read_parquet(next(made.glob("runs/2*")) / "decisions.parquet")
    changed = decisions.filter(pl.col("time").dt.hour() == 3).height
    assert 0 < changed < decisions.height

    server.reset()
    done = cli("run", config, "--progress", "none")
    assert done.code == 0, done.err
    summary = summary_of(tmp_path)
    assert (summary["llm"]["calls"], summary["llm"]["cached"]) == (changed, decisions.height - changed)
    assert server.calls == changed
    assert all("The third hour." in body["messages"][-1]["content"] for body in server.bodies)
    assert f"{changed} calls, {decisions.height - changed} from cache" in " ".join(done.out.split())


def test_an_offline_miss_names_the_bar_and_shows_what_differs(made: Path, tmp_path: Path, server: ChatServer) -> None:
    shutil.copy(made / "market.parquet", tmp_path)
    shutil.copy(made / "cache.sqlite", tmp_path)
    prompt = edited_prompt(tmp_path, "\nAccount\n{% if", f"\n{HOUR_THREE}Account\n{{% if")
    done = cli("run", small_config(tmp_path, "http://127.0.0.1:9/v1", strategy__prompt=prompt), "--offline", "-q")
    assert done.code == 5
    assert "at 2024-07-01T03:00Z" in done.err
    assert "+ The third hour." in done.err
    assert "- " not in done.err.partition("The nearest stored request")[2].partition("asked now:")[2]

    # What was decided before the miss is kept; with the model at hand the same run goes on.
    stopped = summary_of(tmp_path)
    assert (stopped["status"], stopped["decisions"]["total"]) == ("interrupted", 5)
    done = cli("run", small_config(tmp_path, server.url, strategy__prompt=prompt), "--json", "--progress", "none")
    assert (done.code, done.json["run_id"]) == (0, stopped["run_id"])


def test_offline_without_any_store_says_what_to_do(tmp_path: Path) -> None:
    done = cli("run", small_config(tmp_path, "http://127.0.0.1:9/v1"), "--offline", "-q")
    assert done.code == 1
    assert "cache.path" in done.err
    assert not list(tmp_path.glob("runs/2*"))


def test_a_miss_that_becomes_a_hold_is_counted_and_reported(made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "market.parquet", tmp_path)
    shutil.copy(made / "cache.sqlite", tmp_path)
    prompt = edited_prompt(tmp_path, "\nAccount\n{% if", f"\n{HOUR_THREE}Account\n{{% if")
    settings = {"strategy__prompt": prompt, "cache__offline_miss": "hold", "risk__max_failed_share": 0.05}
    done = cli("run", small_config(tmp_path, "http://127.0.0.1:9/v1", **settings), "--offline", "--json")
    assert done.code == 3
    assert done.json["decisions"]["reasons"]["transport: offline_miss"] >= 4


def test_stats_and_prune_on_the_store_of_a_run(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "cache.sqlite"
    shutil.copy(made / "cache.sqlite", store)
    (row,) = cli("cache", "stats", "--path", store, "--json").json["models"]
    total = summary_of(made)["decisions"]["total"]
    assert (row["model"], row["endpoint_id"], row["replies"]) == ("baseline", "local", total)
    kept = cli("cache", "prune", "--unused-by", made / "runs", "--path", store, "--yes", "--json").json
    assert (kept["removed"], kept["kept"]) == (0, total)
    gone = cli("cache", "prune", "--model", "baseline", "--path", store, "--yes", "--json").json
    assert (gone["removed"], gone["kept"]) == (total, 0)
