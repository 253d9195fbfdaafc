"""Fill the store with missing minutes from monthly ZIPs, then daily ZIPs, then REST.

A minute that none of the three has is an outage, and not requested again. Each month is one job (`_Month`):

  1. read the month from the store, if its file is intact
  2. the monthly ZIP, if the month is over and part of the wanted span is not covered     `_take_month`
  3. the daily ZIPs of complete days with missing minutes                                `_take_days`
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
    days_in,
    intersect,
    join_near,
    merge,
    minutes,
    missing_spans,
    month_span,
    months_in,
    subtract,
)
from agent_bt.data.store import Store

logger = logging.getLogger(__name__)

SETTLING = 2 * DAY
"""Archives are published the day after: before that, a missing minute is not an outage yet, us."""


class Progress(Protocol):
    """Report the progress of a long job; methods are called from several threads."""

    def begin(self, total: int) -> None:
        """Start with `total` missing minutes of the market."""
        ...

    def advance(self, count: int) -> None:
        """Report `count` more of them as processed."""
        ...


class NoProgress:
    """Report no progress."""

    def begin(self, total: int) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthResult:
    """The result of one month.

    Attributes:
        month: such as `2024-07`.
        added: number of new rows.
        files: archive files that were used.
        pages: number of REST pages.
        outages: number of minutes that no source has.
        warnings: irregularities that do not keep data out of the store.
        failures: why part of the wanted span is not in the store.
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
    """The result of a backfill.

    Attributes:
        span: from the first requested minute to the last one in the past, UTC us.
        months: results by month.
        unit: what `added` counts, `minutes` (default) or `settlements`.
    """

    span: Span
    months: tuple[MonthResult, ...]
    unit: str = "minutes"

    @property
    def added(self) -> int:
        """Return the number of new rows in the store."""
        return sum(month.added for month in self.months)

    @property
    def files(self) -> tuple[str, ...]:
        """Return the archive files that were used."""
        return tuple(file for month in self.months for file in month.files)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the irregularities that do not keep data out of the store."""
        return tuple(text for month in self.months for text in month.warnings)

    @property
    def failures(self) -> tuple[str, ...]:
        """Return the reasons why part of the span is not in the store."""
        return tuple(text for month in self.months for text in month.failures)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, for `--json`."""
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
    refetch: Collection[str] = (),
    progress: Progress | None = None,
) -> BackfillResult:
    """Fetch the minutes of `spans` that the store does not have, as far as they are in the past.

    Args:
        store: the store to fill.
        spans: the wanted spans, UTC us, on whole minutes.
        archive: source of ZIPs.
        rest: source of minutes that no ZIP has; None: only ZIPs are used.
        now: UTC us; only bars closed by then are fetched, and missing minutes of the last days are not outages yet.
        jobs: number of months, and of days, that are fetched at the same time; default 4.
        keep_csv: whether the text of each archive file is also kept in `raw_csv/`; default False.
        refetch: months to fetch again as if the store did not have them; default: none.
        progress: reports the minutes done; default: none.

    Raises:
        UsageError: no part of the spans is in the past.
        DataError: the store cannot be written or read.
        Interrupted: Ctrl-C was pressed; finished months are in the store.
    """
    wanted = intersect(spans, [Span(0, now // MINUTE * MINUTE)])
    if not wanted:
        raise UsageError(f"the range must begin in the past, got {', '.join(map(str, spans)) or 'no range'}")
    progress = progress or NoProgress()
    stop = threading.Event()
    with store.lock(), ThreadPoolExecutor(jobs) as months, ThreadPoolExecutor(jobs) as days:
        known = store.offsets()
        results = {name: MonthResult(month=name) for span in wanted for name in months_in(span)}
        candidates = (
            _Month(store, name, wanted, known, archive, rest, now=now, refetch=name in refetch, keep_csv=keep_csv)
            for name in sorted(results)
        )
        work = [month for month in candidates if month.todo]
        progress.begin(sum(minutes(month.todo) for month in work))
        futures = {months.submit(month.run, days, progress, stop): month.month for month in work}
        work.clear()  # a month's rows are in memory only until it is done
        try:
            waiting = set(futures)
            while waiting:
                # A wait without timeout is not interrupted by Ctrl-C under Polars' signal handler.
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
    """The job of one month; used by one thread at a time."""

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
        refetch: bool,
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
        self._discard = refetch or not self._intact
        self._frame = STORE_SCHEMA.to_frame() if self._discard else store.read_month(month)
        self._covered = [] if self._discard else list(self._before)
        self._outages = [] if self._discard else intersect(known.outages, [self._whole])
        self._known_sources = {} if self._discard else known.sources
        self._sources: dict[str, SourceFile] = {}
        self._rows_before = len(self._frame)
        self._outage_minutes_before = minutes(self._outages)
        self._pages = 0
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self.todo = self._missing()

    def run(self, pool: Executor, progress: Progress, stop: threading.Event) -> MonthResult:
        """Fetch and commit the month; problems are part of the result and not raised."""
        for step in (self._take_month, lambda: self._take_days(pool, stop), self._take_rest):
            if not self.todo or stop.is_set():
                break
            missing_before = minutes(self.todo)
            step()
            self.todo = self._missing()
            progress.advance(missing_before - minutes(self.todo))
        progress.advance(minutes(self.todo))
        failures = self._finish_coverage()
        warnings = self._warnings + ([] if failures else list(dict.fromkeys(self._problems)))
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
            outages=minutes(self._outages) - self._outage_minutes_before,
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

        days = {day for gap in self.todo for day in days_in(gap) if day.end <= self._today}
        files = [self._file(iso(day.start)[:10]) for day in sorted(days)]
        files = [file for file in files if file.path not in self._known_sources]
        for file, table in zip(files, pool.map(fetch, files), strict=True):
            self._take(file, table, replaces=False)

    def _take_rest(self) -> None:
        if self._rest is None:
            return
        for span in join_near(self.todo, self._rest.page * MINUTE):
            try:
                rows = self._rest.fetch(self._store.symbol, span)
            except DataError as error:
                self._problems.append(str(error))
                return
            logger.info("REST, %s: %d bars in %d pages", span, len(rows.frame), rows.pages)
            self._pages += rows.pages
            self._merge(rows.frame, replaces=False)
            if text := describe(rows.notes):
                self._warnings.append(f"REST, {span}: {text}")
            settled = Span(span.start, min(span.end, self._today - SETTLING))
            self._covered = merge([*self._covered, Span(span.start, self._covered_until(span))])
            if not self._problems:
                # An archive that could not be read may have the minute: then it is not an outage.
                self._outages = merge([*self._outages, *intersect(self._missing(), [settled])])

    def _covered_until(self, span: Span) -> int:
        # The current day is covered up to its last bar only.
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
        # A file covers only the days it has bars of: some monthly files lack whole days.
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
        if text := describe(klines.notes):
            self._warnings.append(f"{file.path}: {text}")

    def _merge(self, frame: pl.DataFrame, *, replaces: bool) -> None:
        first, second = (frame, self._frame) if replaces else (self._frame, frame)
        both = pl.concat([first, second]) if len(second) else first
        self._frame = both.unique("open_time", keep="first", maintain_order=True).sort("open_time")

    def _missing(self) -> list[Span]:
        opened = self._frame["open_time"].cast(pl.Int64).to_numpy()
        return subtract([gap for span in self._wanted for gap in missing_spans(opened, span)], self._outages)

    def _finish_coverage(self) -> list[str]:
        """Update the covered spans and return why part of the wanted span is not covered."""
        opened = self._frame["open_time"].cast(pl.Int64).to_numpy()
        self._covered = merge([*self._covered, *subtract([self._whole], missing_spans(opened, self._whole))])
        if gaps := intersect(self._missing(), self._covered):
            spans = ", ".join(str(span) for span in gaps[:3]) + (", ..." if len(gaps) > 3 else "")
            self._warnings.append(
                f"{spans}: {minutes(gaps)} minutes are in no archive and not confirmed by REST; they count as a gap, "
                "and the next backfill requests them again"
            )
        uncovered = subtract(self._wanted, self._covered)
        if self._pages and not self._problems:
            # The exchange may not have the last bars of the current day yet.
            uncovered = [span for span in uncovered if span.start < self._today]
        if not uncovered:
            return []
        spans = ", ".join(str(span) for span in uncovered)
        no_data = "no archive has it, and REST is off" if self._rest is None else "no source has it"
        problems = list(dict.fromkeys(self._problems))
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        reason = (
            "; ".join(problems[:3] + more) or f"{no_data}; check that {self._store.symbol} is a symbol of the exchange"
        )
        return [f"{spans}: {reason}"]

    def _commit(self) -> None:
        lost = subtract(self._before, self._covered)
        if self._discard and self._intact and lost:
            raise DataError(f"{self.month}: the sources no longer have {lost[0]}; the stored month is kept")
        self._store.commit(
            self.month,
            self._frame,
            covered=self._covered,
            outages=self._outages,
            sources=self._sources,
            forget=self._whole if self._discard else None,
        )
