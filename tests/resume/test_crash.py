"""kill -9 at any write: the same command again ends with the same content, and pays for no stored reply twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, stand_in_answer
from small_run import clean_env, small_config, write_market

from agent_bt.llm.cache_store import ReplyStore

if not hasattr(os, "fork"):
    pytest.skip("the commands are run in forks", allow_module_level=True)

HOURS = 9
DEPTHS = (0, 3)
HOW = ("before", "torn", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    status: int
    writes: int
    stderr: str


Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    """Run `agent-bt run small.yaml` in a folder, killed at a write or not."""
    driver = Path(__file__).with_name("crash_driver.py")
    process = subprocess.Popen(
        [sys.executable, str(driver)], env=clean_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def run(folder: Path, *, kill_at: int | None = None, how: str = "before") -> Ended:
        job = {"argv": ["run", "small.yaml", "-q"], "cwd": str(folder), "kill_at": kill_at, "how": how}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        return Ended(**answer, stderr=(folder / "stderr").read_text())

    yield run
    process.communicate(timeout=300)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(stand_in_answer(eagerness=0.6), latency_ms=2) as running:
        yield running


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_market(tmp_path_factory.mktemp("market") / "market.parquet", hours=HOURS)


class Place:
    """A folder in which the run is made, killed and continued; it has its own store of replies."""

    def __init__(self, folder: Path, market: Path, server: ChatServer, depth: int) -> None:
        folder.mkdir()
        (folder / "market.parquet").symlink_to(market)
        small_config(folder, server.url, llm__max_in_flight=4, prefetch__depth=depth)
        self.folder = folder
        self.unstored = 2 * depth + 1
        """Most calls at once whose replies are not stored: after a wrong guess, those sent ahead on it and new ones."""

    def summaries(self) -> list[dict[str, Any]]:
        """Of all runs that are there."""
        return [json.loads(path.read_text()) for path in self.folder.glob("runs/*/summary.json")]

    def finished(self) -> bool:
        """Whether a run is there that has nothing left to do."""
        return any(not (path.parent / "journal.jsonl").exists() for path in self.folder.glob("runs/*/summary.json"))

    def left_over(self) -> list[str]:
        """Files that a finished run does not have."""
        runs = [path.parent for path in self.folder.glob("runs/*/summary.json")]
        return [path.name for run in runs for name in ("*.partial", "journal.jsonl") for path in run.glob(name)]

    def stored(self) -> list[str]:
        """The bodies whose replies are in the store, as the server sees them."""
        file = self.folder / "cache.sqlite"
        if not file.exists() or not file.stat().st_size:
            return []
        with ReplyStore(file) as store:
            return [as_text(entry.request.body) for entry in store.entries()]


def as_text(body: Any) -> str:
    return json.dumps(body, sort_keys=True)


def asked(server: ChatServer) -> Counter[str]:
    return Counter(as_text(body) for body in server.bodies)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, market: Path, server: ChatServer, command: Command) -> Any:
    """The uninterrupted run: its summary, and how many writes it made."""
    place = Place(tmp_path_factory.mktemp("whole") / "run", market, server, depth=3)
    ended = command(place.folder)
    assert ended.status == 0, ended.stderr
    (summary,) = place.summaries()
    assert summary["decisions"]["total"] >= 25
    assert summary["decisions"]["buy"] and summary["decisions"]["sell"], "the account must move"
    return summary, ended.writes


def kill_points(writes: int, count: int, seed: int) -> list[tuple[int, str]]:
    """`count` kills, one in each of as many equal stretches of the run, drawn by the seed."""
    draw = random.Random(seed)
    edges = [round(at * writes / count) for at in range(count + 1)]
    return [(draw.randint(first + 1, last), draw.choice(HOW)) for first, last in pairwise(edges)]


def check_kill(place: Place, server: ChatServer, command: Command, whole: Any, kill_at: int, how: str) -> int | None:
    """Kill, look, run again, compare; None: it was killed, else how many writes it made, fewer than `kill_at`."""
    server.reset()
    killed = command(place.folder, kill_at=kill_at, how=how)
    assert killed.status in (-9, 0), killed.stderr
    before, stored, finished = asked(server), place.stored(), place.finished()
    again = command(place.folder)
    assert again.status == 0, (kill_at, how, again.stderr)
    summaries = place.summaries()
    assert len(summaries) == 1 + finished, (kill_at, how)  # what is finished is never touched
    for summary in summaries:
        assert (summary["status"], summary["hashes"]) == ("done", whole["hashes"]), (kill_at, how)
    assert finished or not place.left_over(), (kill_at, how)
    repeated = {body: count - before[body] for body, count in asked(server).items() if count > 1 and before[body]}
    paid_twice = [body for body in stored if repeated.get(body)]
    assert not paid_twice, (kill_at, how)
    # The next call is sent only when the reply to the last one is used, and so is stored.
    assert sum(repeated.values()) <= place.unstored, (kill_at, how)
    return killed.writes if killed.status == 0 else None


def check_kills(
    folder: Path, market: Path, server: ChatServer, command: Command, whole: Any, count: int, seed: int
) -> None:
    """Kill `count` runs, each in another stretch of its writes.

    Replies that arrive together are stored by one write, so one run makes fewer writes than another. A run that ended
    before its kill is made again, and killed as far into the writes that it had.
    """
    summary, writes = whole
    for (point, how), depth in zip(kill_points(writes, count, seed), cycle(DEPTHS), strict=False):
        kill_at = point
        for attempt in range(10):
            place = Place(folder / f"{point}-{how}-{attempt}", market, server, depth)
            made = check_kill(place, server, command, summary, kill_at, how)
            if made is None:
                break
            kill_at = max(1, point * made // writes)
        else:
            raise AssertionError(f"no run came to write {point} of {writes}")


def test_killed_at_a_few_writes_the_run_ends_the_same(
    tmp_path: Path, market: Path, server: ChatServer, command: Command, whole: Any
) -> None:
    check_kills(tmp_path, market, server, command, whole, 4, seed=1)


@pytest.mark.verify
def test_killed_at_64_writes_the_run_ends_the_same(
    tmp_path: Path, market: Path, server: ChatServer, command: Command, whole: Any
) -> None:
    check_kills(tmp_path, market, server, command, whole, 64, seed=2)
