"""A run that stopped, for whatever reason, goes on with the same command and ends as if it had never stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, stand_in_answer
from small_run import clean_env, cli, small_config, write_market

from agent_bt.backtest import execute
from agent_bt.records.journal import JournalReader, JournalWriter

HOURS = 9


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_market(tmp_path_factory.mktemp("market") / "market.parquet", hours=HOURS)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(stand_in_answer(eagerness=0.6)) as running:
        yield running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, market: Path, server: ChatServer) -> dict[str, str]:
    """The hashes of the run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(market, folder)
    done = cli("run", small_config(folder, server.url), "--json", "--progress", "none")
    assert done.code == 0, done.err
    hashes: dict[str, str] = done.json["hashes"]
    return hashes


@pytest.fixture
def folder(tmp_path: Path, market: Path) -> Path:
    shutil.copy(market, tmp_path)
    return tmp_path


def runs(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/2*"))


def stopped(folder: Path, server: ChatServer, **settings: Any) -> tuple[Path, Path]:
    """Config and run folder of a run that its budget stopped after some decisions."""
    done = cli("run", small_config(folder, server.url, budget__calls=14, prefetch__depth=0, **settings), "-q")
    assert done.code == 4, done.err
    (run,) = runs(folder)
    return small_config(folder, server.url, **settings), run


@pytest.mark.parametrize("by", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.verify)])
def test_ctrl_c_ends_with_130_and_the_same_command_continues(
    folder: Path, whole: dict[str, str], by: signal.Signals
) -> None:
    with ChatServer(stand_in_answer(eagerness=0.6)) as slow:
        slow.hold(after=12)
        config = small_config(folder, slow.url)
        command = [sys.executable, "-m", "agent_bt", "run", str(config), "--json", "--progress", "none"]
        process = subprocess.Popen(
            command, cwd=folder, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        slow.wait_for_calls(13)
        process.send_signal(by)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 130, err
        assert "the same command continues" in err
        interrupted = json.loads(out)
        assert interrupted["status"] == "interrupted"
        assert 0 < interrupted["decisions"]["total"] < 30
        slow.release()
        done = cli("run", config, "--json", "--progress", "none")
    assert (done.code, done.json["run_id"], done.json["hashes"]) == (0, interrupted["run_id"], whole)


@pytest.mark.parametrize("write", [1, 2])
def test_a_full_disk_is_told_and_the_same_command_continues(
    folder: Path, server: ChatServer, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    server.reset()
    config = small_config(folder, server.url, prefetch__depth=0)
    real, left = os.write, write

    def full(file: int, data: bytes) -> int:
        nonlocal left
        left -= b'"content"' in bytes(data[:200])
        if left <= 0 and b'"content"' in bytes(data[:200]):
            real(file, bytes(data)[: len(data) // 3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data)

    monkeypatch.setattr(execute, "JournalWriter", partial(JournalWriter, flush_every=4))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        done = cli("run", config, "-q")
    assert done.code == 1
    assert "No space left on device" in done.err
    assert "run the same command again to continue" in done.err
    assert server.calls < 20
    done = cli("run", config, "--json", "--progress", "none")
    assert (done.code, done.json["hashes"]) == (0, whole)
    assert len({json.dumps(body) for body in server.bodies}) == server.calls  # nothing was asked twice
    assert len(runs(folder)) == 1


def test_a_lost_network_stops_the_run_and_the_same_command_continues(folder: Path, whole: dict[str, str]) -> None:
    settings = {"llm__retries": 0, "risk__max_failures_in_a_row": 3, "prefetch__depth": 2}
    with ChatServer(stand_in_answer(eagerness=0.6)) as first:
        answer, port = first.answer, first.port

        def lost_after_ten(body: dict[str, Any]) -> Any:
            if first.calls > 10:
                raise ConnectionResetError
            return answer(body)

        first.answer = lost_after_ten
        config = small_config(folder, first.url, **settings)
        done = cli("run", config, "--json", "--progress", "none")
    assert done.code == 1
    assert "calls in a row have failed" in done.err
    lost = done.json
    assert lost["status"] == "interrupted"
    # Nothing listens at all now: told at once, and what there is stays.
    done = cli("run", config, "-q")
    assert done.code == 1
    with ChatServer(stand_in_answer(eagerness=0.6), port=port):
        done = cli("run", config, "--json", "--progress", "none")
    assert (done.code, done.json["run_id"]) == (0, lost["run_id"])
    assert done.json["hashes"] == whole
    assert done.json["decisions"]["transport"] == 0  # the failures of the outage became no decisions


def test_a_torn_last_line_of_the_journal_is_recovered(folder: Path, server: ChatServer, whole: dict[str, str]) -> None:
    _, run = stopped(folder, server)
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    done = cli("resume", "--root", folder / "runs", "--set", "budget.calls=20", "-q")
    assert done.code == 4
    assert len(list(JournalReader(journal))) > len(lines)  # whole again, and longer
    done = cli("resume", "--root", folder / "runs", "--set", "budget.calls=null", "--json", "--progress", "none")
    assert (done.code, done.json["run_id"], done.json["hashes"]) == (0, run.name, whole)
    assert runs(folder) == [run]


def test_a_damaged_line_in_the_middle_is_told_and_nothing_is_overwritten(folder: Path, server: ChatServer) -> None:
    config, run = stopped(folder, server)
    journal = run / "journal.jsonl"
    damaged = journal.read_bytes().replace(b'"HOLD"', b'"HELD"', 1)
    journal.write_bytes(damaged)
    done = cli("run", config, "-q")
    assert done.code == 1
    assert "journal.jsonl, line" in done.err
    assert journal.read_bytes() == damaged


def test_what_may_change_changes_and_the_run_goes_on(folder: Path, server: ChatServer, whole: dict[str, str]) -> None:
    server.reset()
    _, run = stopped(folder, server)
    changes = ["budget.calls=1000", "llm.timeout_s=5", "llm.retries=1", "llm.max_in_flight=2", "prefetch.depth=3"]
    changes += [f"cache.path={folder / 'other.sqlite'}", "risk.max_failed_share=0.5"]
    sets = [part for change in changes for part in ("--set", change)]
    done = cli("resume", run.name, "--root", folder / "runs", *sets, "--json", "--progress", "none")
    assert (done.code, done.json["run_id"], done.json["hashes"]) == (0, run.name, whole), done.err
    # The store is another one, so what was decided was answered by the journal.
    assert len({json.dumps(body) for body in server.bodies}) == server.calls


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("strategy.every=30m", "strategy.every: 15m -> 30m"),
        ("llm.model=larger", "llm.model: baseline -> larger"),
        ("execution.fee_rate=0", "execution.fee_rate: 0.001 -> 0"),
        ("seed=8", "seed: 7 -> 8"),
    ],
)
def test_resume_under_another_config_is_refused_with_what_differs(
    folder: Path, server: ChatServer, change: str, said: str
) -> None:
    _, run = stopped(folder, server)
    before = {path: path.read_bytes() for path in run.iterdir()}
    calls = server.calls
    done = cli("resume", run.name, "--root", folder / "runs", "--set", change)
    assert done.code == 2
    assert said in done.err
    assert server.calls == calls
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_resume_over_other_data_is_refused(folder: Path, server: ChatServer) -> None:
    _, run = stopped(folder, server)
    write_market(folder / "market.parquet", hours=HOURS, seed=6)
    done = cli("resume", run.name, "--root", folder / "runs")
    assert done.code == 2
    assert "the bars in that range are not the same any more" in done.err


def test_resume_under_another_prompt_is_refused(folder: Path, server: ChatServer) -> None:
    prompt = folder / "mine.prompty"
    shipped = Path(__file__).parents[2] / "prompts" / "btcusdt_trader" / "v1.prompty"
    prompt.write_text(shipped.read_text())
    _, run = stopped(folder, server, strategy__prompt=str(prompt))
    prompt.write_text(shipped.read_text().replace("HOLD, the usual answer", "HOLD"))
    done = cli("resume", run.name, "--root", folder / "runs")
    assert done.code == 2
    assert "the text of the prompt file has changed" in done.err


def test_fresh_begins_anew_and_leaves_the_old_one(folder: Path, server: ChatServer, whole: dict[str, str]) -> None:
    config, run = stopped(folder, server)
    before = (run / "journal.jsonl").read_bytes()
    done = cli("run", config, "--fresh", "--json", "--progress", "none")
    assert (done.code, done.json["hashes"]) == (0, whole)
    assert done.json["run_id"] != run.name
    assert (run / "journal.jsonl").read_bytes() == before


def test_a_finished_run_is_never_touched(folder: Path, server: ChatServer) -> None:
    config = small_config(folder, server.url)
    assert cli("run", config, "-q").code == 0
    (first,) = runs(folder)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert cli("run", config, "-q").code == 0
    assert len(runs(folder)) == 2
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    done = cli("resume", first.name, "--root", folder / "runs")
    assert done.code == 2
    assert f"agent-bt replay {first.name}" in done.err


def test_two_processes_never_write_to_one_run(folder: Path, whole: dict[str, str]) -> None:
    with ChatServer(stand_in_answer(eagerness=0.6)) as slow:
        slow.hold(after=6)
        config = small_config(folder, slow.url, prefetch__depth=1)
        command = [sys.executable, "-m", "agent_bt", "run", str(config), "--json", "--progress", "none"]
        process = subprocess.Popen(
            command, cwd=folder, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        slow.wait_for_calls(7)
        second = cli("run", config, "-q")
        slow.release()
        out, err = process.communicate(timeout=300)
    assert second.code == 1
    assert "another process is writing" in second.err
    assert process.returncode == 0, err
    assert json.loads(out)["hashes"] == whole
    assert cli("runs", "verify", runs(folder)[0]).code == 0
