"""`agent-bt resume`, `agent-bt replay`, and resumable runs in `runs list`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, stand_in_answer
from small_run import Done, cli, small_config


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(stand_in_answer(eagerness=0.6)) as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: ChatServer) -> Path:
    """A folder with three runs: `old` stopped at its budget, `small` done, `young` stopped at its budget."""
    folder = tmp_path_factory.mktemp("made")
    for replicate, (name, calls) in enumerate((("old", 5), ("small", None), ("young", 9))):
        config = small_config(
            folder, server.url, name=name, budget={"calls": calls}, prefetch={"depth": 0}, llm__replicate=replicate
        )
        assert cli("run", config, "-q", "--limit", 12).code == (4 if calls else 0)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    shutil.copy(made / "cache.sqlite", tmp_path)
    return tmp_path


def resume(folder: Path, *arguments: str) -> Done:
    """Resume with its own cache, so that tests do not share replies."""
    return cli("resume", *arguments, "--root", folder / "runs", "--set", f"cache.path={folder / 'cache.sqlite'}")


def test_the_list_marks_resumable_runs(folder: Path) -> None:
    done = cli("runs", "list", "--root", folder / "runs", "--json")
    assert {run["name"]: (run["status"], run["resumable"]) for run in done.json["runs"]} == {
        "old": ("budget", True),
        "small": ("done", False),
        "young": ("budget", True),
    }
    shown = cli("runs", "list", "--root", folder / "runs")
    assert shown.out.count("budget, resumable") == 2
    assert "agent-bt resume RUN" in shown.err


def test_resume_takes_the_newest_resumable_run(folder: Path) -> None:
    without_limit = ("--set", "budget.calls=null")
    for name in ("young", "old"):
        done = resume(folder, *without_limit, "--json", "--progress", "none")
        assert (done.code, done.json["about"]["name"], done.json["status"]) == (0, name, "done"), done.err
        assert done.json["decisions"]["total"] == 12  # the limit of the first command still holds
    done = resume(folder)
    assert done.code == 2
    assert "can be continued" in done.err


def test_a_budget_that_is_still_too_small_stops_the_run_again(folder: Path) -> None:
    done = resume(folder, "old", "-q")
    assert done.code == 4
    done = resume(folder, "old", "--set", "budget.calls=8", "--json", "--progress", "none")
    assert (done.code, done.json["status"]) == (4, "budget")
    assert done.json["llm"]["calls"] == 8


def test_resume_offline_sends_no_request(folder: Path, made: Path, server: ChatServer) -> None:
    calls = server.calls
    done = resume(folder, "old", "--offline", "-q")
    assert done.code == 5  # the remaining requests were never sent
    assert server.calls == calls


def test_a_missing_run_is_an_error(folder: Path) -> None:
    for command in ("resume", "replay"):
        done = cli(command, "nonsense", "--root", folder / "runs")
        assert done.code == 2
        assert "nonsense" in done.err


def test_replay_reports_identical_and_the_equal_hashes(folder: Path) -> None:
    done = cli("replay", "small", "--root", folder / "runs", "-q")
    assert done.code == 0
    assert done.out.startswith("identical: ")
    assert "hashes of data, decisions, fills and equity are equal" in done.out


def test_replay_never_writes_into_the_folder(folder: Path) -> None:
    (run,) = (folder / "runs").glob("*-small-*")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    assert cli("replay", run, "-q").code == 0
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()} == before
