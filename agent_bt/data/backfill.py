"""Filling the store: monthly ZIPs, then daily ZIPs, then REST, and only for minutes that are missing.

A minute that none of the three has is an outage, and not asked for again. Each month is one job (`_Month`):

  1. read what the store has of it, if that is intact
  2. the monthly ZIP, if the month is over and part of what is wanted is not covered     `_take_month`
  3. the daily ZIPs of complete days that still miss minutes                             `_take_days`
  4. REST for the minutes that are still missing                                         `_take_rest`
  5. commit the month
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import polars as pl

from agent_bt.core.clock import DAY, MINUTE, SECOND, iso
from agent_bt.core.errors import ArchiveError, DataError, Interrupted, UsageError
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.archive import Archive, ArchiveFile, Table, archive_file
from agent_bt.data.files import write_whole
from agent_bt.data.klines import describe
from agent_bt.data.offsets import Offsets, SourceFile
from agent_bt.data.rest import Rest
from agent_bt.data.spans import (
    Span,
    absent,
    bridge,
    days_in,
    intersect,
    merge,
    minutes,
    month_span,
    months_in,
    subtract,
)
from agent_bt.data.store import Store

logger = logging.getLogger(__name__)

SETTLING = 2 * DAY
"""Archives appear the day after: before that, a minute that is missing may still come."""


class Progress(Protocol):
    """What a long job tells while it works; called from several threads."""

    def begin(self, total: int) -> None:
        """So many minutes of the market are missing."""
        ...

    def advance(self, count: int) -> None:
        """So many of them are dealt with."""
        ...


class Silent:
    """Tells nothing."""

    def begin(self, total: int) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthResult:
    """What happened to one month.

    `added`: rows that are new; `files`: archive files that were used; `pages`: REST answers; `outages`: minutes
    found to be absent everywhere; `warnings`: what was odd; `failures`: what keeps part of the wanted span out.
    """

    month: str
    added: int = 0
    files: tuple[str, ...] = ()
    pages: int = 0
    outages: int = 0
    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillResult:
    """What a backfill did, month by month; `span`: from the first minute asked for to the last past one.

    `unit`: what is counted, minutes or settlements.
    """

    span: Span
    months: tuple[MonthResult, ...]
    unit: str = "minutes"

    @property
    def added(self) -> int:
        """Rows that are new in the store."""
        return sum(month.added for month in self.months)

    @property
    def files(self) -> tuple[str, ...]:
        """Archive files that were used."""
        return tuple(file for month in self.months for file in month.files)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd, but keeps nothing out."""
        return tuple(text for month in self.months for text in month.warnings)

    @property
    def failures(self) -> tuple[str, ...]:
        """What keeps part of the span out of the store."""
        return tuple(text for month in self.months for text in month.failures)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        return {
            "start": iso(self.span.start),
            "end": iso(self.span.end),
            "complete": not self.failures,
            "added": self.added,
            "files": list(self.files),
            "months": [asdict(month) for month in self.months],
            "warnings": list(self.warnings),
            "failures": list(self.failures),
        }

    def __str__(self) -> str:
        pages = sum(month.pages for month in self.months)
        outages = sum(month.outages for month in self.months)
        if not (self.added or self.files or pages or self.failures):
            return f"{self.span}: nothing missing, nothing fetched"
        parts = [f"{self.added:,} {self.unit} added", f"{len(self.files)} archive files"]
        parts += [f"{pages} REST pages"] if pages else []
        parts += [f"{outages:,} minutes recorded as outages"] if outages else []
        return f"{self.span}: " + ", ".join(parts)


def backfill(
    store: Store,
    spans: Sequence[Span],
    archive: Archive,
    rest: Rest | None,
    *,
    now: int,
    jobs: int = 4,
    keep_csv: bool = False,
    afresh: Collection[str] = (),
    progress: Progress | None = None,
) -> BackfillResult:
    """Bring the store to cover `spans`, as far as they are past; asks for missing minutes only.

    Args:
        store: what is filled.
        spans: UTC us, on whole minutes.
        archive: where ZIPs come from.
        rest: where minutes come from that no ZIP has; None: nowhere.
        now: UTC us; only bars closed by then are taken, and nothing of the last days becomes an outage.
        jobs: months, and days, that are worked on at once.
        keep_csv: also keep the text of each archive file in `raw_csv/`.
        afresh: months to fetch again as if the store had nothing of them.
        progress: told of the minutes done.

    Raises:
        UsageError: nothing of the spans is past.
        DataError: the store cannot be written or read at all.
        Interrupted: Ctrl-C; finished months are in the store.
    """
    wanted = intersect(spans, [Span(0, now // MINUTE * MINUTE)])
    if not wanted:
        raise UsageError(f"nothing to fetch: no part of {', '.join(map(str, spans)) or 'it'} is past")
    progress = progress or Silent()
    stop = threading.Event()
    with store.lock(), ThreadPoolExecutor(jobs) as months, ThreadPoolExecutor(jobs) as days:
        known = store.offsets()
        results = {name: MonthResult(month=name) for span in wanted for name in months_in(span)}
        made = (
            _Month(store, name, wanted, known, archive, rest, now=now, afresh=name in afresh, keep_csv=keep_csv)
            for name in sorted(results)
        )
        work = [month for month in made if month.todo]
        progress.begin(sum(minutes(month.todo) for month in work))
        futures = {months.submit(month.run, days, progress, stop): month.month for month in work}
        work.clear()  # a month's rows are in memory only until it is done
        try:
            waiting = set(futures)
            while waiting:
                # Polars' signal handler does not wake a wait without end: Ctrl-C would be heard only after it.
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                results |= {futures[future]: future.result() for future in done}
        except BaseException as error:
            stop.set()
            archive.transport.cancel()
            months.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(
                    "stopped; finished months are in the store, and the same command fetches the rest"
                ) from None
            raise
    span = Span(wanted[0].start, wanted[-1].end)
    return BackfillResult(span=span, months=tuple(results[name] for name in sorted(results)))


class _Month:
    """One month on its way into the store; used by one thread at a time."""

    def __init__(
        self,
        store: Store,
        month: str,
        wanted: Sequence[Span],
        known: Offsets,
        archive: Archive,
        rest: Rest | None,
        *,
        now: int,
        afresh: bool,
        keep_csv: bool,
    ) -> None:
        self.month = month
        self._store, self._archive, self._rest = store, archive, rest
        self._whole = month_span(month)
        self._wanted = intersect(wanted, [self._whole])
        self._now, self._today = now, now // DAY * DAY
        self._keep_csv = keep_csv
        self._intact = store.intact(month, known)
        self._before = intersect(known.covered, [self._whole])
        self._forget = afresh or not self._intact
        self._frame = STORE_SCHEMA.to_frame() if self._forget else store.read_month(month)
        self._covered = [] if self._forget else list(self._before)
        self._outages = [] if self._forget else intersect(known.outages, [self._whole])
        self._known_sources = {} if self._forget else known.sources
        self._sources: dict[str, SourceFile] = {}
        self._rows_before = len(self._frame)
        self._minutes_out_before = minutes(self._outages)
        self._pages = 0
        self._problems: list[str] = []
        self._odd: list[str] = []
        self.todo = self._missing()

    def run(self, pool: Executor, progress: Progress, stop: threading.Event) -> MonthResult:
        """Fetch, then commit what has arrived; problems are told in the result, not raised."""
        for step in (self._take_month, lambda: self._take_days(pool, stop), self._take_rest):
            if not self.todo or stop.is_set():
                break
            left = minutes(self.todo)
            step()
            self.todo = self._missing()
            progress.advance(left - minutes(self.todo))
        progress.advance(minutes(self.todo))
        failures = self._settle()
        warnings = self._odd + ([] if failures else list(dict.fromkeys(self._problems)))
        if not failures or self._sources or self._pages:
            try:
                self._commit()
            except DataError as error:
                return MonthResult(month=self.month, warnings=tuple(warnings), failures=(*failures, str(error)))
        return MonthResult(
            month=self.month,
            added=len(self._frame) - self._rows_before,
            files=tuple(sorted(self._sources)),
            pages=self._pages,
            outages=minutes(self._outages) - self._minutes_out_before,
            warnings=tuple(warnings),
            failures=tuple(failures),
        )

    def _file(self, period: str) -> ArchiveFile:
        return archive_file(self._archive.exchange, self._store.kind, self._store.symbol, "1m", period)

    def _take_month(self) -> None:
        file = self._file(self.month)
        over = self._whole.end <= self._today
        if over and file.path not in self._known_sources and subtract(self._wanted, self._covered):
            self._take(file, self._fetch(file), replaces=True)

    def _take_days(self, pool: Executor, stop: threading.Event) -> None:
        def fetch(file: ArchiveFile) -> Table | None:
            return None if stop.is_set() else self._fetch(file)

        days = {day for hole in self.todo for day in days_in(hole) if day.end <= self._today}
        files = [self._file(iso(day.start)[:10]) for day in sorted(days)]
        files = [file for file in files if file.path not in self._known_sources]
        for file, table in zip(files, pool.map(fetch, files), strict=True):
            self._take(file, table, replaces=False)

    def _take_rest(self) -> None:
        if self._rest is None:
            return
        for span in bridge(self.todo, self._rest.page * MINUTE):
            try:
                rows = self._rest.fetch(self._store.symbol, span)
            except DataError as error:
                self._problems.append(str(error))
                return
            logger.info("REST, %s: %d bars in %d pages", span, len(rows.frame), rows.pages)
            self._pages += rows.pages
            self._merge(rows.frame, replaces=False)
            if odd := describe(rows.notes):
                self._odd.append(f"REST, {span}: {odd}")
            settled = Span(span.start, min(span.end, self._today - SETTLING))
            self._covered = merge([*self._covered, Span(span.start, self._answered_until(span))])
            if not self._problems:
                # An archive that could not be read might have had the minute: then nothing is known about it.
                self._outages = merge([*self._outages, *intersect(self._missing(), [settled])])

    def _answered_until(self, span: Span) -> int:
        # The day that is not over is answered for up to its last bar only.
        opened = self._frame["open_time"].cast(pl.Int64)
        last = opened.filter(opened < span.end).max()
        return min(span.end, max(self._today, int(last) + MINUTE if isinstance(last, int) else 0))

    def _fetch(self, file: ArchiveFile) -> Table | None:
        try:
            return self._archive.fetch(file)
        except DataError as error:
            self._problems.append(str(error))
            return None

    def _take(self, file: ArchiveFile, table: Table | None, *, replaces: bool) -> None:
        if table is None:
            return
        try:
            klines = self._archive.exchange.parse_klines(table.text, file.span, file.path)
        except ArchiveError as error:
            self._problems.append(str(error))
            return
        if self._keep_csv:
            write_whole(self._store.raw_csv / f"{file.name}.csv", table.text)
        logger.info("%s: %d bars", file.path, len(klines.frame))
        self._merge(klines.frame, replaces=replaces)
        # A file answers for the days it has bars of: whole days are known to be missing from some monthly files.
        opened = klines.frame["open_time"].cast(pl.Int64)
        days = [Span(day, day + DAY) for day in (opened // DAY * DAY).unique().to_list()]
        self._covered = merge([*self._covered, *days])
        self._sources[file.path] = SourceFile(
            sha256=table.sha256,
            size=table.size,
            rows=len(klines.frame),
            fetched=iso(self._now // SECOND * SECOND),
            units=klines.units,
            unit_changes=tuple(iso(us) for us in klines.unit_changes),
            notes=klines.notes,
        )
        if odd := describe(klines.notes):
            self._odd.append(f"{file.path}: {odd}")

    def _merge(self, frame: pl.DataFrame, *, replaces: bool) -> None:
        first, second = (frame, self._frame) if replaces else (self._frame, frame)
        both = pl.concat([first, second]) if len(second) else first
        self._frame = both.unique("open_time", keep="first", maintain_order=True).sort("open_time")

    def _missing(self) -> list[Span]:
        opened = self._frame["open_time"].cast(pl.Int64).to_numpy()
        return subtract([hole for span in self._wanted for hole in absent(opened, span)], self._outages)

    def _settle(self) -> list[str]:
        """Decide what is covered now; returns what keeps part of the wanted span out."""
        opened = self._frame["open_time"].cast(pl.Int64).to_numpy()
        self._covered = merge([*self._covered, *subtract([self._whole], absent(opened, self._whole))])
        if left := intersect(self._missing(), self._covered):
            spans = ", ".join(str(span) for span in left[:3]) + (", ..." if len(left) > 3 else "")
            self._odd.append(
                f"{spans}: {minutes(left)} minutes are in no archive, and REST did not say; they count as a gap, "
                "and the next backfill asks again"
            )
        out = subtract(self._wanted, self._covered)
        if self._pages and not self._problems:
            # The exchange may not have the last bars of the day that is not over yet.
            out = [span for span in out if span.start < self._today]
        if not out:
            return []
        spans = ", ".join(str(span) for span in out)
        nowhere = "no archive has it, and REST was not asked" if self._rest is None else "nobody has it"
        problems = list(dict.fromkeys(self._problems))
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        why = "; ".join(problems[:3] + more) or f"{nowhere}; is {self._store.symbol} the right symbol?"
        return [f"{spans}: {why}"]

    def _commit(self) -> None:
        lost = subtract(self._before, self._covered)
        if self._forget and self._intact and lost:
            raise DataError(f"{self.month}: the sources have less than the store ({lost[0]} is gone); kept what was")
        self._store.commit(
            self.month,
            self._frame,
            covered=self._covered,
            outages=self._outages,
            sources=self._sources,
            forget=self._whole if self._forget else None,
        )
