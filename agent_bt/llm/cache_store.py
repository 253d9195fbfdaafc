"""The store of replies: one SQLite file, addressed by the content of the request, shared by threads and processes.

An entry is written once and never changed: the first reply to an address stays, and a second process that got another
one receives the first. Writes go through one thread that commits everything in its queue at once (group commit), so a
reply whose `put` is done survives the end of the process and a power cut.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from agent_bt.core.canonical import canonical
from agent_bt.core.errors import RecordError
from agent_bt.core.types import Request
from agent_bt.llm.cache_entry import (
    Entry,
    fingerprints,
    pack_reply,
    pack_request,
    same_answer,
    unpack_reply,
    unpack_request,
    verify_request,
)
from agent_bt.llm.cache_sqlite import connect, open_store, transaction, translate_errors

_BATCH = 256
_ENTRY = "SELECT address, request, reply, obtained_at FROM reply"

_Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStats:
    """Totals of the stored replies of one model.

    Attributes:
        provider, endpoint_id, model: of the requests.
        replies: their number.
        prompt_tokens, completion_tokens: sums.
        cost_usd: sum over the replies with a known price.
        unpriced: the number of replies without one.
        oldest, newest: when the first and the last reply came, UTC us.
    """

    provider: str
    endpoint_id: str
    model: str
    replies: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int
    oldest: int
    newest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCounts:
    """The result of adding many entries.

    Attributes:
        new: entries that were added.
        known: entries whose address was in the store already.
        differing: those of the known ones whose stored reply is another one.
    """

    new: int
    known: int
    differing: int


class ReplyStore:
    """A content-addressed store of replies in one file.

    Args:
        path: the file; it and its folder are created where missing (not with `read_only`).
        read_only: open an existing store without the right to write, as an offline replay does.

    Raises:
        RecordError: the file cannot be opened, is damaged, or is something else; also from every method.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Entry, _Row, Future[Entry]] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._closed = False
        self._reader = open_store(self.path, read_only=read_only)

    def __enter__(self) -> ReplyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._select("SELECT count(*) FROM reply")[0][0])

    def get(self, request: Request) -> Entry | None:
        """Return the stored reply to exactly this request, or None. The stored request must hash to its address.

        Raises:
            RecordError: the entry does not belong to its address, or the file is damaged.
        """
        address = bytes.fromhex(request.address)
        rows = self._select(f"{_ENTRY} WHERE address = ?", (address,))
        if not rows:
            return None
        _, packed, reply, obtained_at = rows[0]
        with translate_errors(self.path):
            verify_request(address, packed)
            return Entry(request=request, reply=unpack_reply(reply), obtained_at=obtained_at)

    def put(self, entry: Entry) -> Future[Entry]:
        """Queue an entry for writing; the future is done when the entry at its address is durable.

        That is `entry`, or the earlier one where another process was first. The future fails with a RecordError where
        nothing can be written.

        Raises:
            ValueError: the reply is a transport failure, which is never stored.
        """
        if entry.reply.failure is not None:
            raise ValueError(f"a failed call ({entry.reply.failure}) is not an answer and cannot be stored")
        row = _to_row(entry)
        done: Future[Entry] = Future()
        with self._lock:
            if self._closed or self.read_only:
                done.set_exception(RecordError(f"the store of replies {self.path} is not open for writing"))
                return done
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="reply-store", daemon=True)
                self._writer.start()
            self._queue.put((entry, row, done))
        return done

    def put_all(self, entries: Iterable[Entry]) -> ImportCounts:
        """Write many entries: all of them, or none where `entries` or the disk fails."""
        known = differing = total = 0
        with self._writing() as db:
            for entry in entries:
                total += 1
                earlier = _insert(db, _to_row(entry))
                if earlier is not None:
                    known += 1
                    differing += not same_answer(unpack_reply(earlier[0]), entry.reply)
        return ImportCounts(new=total - known, known=known, differing=differing)

    def entries(self, addresses: set[str] | None = None) -> Iterator[Entry]:
        """Yield all entries, or those at `addresses`, oldest first; each verified against its address."""
        with translate_errors(self.path), closing(connect(self.path, read_only=self.read_only)) as db:
            for row in db.execute(f"{_ENTRY} ORDER BY obtained_at, address"):
                if addresses is None or row[0].hex() in addresses:
                    yield _from_row(*row)

    def candidates(self, request: Request, limit: int) -> list[Entry]:
        """Return stored entries that may resemble a request.

        Args:
            request: what they are compared with.
            limit: the largest number of entries; those with the same messages come first, then those with the same
                first message, then those of the same model.
        """
        messages, family = fingerprints(request)
        model = _model(request)
        rows = self._select(f"{_ENTRY} WHERE messages = ? LIMIT ?", (messages, limit))
        for same in ("=", "<>"):
            where = f"model = ? AND family {same} ? AND messages <> ? ORDER BY obtained_at DESC LIMIT ?"
            rows += self._select(f"{_ENTRY} WHERE {where}", (model, family, messages, limit - len(rows)))
        with translate_errors(self.path):
            return [_from_row(*row) for row in rows]

    def addresses(self, *, model: str | None = None, obtained_before: int | None = None) -> set[str]:
        """Return the addresses of entries.

        Args:
            model: only of this model; None: of all.
            obtained_before: only of replies that came before this instant, UTC us; None: of all.
        """
        where = "(?1 IS NULL OR model = ?1) AND (?2 IS NULL OR obtained_at < ?2)"
        rows = self._select(f"SELECT address FROM reply WHERE {where}", (model, obtained_before))
        return {address.hex() for (address,) in rows}

    def stats(self) -> list[ModelStats]:
        """Return totals by provider, endpoint and model."""
        rows = self._select(
            "SELECT provider, endpoint_id, model, count(*), coalesce(sum(prompt_tokens), 0),"
            " coalesce(sum(completion_tokens), 0), total(cost_usd), sum(cost_usd IS NULL), min(obtained_at),"
            " max(obtained_at) FROM reply GROUP BY provider, endpoint_id, model ORDER BY provider, endpoint_id, model"
        )
        names = ModelStats.__slots__
        return [ModelStats(**dict(zip(names, row, strict=True))) for row in rows]

    def delete(self, addresses: Iterable[str]) -> int:
        """Delete entries permanently and free their space; return how many were deleted."""
        with self._writing() as db:
            keys = [(bytes.fromhex(address),) for address in addresses]
            removed = db.executemany("DELETE FROM reply WHERE address = ?", keys).rowcount if keys else 0
        with translate_errors(self.path), closing(connect(self.path, read_only=False)) as db:
            db.execute("VACUUM")
        return removed

    def recall(self, key: Any) -> Any:
        """Return the plain value that `remember` stored under a plain key, or None."""
        rows = self._select("SELECT value FROM note WHERE key = ?", (canonical(key),))
        return json.loads(rows[0][0]) if rows else None

    def remember(self, key: Any, value: Any) -> None:
        """Store a plain value under a plain key, durably; a later value replaces it.

        Args:
            key: plain JSON data, such as what a format negotiation depends on.
            value: plain JSON data, such as its result.
        """
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (canonical(key), canonical(value).decode()))

    def forget(self, key: Any) -> bool:
        """Remove what is remembered under a plain key, durably; return whether there was anything."""
        with self._writing() as db:
            return db.execute("DELETE FROM note WHERE key = ?", (canonical(key),)).rowcount > 0

    def notes(self) -> list[tuple[Any, Any]]:
        """Return keys and values of everything that is remembered, ordered by key."""
        return [(json.loads(key), json.loads(value)) for key, value in self._select("SELECT * FROM note ORDER BY key")]

    def close(self) -> None:
        """Write what is queued, and close; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        if self._writer is not None:
            self._writer.join()
        self._reader.close()

    def _select(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with translate_errors(self.path), self._lock:
            return self._reader.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self.read_only:
            raise RecordError(f"the store of replies {self.path} is not open for writing")
        with translate_errors(self.path), closing(connect(self.path, read_only=False)) as db, transaction(db):
            yield db

    def _write(self) -> None:
        db: sqlite3.Connection | None = None
        job = self._queue.get()
        while job is not None:
            batch = []
            with suppress(queue.Empty):
                while job is not None:
                    batch.append(job)
                    if len(batch) == _BATCH:
                        break
                    job = self._queue.get_nowait()
            try:
                with translate_errors(self.path):
                    db = db or connect(self.path, read_only=False)
                    with transaction(db):
                        earlier = [_insert(db, row) for _, row, _ in batch]
                    kept = [_kept(entry, before) for (entry, _, _), before in zip(batch, earlier, strict=True)]
            except Exception as error:  # every error goes to the callers that wait for it
                for _, _, done in batch:
                    done.set_exception(error)
            else:
                for (_, _, done), entry in zip(batch, kept, strict=True):
                    done.set_result(entry)
            job = self._queue.get() if job is not None else None
        if db is not None:
            db.close()


def _model(request: Request) -> str:
    return str(request.body.get("model", ""))


def _to_row(entry: Entry) -> _Row:
    request, usage = entry.request, entry.reply.usage
    return (
        bytes.fromhex(request.address),
        request.provider,
        request.endpoint_id,
        _model(request),
        request.replicate,
        *fingerprints(request),
        entry.obtained_at,
        usage.prompt_tokens if usage else None,
        usage.completion_tokens if usage else None,
        entry.reply.cost_usd,
        pack_request(request),
        pack_reply(entry.reply),
    )


def _from_row(address: bytes, request: bytes, reply: bytes, obtained_at: int) -> Entry:
    return Entry(request=unpack_request(address, request), reply=unpack_reply(reply), obtained_at=obtained_at)


def _insert(db: sqlite3.Connection, row: _Row) -> tuple[bytes, int] | None:
    """Insert a row; return None, or (packed reply, obtained_at) of the row that was there before."""
    marks = ", ".join("?" * len(row))
    if db.execute(f"INSERT INTO reply VALUES ({marks}) ON CONFLICT (address) DO NOTHING", row).rowcount == 1:
        return None
    reply, obtained_at = db.execute("SELECT reply, obtained_at FROM reply WHERE address = ?", row[:1]).fetchone()
    return reply, obtained_at


def _kept(entry: Entry, earlier: tuple[bytes, int] | None) -> Entry:
    if earlier is None:
        return entry
    return Entry(request=entry.request, reply=unpack_reply(earlier[0]), obtained_at=earlier[1])
