"""The SQLite file behind the store of replies: its schema, how it is opened, and its errors as messages."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from agent_bt.core.errors import RecordError
from agent_bt.llm.cache_entry import DamagedEntry

_APPLICATION_ID = 0x41425443
_VERSION = 1
_BUSY_S = 60.0

_SCHEMA = """
CREATE TABLE reply (
    address BLOB PRIMARY KEY,   -- SHA-256, 32 bytes
    provider TEXT NOT NULL,
    endpoint_id TEXT NOT NULL,
    model TEXT NOT NULL,
    replicate INTEGER NOT NULL,
    messages INTEGER NOT NULL,  -- 63 bits of the hash of all messages
    family INTEGER NOT NULL,    -- 63 bits of the hash of the first message, the stable part of the prompt
    obtained_at INTEGER NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd REAL,
    request BLOB NOT NULL,      -- zlib of the canonical JSON whose tagged hash is the address
    reply BLOB NOT NULL         -- zlib of JSON: text, finish_reason, refusal, raw body, usage, latency, attempts, cost
);
CREATE INDEX reply_messages ON reply (messages);
CREATE INDEX reply_family ON reply (model, family, obtained_at);
CREATE TABLE note (key BLOB PRIMARY KEY, value TEXT NOT NULL)
"""


def open_store(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a connection to a store.

    Args:
        path: the file; it is made where it is missing, unless `read_only`.
        read_only: open without the right to write.

    Raises:
        RecordError: it cannot be opened, is damaged, or is something else.
    """
    if read_only and not path.is_file():
        raise RecordError(f"there is no store of replies at {path}; check cache.path")
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"the folder of the store of replies cannot be created: {error}; check cache.path") from error
    with translate_errors(path):
        db = connect(path, read_only=read_only)
        try:
            _prepare(db, path, read_only=read_only)
        except BaseException:
            db.close()
            raise
        return db


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open one more connection to an existing store.

    Args:
        path: the file.
        read_only: open without the right to write.
    """
    if not read_only:
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        # FULL: a commit is on the disk when it returns, so that not even a power cut takes a reply back.
        db.execute("PRAGMA synchronous = FULL")
        return db
    # On a read-only medium SQLite has to know that no other process writes either.
    frozen = "" if os.access(path.parent, os.W_OK) else "&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode=ro{frozen}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit everything that is written inside the block, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class translate_errors:  # noqa: N801 - a context manager, as a class because it stands on the path of every read
    """Turn errors of SQLite and damaged entries inside the block into a RecordError that says what to do."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DamagedEntry):
            raise RecordError(_damaged(self._path, error)) from error
        if isinstance(error, sqlite3.Error):
            raise RecordError(_failure(self._path, error)) from error


def _failure(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _damaged(path, error)
    if name.startswith("SQLITE_FULL"):
        return f"no room to write {path}: the disk is full. Free some space and run the same command again"
    if name.startswith("SQLITE_IOERR"):
        return (
            f"{path} cannot be used ({error}): the disk may be full or failing. Check it and run the same command again"
        )
    if name.startswith("SQLITE_READONLY"):
        return f"{path} cannot be written: the disk or the file is read-only. Give another cache.path"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{path} cannot be opened; check that cache.path is a file in a folder you may write to"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path} is held by another process for over {_BUSY_S:.0f} s; end it and run the same command again"
    return f"the store of replies {path} failed: {error}"


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"the store of replies {path} is damaged ({error}). Move the file away and bring the replies back with"
        " `agent-bt cache import` from an export; a run folder replays from its own records without the store"
    )


def _prepare(db: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    if _kind(db) == 0 and not read_only:
        with transaction(db):
            if _kind(db) == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    if _kind(db) != _APPLICATION_ID:
        raise RecordError(f"{path} is not a store of replies; give another cache.path")
    if db.execute("PRAGMA user_version").fetchone()[0] > _VERSION:
        raise RecordError(f"{path} was written by a newer agent-bt; update agent-bt to use it")
    if not read_only:
        _switch_to_wal(db)


def _kind(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA application_id").fetchone()[0])


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """Let readers and the writer of any process work at once. SQLite does not wait for the lock by itself here."""
    deadline = time.monotonic() + _BUSY_S
    while db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
