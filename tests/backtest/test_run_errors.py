"""How a run ends when something is wrong: one clear message, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import small_run
from chat_server import ChatServer, stand_in_answer
from whole_runs import START, config_over, minutes, recorded, run_over

from agent_bt.cli import main as cli
from agent_bt.config.load import config_to_yaml
from agent_bt.config.model import Config
from agent_bt.core.errors import Interrupted, RecordError
from agent_bt.records.journal import JournalReader, JournalWriter
from agent_bt.records.read import list_runs

KEY = "a-test-key-that-must-not-be-shown"


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A day of minutes in an own working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = tmp_path / "market.parquet"
    minutes(1440, holes=False).write_parquet(path)
    return path


def config_of(market: Path, *settings: str) -> Config:
    return config_over(market, "strategy.every=30m", *settings, folder=market.parent, end=START + timedelta(days=1))


def write_config(market: Path, *settings: str) -> Path:
    path = market.parent / "run.yaml"
    path.write_text(config_to_yaml(config_of(market, *settings)), encoding="utf-8")
    return path


def ends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["agent-bt", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err
    return int(caught.value.code or 0), captured.err


ENDPOINT = ("llm.provider=openai", "llm.base_url=http://127.0.0.1:9")
WRONG = {
    "a key that does not exist": (2, "strategy.evry", ("strategy.evry=1h",)),
    "a wrong type": (2, "account.cash", ("account.cash=a lot",)),
    "no such prompt": (2, "btcusdt_trader", ("strategy.prompt=btcusdt_trader/v99",)),
    "no such strategy": (2, "did you mean buy_and_hold?", ("strategy.kind=buy_and_holt",)),
    "a strategy module that is not there": (2, "no module nowhere", ("strategy.kind=nowhere:Class",)),
    "parameters for an agent": (2, "strategy.params", ("strategy.params={a: 1}",)),
    "a parameter that is no setting": (2, "eagernes", ("llm.params={eagernes: 1}",)),
    "a lot step that is no decimal": (2, "lot_step", ("execution.lot_step=1e-17",)),
    "a range without a decision": (2, "leaves no decision", ("market.end=2024-07-01T00:30Z",)),
    "a file that is not there": (1, "there is no such file", ("market.source=missing.parquet",)),
    "a range the file lacks": (1, "change market.start / market.end", ("market.end=2024-07-09",)),
    "an empty store": (1, "agent-bt data backfill", ("market.source=store", "data.root=empty")),
    "a folder in the place of the cache": (1, "cache", (*ENDPOINT, "cache.path=.")),
    "a file in the place of the output": (1, "cannot be", ("output=market.parquet",)),
    "no key": (1, "NO_SUCH_KEY", ("llm.provider=openai", "llm.api_key_env=NO_SUCH_KEY")),
    "a budget without a price": (2, "llm.prices", (*ENDPOINT, "budget.usd=1")),
    "no decision, found before the endpoint is asked": (2, "leaves no decision", (*ENDPOINT, "features.window=9999")),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_message_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, market: Path, what: str
) -> None:
    code, words, settings = WRONG[what]
    config = write_config(market)
    options = [part for setting in settings for part in ("--set", setting)]
    found, err = ends(capsys, monkeypatch, "run", config, "-q", *options)
    assert words in err
    assert found == code
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert "unexpected" not in err
    # Nothing has begun, so nothing is left behind.
    assert list_runs(market.parent / "runs") == []
    assert not [path for path in (market.parent / "runs").glob("*") if path.is_dir()]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_config_that_cannot_be_read_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, market: Path, name: str
) -> None:
    code, err = ends(capsys, monkeypatch, "run", name)
    assert (code, name in err) == (2, True)


def test_a_strategy_that_fails_is_named_with_its_bar_and_what_was_decided_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, market: Path
) -> None:
    (market.parent / "failing_rule.py").write_text(
        "from agent_bt import Decision, Strategy\n"
        "class Fails(Strategy):\n"
        "    def decide(self, view, portfolio):\n"
        "        if view.now % 86_400_000_000 == 5 * 3_600_000_000:\n"
        "            raise ZeroDivisionError('no volume')\n"
        "        return Decision.buy('BTCUSDT', 0.5)\n"
    )
    code, err = ends(capsys, monkeypatch, "run", write_config(market, "strategy.kind=failing_rule:Fails"), "-q")
    assert code == 1
    assert "strategy Fails, decision 9 at 2024-07-01T05:00Z: ZeroDivisionError: no volume" in err
    assert "failing_rule.py, line 5" in err
    assert "Traceback" not in err
    (entry,) = list_runs(market.parent / "runs")
    assert (entry.status, entry.decisions) == ("interrupted", 9)
    assert len(list(JournalReader(entry.path / "journal.jsonl"))) == 9


def test_two_processes_do_not_write_to_one_run(market: Path) -> None:
    config = config_of(market)
    stopped = interrupted_at(config, 5)
    with JournalWriter(stopped / "journal.jsonl"), pytest.raises(RecordError, match="another process"):
        run_over(config)
    assert run_over(config).run_dir == stopped


class InterruptAt:
    """Ctrl-C after so many decisions."""

    def __init__(self, count: int) -> None:
        self.count = count

    def start(self, *_: Any, **__: Any) -> None: ...
    def note(self, *_: Any) -> None: ...
    def stop(self) -> None: ...
    def update(self, done: int, **_: Any) -> None:
        if done == self.count:
            raise KeyboardInterrupt


def interrupted_at(config: Config, count: int) -> Path:
    result = run_over(config, progress=InterruptAt(count))
    assert (result.status, result.error.exit_code) == ("interrupted", 130)  # type: ignore[union-attr]
    assert result.summary["decisions"]["total"] == count
    return result.run_dir


@pytest.mark.parametrize(
    "settings", [(), ("execution.fill=next_open", "risk.stop_loss=0.003"), ("strategy.kind=buy_and_hold",)]
)
def test_an_interrupted_run_continues_to_the_same_content(market: Path, settings: tuple[str, ...]) -> None:
    config = config_of(market, *settings)
    whole = run_over(config, fresh=True)
    for count in (1, 17, 44):
        stopped = interrupted_at(config, count)
        continued = run_over(config)
        assert continued.run_dir == stopped
        assert continued.status == "done"
        assert continued.summary["hashes"] == whole.summary["hashes"]
        assert recorded(continued.run_dir) == recorded(whole.run_dir)
        assert continued.summary["decisions"] == whole.summary["decisions"]
        assert continued.summary["performance"] == whole.summary["performance"]


def test_a_run_interrupted_twice_continues_where_it_was(market: Path) -> None:
    config = config_of(market)
    first = interrupted_at(config, 20)
    second = interrupted_at(config, 9)
    assert first == second
    # The second stop came before the first one, and took nothing away.
    assert len(list(JournalReader(first / "journal.jsonl"))) == 20
    assert run_over(config).summary["hashes"] == run_over(config, fresh=True).summary["hashes"]


def test_fresh_leaves_the_unfinished_run_alone_and_a_finished_one_is_never_touched(market: Path) -> None:
    config = config_of(market)
    unfinished = interrupted_at(config, 7)
    before = (unfinished / "journal.jsonl").read_bytes()
    fresh = run_over(config, fresh=True)
    assert fresh.run_dir != unfinished
    assert (unfinished / "journal.jsonl").read_bytes() == before
    assert run_over(config).run_dir == unfinished
    kept = {path: path.read_bytes() for path in fresh.run_dir.iterdir()}
    another = run_over(config)
    assert another.run_dir not in (fresh.run_dir, unfinished)
    assert {path: path.read_bytes() for path in fresh.run_dir.iterdir()} == kept


def test_what_may_change_does_not_make_another_run_and_what_decides_does(market: Path) -> None:
    stopped = interrupted_at(config_of(market), 5)
    assert run_over(config_of(market, "risk.stop_loss=0.01")).run_dir != stopped
    assert run_over(config_of(market), limit=9).run_dir != stopped
    changeable = (
        "budget.calls=100",
        "prefetch.depth=2",
        "llm.retries=1",
        "llm.timeout_s=3",
        "risk.max_failed_share=0.5",
    )
    assert run_over(config_of(market, *changeable)).run_dir == stopped


@contextmanager
def asking(market: Path) -> Iterator[tuple[Path, ChatServer]]:
    """A config in a file, and the server that it asks."""
    with ChatServer(stand_in_answer(eagerness=1.0)) as server:
        settings = (f"llm.base_url={server.url}", "llm.endpoint_id=local", "llm.provider=openai", "prefetch.depth=0")
        yield write_config(market, *settings), server


def command(config: Path, **options: Any) -> subprocess.Popen[str]:
    """`agent-bt run` in a process of its own."""
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "agent_bt", "run", str(config), "--json", "--progress", "none"],
        cwd=config.parent, env={**os.environ, "PYTHONPATH": root}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 130, marks=pytest.mark.verify),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.verify),
    ],
)
def test_a_signal_ends_a_waiting_run_at_once_and_it_continues(market: Path, sent: signal.Signals, code: int) -> None:
    with asking(market) as (config, server):
        server.hold(after=7)
        process = command(config)
        try:
            server.wait_for_calls(8)
            process.send_signal(sent)
            # Before its call is answered.
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == code
        assert "Traceback" not in err
        (unfinished,) = list_runs(market.parent / "runs")
        assert unfinished.resumable
        if sent != signal.SIGKILL:
            assert err.strip() == "error: interrupted; the same command continues the run"
            assert json.loads(out)["status"] == "interrupted"
        server.release()
        asked = server.calls
        done = small_run.cli("run", config, "--json", "--progress", "none")
        assert done.code == 0, done.err
        summary = done.json
        assert summary["run_id"] == unfinished.run_id
        # Replies that had come are not paid again: the first call probed, the last may have been under way.
        assert server.calls - asked <= 45 - (asked - 2)
    inside = run_over(config_of(market, "llm.params={eagerness: 1.0}"))
    assert summary["hashes"]["fills"] == inside.summary["hashes"]["fills"]
    assert summary["hashes"]["equity"] == inside.summary["hashes"]["equity"]
    assert summary["decisions"]["total"] == summary["decisions"]["model"] == 45


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
@pytest.mark.parametrize(
    ("kib", "file"),
    [
        pytest.param(3, "manifest.json", marks=pytest.mark.verify),
        (60, "journal.jsonl"),
        (500, "report"),
    ],
)
def test_a_full_disk_ends_with_a_message_and_what_was_written_is_intact(market: Path, kib: int, file: str) -> None:
    config = write_config(market)
    limit = kib * 1024
    process = command(config, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert file in err
    assert "File too large" in err
    runs = list_runs(market.parent / "runs")
    if file == "manifest.json":
        assert runs == []
    else:
        (entry,) = runs
        assert entry.resumable == (file != "report")
    continued = run_over(config_of(market))
    whole = run_over(config_of(market), fresh=True)
    assert continued.summary["hashes"] == whole.summary["hashes"]
    if file == "journal.jsonl":
        assert continued.run_dir == entry.path
        assert recorded(continued.run_dir) == recorded(whole.run_dir)


def test_no_attempt_is_made_to_reach_the_network(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert run_over(config_of(market)).status == "done"
    assert run_over(config_of(market, "market.source=sample")).status == "done"


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Ctrl-C after so many seconds, wherever the run is by then."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.verify
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hundred_interrupts_at_any_moment_leave_only_runs_of_equal_content(market: Path) -> None:
    config = config_of(market)
    whole = run_over(config, fresh=True)
    began = time.perf_counter()
    run_over(config, fresh=True)
    usual = time.perf_counter() - began
    stops = 0
    for attempt in range(100):
        try:
            with alarm(usual * (attempt % 25 + 1) / 26):
                stops += run_over(config).status == "interrupted"
        except Interrupted:  # before the first decision
            stops += 1
        except BaseException as error:
            # Inside Polars, an interrupt becomes a panic that quotes it.
            if "KeyboardInterrupt" not in f"{type(error).__name__}: {error}":
                raise
            stops += 1
    assert stops > 10
    run_over(config)
    entries = list_runs(market.parent / "runs")
    assert {entry.status for entry in entries} == {"done"}
    for entry in entries:
        summary = json.loads((entry.path / "summary.json").read_text())
        assert summary["hashes"] == whole.summary["hashes"]
