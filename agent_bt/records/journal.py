"""The journal of an unfinished run: one line per decision, appended in batches, chained by hash.

A line is canonical JSON: `{"chain": head, "content": {...}, "telemetry": {...}}`. The chain covers the content only.
The features window is recorded as its hash: a continued run computes it again, and the table of decisions holds it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from agent_bt.core.canonical import HashChain, canonical
from agent_bt.core.clock import iso
from agent_bt.core.errors import RecordError
from agent_bt.core.step import Step
from agent_bt.records.decision_record import build_content, build_telemetry
from agent_bt.records.decision_table import DecisionTable
from agent_bt.records.files import unwritable
from agent_bt.records.hashes import DECISION_TAG, TELEMETRY_TAG, content_bytes
from agent_bt.records.tally import Tally

if sys.platform != "win32":
    import fcntl

_OPENING, _MIDDLE, _TELEMETRY = b'{"chain":"', b'","content":', b',"telemetry":{'
_CHAIN = slice(len(_OPENING), len(_OPENING) + 64)
_CONTENT_AT = _CHAIN.stop + len(_MIDDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A verified line of a journal.

    Attributes:
        number: of the line, from 1.
        chain: head of the hash chain after it.
        raw: the whole line.
        content, telemetry: canonical JSON of its parts.
    """

    number: int
    chain: str
    raw: bytes
    content: bytes
    telemetry: bytes


class JournalReader:
    """A reader that streams a journal and verifies its chain; an incomplete last line is skipped and reported.

    Attributes:
        torn: bytes of an incomplete last line, known after reading to the end; 0 if it is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = 0

    def lines(self) -> Iterator[Line]:
        """Yield every complete line.

        Raises:
            RecordError: a line is damaged, or its hash does not follow from the previous line; names the line.
        """
        chain = HashChain(DECISION_TAG)
        try:
            with self.path.open("rb") as file:
                for number, raw in enumerate(file, 1):
                    if not raw.endswith(b"\n"):
                        self.torn = len(raw)
                        return
                    yield _check_line(self.path, number, raw, chain)
        except OSError as error:
            raise RecordError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield (content, telemetry) of every complete line, as plain data."""
        for line in self.lines():
            yield orjson.loads(line.content), orjson.loads(line.telemetry)


class JournalWriter:
    """A writer of steps to a journal (`core.step.Journal`) and to `decisions.parquet`, which gets its name at `close`.

    On a journal that already has lines, the first steps are compared with them and only new ones are written: a run is
    continued by running it again. The telemetry of the first time is kept.

    Attributes:
        head: the chain's head after the last step.
        telemetry_head: the head of the chain over the steps' telemetry.
        count: steps so far, including compared ones.
        tally: running counts over them.
        recovered: bytes of an incomplete last line that were removed on opening.
    """

    def __init__(
        self,
        path: Path,
        *,
        prompt: str | None = None,
        window: bool = True,
        flush_every: int = 64,
        flush_seconds: float = 1.0,
    ) -> None:
        """Open the journal for appending, and lock it against other writers.

        Args:
            path: the file; created if missing.
            prompt: `name/version`, written into each record; None for a strategy without a prompt.
            window: False leaves the features windows out.
            flush_every: steps after which lines are written.
            flush_seconds: seconds after which they are written at the next step.

        Raises:
            RecordError: the journal cannot be opened, is damaged, or another process writes to it.
        """
        self.path = path
        self.count = 0
        self.tally = Tally()
        self._prompt, self._window = prompt, window
        self._flush_every, self._flush_seconds = flush_every, flush_seconds
        self._chain, self._telemetry = HashChain(DECISION_TAG), HashChain(TELEMETRY_TAG)
        self._table = DecisionTable(path.with_name("decisions.parquet"))
        self._buffer: list[bytes] = []
        self._flushed = time.monotonic()
        self._failed = False
        self._position = 0
        self._lost: list[tuple[int, int]] = []
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            self._lock()
            self._end, self.recovered = _cut_torn_line(self._file)
        except BaseException:
            os.close(self._file)
            raise
        self._known: Iterator[Line] | None = JournalReader(path).lines() if self._end else None

    @property
    def head(self) -> str:
        """The chain's head after the last step."""
        return self._chain.head

    @property
    def telemetry_head(self) -> str:
        """The head of the chain over the telemetry of all steps."""
        return self._telemetry.head

    def append(self, step: Step) -> None:
        """Record the step; on a continued journal, compare it with the recorded one.

        Raises:
            RecordError: the journal cannot be written, or the step differs from the recorded one.
        """
        content = build_content(step, prompt=self._prompt, window=self._window)
        data = content_bytes(content)
        head = self._chain.link(data)
        known = self._next_known()
        if known is not None:
            if known.chain != head:
                raise _diverged(self.path, known, content)
            telemetry, raw, length = orjson.loads(known.telemetry), known.telemetry, len(known.raw)
        else:
            telemetry = build_telemetry(step, time.time_ns() // 1000)
            raw = canonical(telemetry)
            line = b"".join((_OPENING, head.encode(), _MIDDLE, data, b',"telemetry":', raw, b"}\n"))
            self._buffer.append(line)
            length = len(line)
        if content["provenance"] == "transport":
            self._lost.append((self.count, self._position))
        self.count += 1
        self._position += length
        self._telemetry.link(raw)
        self.tally.add(content, telemetry)
        self._table.append(content, telemetry, len(data))
        late = time.monotonic() - self._flushed > self._flush_seconds
        if self._buffer and (late or len(self._buffer) >= self._flush_every):
            self.flush()

    def flush(self, *, durable: bool = False) -> None:
        """Write the buffered lines.

        Args:
            durable: wait until they are on the disk.

        Raises:
            RecordError: the journal cannot be written; the earlier lines are intact.
        """
        data = memoryview(b"".join(self._buffer))
        self._buffer.clear()
        self._flushed = time.monotonic()
        if self._failed:
            raise RecordError(f"{self.path} could not be written earlier, so nothing more is written to it")
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            if durable:
                os.fsync(self._file)
        except OSError as error:
            self._failed = True
            raise unwritable(self.path, error) from error
        self._end += len(data)

    def drop_failures(self, reach: int = 1) -> None:
        """Remove the transport failures at the end of the journal, so that a continued run sends the requests again.

        A failure belongs to the end if at most `reach` decisions lie between it and the end, or between it and the next
        failure that does: prefetched requests may have been answered after it. All later decisions are removed too;
        their replies are in the cache. The table and the tally keep everything.

        Args:
            reach: how many decisions ahead requests are sent.

        Raises:
            RecordError: the journal cannot be written.
        """
        self.flush()
        count, position = self.count, self._end
        for index, before in reversed(self._lost):
            if index < count - reach:
                break
            count, position = index, before
        if self._known is None and position < self._end:
            try:
                os.ftruncate(self._file, position)
            except OSError as error:
                raise unwritable(self.path, error) from error
            self._end = self._position = position

    def close(self) -> None:
        """Write the remaining lines durably, complete the table and release the lock. Idempotent.

        Raises:
            RecordError: the journal or the table cannot be written.
        """
        if self._file < 0:
            return
        try:
            if self._failed:
                self._table.discard()
            else:
                self.flush(durable=True)
                self._table.close()
        finally:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _next_known(self) -> Line | None:
        if self._known is None:
            return None
        line = next(self._known, None)
        if line is None:
            self._known = None
        return line

    def _lock(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordError(
                    f"another process is writing to {self.path}; wait for it to end, or stop it first"
                ) from None


def _check_line(path: Path, number: int, raw: bytes, chain: HashChain) -> Line:
    split = raw.rfind(_TELEMETRY)
    whole = raw.startswith(_OPENING) and raw.endswith(b"}}\n") and split > _CONTENT_AT
    if not whole or raw[_CHAIN.stop : _CONTENT_AT] != _MIDDLE:
        raise RecordError(f"{path}, line {number} is damaged; the lines before it can be used, the rest cannot")
    content = raw[_CONTENT_AT:split]
    head = chain.link(content)
    if head.encode() != raw[_CHAIN]:
        raise RecordError(
            f"{path}, line {number} does not continue the hash chain of the lines before it: "
            "this line or an earlier one was changed, removed or added"
        )
    telemetry = raw[split + len(_TELEMETRY) - 1 : -2]
    return Line(number=number, chain=head, raw=raw, content=content, telemetry=telemetry)


def _cut_torn_line(file: int) -> tuple[int, int]:
    """Truncate the file after its last complete line; return its new length, and the number of removed bytes."""
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end, size - end


def _diverged(path: Path, known: Line, content: dict[str, Any]) -> RecordError:
    before, now = orjson.loads(known.content), orjson.loads(content_bytes(content))
    keys = [key for key in now if now[key] != before.get(key)] or ["something"]
    return RecordError(
        f"decision {content['index']} at {iso(content['time'])} differs from its record in {path}: "
        f"{', '.join(keys)} changed. The run cannot be continued: the data, the code, or the state of the strategy "
        "has changed. Start a new run, or restore what changed"
    )
