"""Runs commands of agent-bt in children of this process and kills them at a chosen write.

One JSON object a line on stdin: `argv`, `cwd`, `kill_at` (number of the write, from 1; null: never), `how`. One a line
on stdout: `status` (exit code, -9 when killed) and `writes` (how many there were). What takes long to load is loaded
once, before the first child is made.

`how`: `before` the write, in the middle of it (`torn`: half of it is there), or `after` it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import genai_prices.data  # noqa: F401
import httpx  # noqa: F401
import numba
import polars as pl
import pyarrow.parquet as pq

import agent_bt.backtest.run
import agent_bt.llm.openai_client
import agent_bt.reports.html
import agent_bt.reports.terminal  # noqa: F401
from agent_bt.cli import main as cli
from agent_bt.llm.ledger import Ledger

Torn = Callable[..., None]


class Killer:
    """Counts the writes of this process, over all its threads, and ends it at one of them as `kill -9` does."""

    def __init__(self, kill_at: int | None, how: str) -> None:
        self.writes = 0
        self._at, self._how = kill_at, how
        self._lock = threading.Lock()

    def watch(self, owner: Any, name: str, torn: Torn | None = None, only: Callable[..., bool] | None = None) -> None:
        """Count the calls of `owner.name` as writes; `torn` does half of one."""
        real = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            if only is not None and not only(*args, **kwargs):
                return real(*args, **kwargs)
            with self._lock:
                self.writes += 1
                last = self.writes == self._at
            if last and self._how != "after":
                if self._how == "torn" and torn is not None:
                    torn(real, *args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counted)


class WatchedConnection(sqlite3.Connection):
    """A connection whose statements can be watched, which those of a built-in class can't."""

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """As in the base class."""
        return super().execute(*args)


def watch_all(killer: Killer) -> None:
    """Count every write of a run: files, names, the journal, the ledger, the store of replies, the tables."""
    killer.watch(os, "write", half_bytes, only=lambda file, _: stat.S_ISREG(os.fstat(file).st_mode))
    for name in ("fsync", "replace", "unlink", "ftruncate", "mkdir"):
        killer.watch(os, name)
    killer.watch(Path, "write_bytes", half_file)
    killer.watch(Path, "write_text", half_file)
    killer.watch(Ledger, "_append", half_ledger_line)
    killer.watch(pl.DataFrame, "write_parquet", half_table)
    killer.watch(pq.ParquetWriter, "write_table")
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, **kwargs, factory=WatchedConnection)  # type: ignore[assignment]
    killer.watch(WatchedConnection, "execute", only=lambda _, sql, *__: sql.startswith(("INSERT", "COMMIT", "CREATE")))


def half_bytes(write: Callable[..., int], file: int, data: bytes) -> None:
    write(file, bytes(data)[: len(data) // 2])


def half_file(write: Callable[..., int], path: Path, data: str | bytes, *args: Any, **kwargs: Any) -> None:
    write(path, data[: len(data) // 2], *args, **kwargs)


def half_ledger_line(append: Callable[..., None], ledger: Ledger, *args: Any) -> None:
    append(ledger, *args)
    assert ledger._path is not None
    os.truncate(ledger._path, ledger._path.stat().st_size - 5)


def half_table(write: Callable[..., None], frame: pl.DataFrame, path: Path, **kwargs: Any) -> None:
    write(frame, path, **kwargs)
    os.truncate(path, path.stat().st_size // 2)


def child(job: dict[str, Any], result: int) -> None:
    """Be the command; the number of writes goes to the pipe `result`."""
    killer = Killer(job["kill_at"], job["how"])
    os.chdir(job["cwd"])
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    watch_all(killer)
    sys.argv = ["agent-bt", *job["argv"]]
    code = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        os.write(result, str(killer.writes).encode())
    os._exit(code)


def main() -> None:
    numba.njit(lambda: None)()  # loads the compiler, too
    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            child(job, write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            writes = pipe.read()
        _, ended = os.waitpid(pid, 0)
        answer = {"status": os.waitstatus_to_exitcode(ended), "writes": int(writes or 0)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
