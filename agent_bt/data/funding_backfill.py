"""Fill the store with missing settlements of a perpetual from monthly ZIPs, then REST.

1. keep the spans that the store covers, unless a file is damaged or is to be fetched again
2. the ZIP of each month that is over and not fully covered              `_take_archives`
3. REST for the rest: the newest months, and spans that a ZIP lacks      `_take_rest`
4. commit month by month
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import polars as pl

from agent_bt.core.clock import DAY, MINUTE, SECOND, iso
from agent_bt.core.errors import ArchiveError, DataError, Interrupted
from agent_bt.data.archive import Archive, ArchiveFile, Table, archive_file
from agent_bt.data.backfill import BackfillResult, MonthResult
from agent_bt.data.exchange import FUNDING
from agent_bt.data.klines import describe
from agent_bt.data.offsets import Offsets, SourceFile
from agent_bt.data.rest import Rest
from agent_bt.data.settlements import FUNDING_SCHEMA, parse_funding_csv
from agent_bt.data.spans import Span, intersect, join_near, merge, month_span, months_in, subtract
from agent_bt.data.store import Store


def backfill_funding(
    store: Store,
    spans: Sequence[Span],
    archive: Archive,
    rest: Rest | None,
    *,
    now: int,
    jobs: int = 4,
    refetch: Collection[str] = (),
) -> BackfillResult:
    """Fetch the settlements of `spans`, their ends included, that the store does not have and that are in the past.

    Settlements that are not published yet are a warning, and the next call requests them again.

    Args:
        store: a store of the series `SETTLEMENTS`.
        spans: the wanted spans, UTC us, on whole minutes.
        archive: source of ZIPs.
        rest: source of settlements that no ZIP has; None: only ZIPs are used.
        now: UTC us; a settlement is in the past when its minute is over.
        jobs: number of files that are fetched at the same time; default 4.
        refetch: months to fetch again as if the store did not have them; default: none.

    Raises:
        DataError: the store cannot be written or read.
        Interrupted: Ctrl-C was pressed; nothing of this call is in the store.
    """
    past = [Span(0, now // MINUTE * MINUTE - MINUTE)]
    # A position that is open at the end pays the settlement of that instant; it may not be published yet.
    wanted = intersect([Span(span.start, span.end + MINUTE) for span in spans], past)
    months = sorted({month for span in wanted for month in months_in(span)})
    with store.lock():
        job = _Job(store, wanted, months, archive, rest, now=now, refetch=refetch)
        try:
            job.run(jobs)
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command fetches the funding that is missing") from None
        results = [job.commit(month) for month in months]
    required = intersect(spans, past)
    span = Span(spans[0].start, required[-1].end if required else spans[0].start)
    return BackfillResult(span=span, months=tuple(job.with_missing(results, required)), unit="settlements")


class _Job:
    """The fetched settlements before they are committed to the store."""

    def __init__(
        self,
        store: Store,
        wanted: Sequence[Span],
        months: Sequence[str],
        archive: Archive,
        rest: Rest | None,
        *,
        now: int,
        refetch: Collection[str],
    ) -> None:
        self._store, self._archive, self._rest = store, archive, rest
        self._wanted, self._now = wanted, now
        self._before: Offsets = store.offsets()
        self._intact = {month: store.intact(month, self._before) for month in months}
        self._discard = {month for month in months if month in refetch or not self._intact[month]}
        discarded = [month_span(month) for month in self._discard]
        self._covered = subtract(self._before.covered, discarded)
        kept = [store.read_month(month) for month in months if month not in self._discard]
        self._frame = pl.concat([FUNDING_SCHEMA.to_frame(), *kept])
        self._rows_before = self._by_month(self._frame)
        self._sources: dict[str, SourceFile] = {}
        self._pages: dict[str, int] = {}
        self._warnings: dict[str, list[str]] = {}
        self._problems: dict[str, list[str]] = {}
        self._rest_problems: list[str] = []
        self.todo = subtract(wanted, self._covered)

    def run(self, jobs: int) -> None:
        self._take_archives(jobs)
        self._take_rest()

    def commit(self, month: str) -> MonthResult:
        """Write the settlements of a month to the store and return its result."""
        whole = month_span(month)
        time = pl.col("funding_time").cast(pl.Int64)
        frame = self._frame.filter(time.is_between(whole.start, whole.end, closed="left"))
        covered = intersect(self._covered, [whole])
        sources = {path: file for path, file in self._sources.items() if month in path}
        lost = subtract(intersect(self._before.covered, [whole]), covered)
        failures: list[str] = []
        if month in self._discard and self._intact[month] and lost:
            failures.append(f"{month}: the sources no longer have {lost[0]}; the stored month is kept")
        elif month in self._discard or subtract(covered, self._before.covered) or sources:
            try:
                self._store.commit(
                    month,
                    frame,
                    covered=covered,
                    outages=[],
                    sources=sources,
                    forget=whole if month in self._discard else None,
                )
            except DataError as error:
                failures.append(str(error))
        return MonthResult(
            month=month,
            added=len(frame) - self._rows_before.get(month, 0),
            files=tuple(sorted(sources)),
            pages=self._pages.get(month, 0),
            warnings=tuple(self._warnings.get(month, ())),
            failures=tuple(failures),
        )

    def with_missing(self, results: Sequence[MonthResult], required: Sequence[Span]) -> list[MonthResult]:
        """Return the results with missing spans added, as a failure if a source failed, else as a warning."""
        updated = []
        for result in results:
            missing = subtract(intersect(required, [month_span(result.month)]), self._covered)
            problems = self._problems.get(result.month, []) + (self._rest_problems if missing else [])
            warnings, failures = list(result.warnings), list(result.failures)
            spans = ", ".join(str(span) for span in missing[:3]) + (", ..." if len(missing) > 3 else "")
            if missing and problems:
                failures.append(f"funding of {spans}: {'; '.join(problems[:3])}")
            elif missing:
                warnings.append(f"funding of {spans}: in no archive yet, and REST is off; run the command again later")
            else:
                warnings += problems
            updated.append(replace(result, warnings=tuple(warnings), failures=tuple(failures)))
        return updated

    def _take_archives(self, jobs: int) -> None:
        today = self._now // DAY * DAY
        months = sorted({month for gap in self.todo for month in months_in(gap)})
        files = [
            archive_file(self._archive.exchange, self._store.kind, self._store.symbol, FUNDING, month)
            for month in months
            if month_span(month).end <= today
        ]
        known = {path for path in self._before.sources if not any(month in path for month in self._discard)}
        files = [file for file in files if file.path not in known]
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._fetch, file) for file in files]
            try:
                # A wait without timeout is not interrupted by Ctrl-C under Polars' signal handler.
                while wait(futures, timeout=0.2).not_done:
                    pass
            except BaseException:
                self._archive.transport.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        for file, future in zip(files, futures, strict=True):
            if (table := future.result()) is not None:
                self._take(file, table)
        self.todo = subtract(self._wanted, self._covered)

    def _fetch(self, file: ArchiveFile) -> Table | None:
        try:
            return self._archive.fetch(file)
        except DataError as error:
            self._problems.setdefault(file.period, []).append(str(error))
            return None

    def _take(self, file: ArchiveFile, table: Table) -> None:
        try:
            settlements = parse_funding_csv(table.text, file.span, file.path)
        except ArchiveError as error:
            self._problems.setdefault(file.period, []).append(str(error))
            return
        self._merge(settlements.frame, settlements.covered, replaces=True)
        self._sources[file.path] = SourceFile(
            sha256=table.sha256,
            size=table.size,
            rows=len(settlements.frame),
            fetched=iso(self._now // SECOND * SECOND),
            notes=settlements.notes,
        )
        if text := describe(settlements.notes):
            self._warnings.setdefault(file.period, []).append(f"{file.path}: {text}")

    def _take_rest(self) -> None:
        if self._rest is None:
            return
        for span in join_near(self.todo, 30 * DAY):
            try:
                rows = self._rest.fetch_funding(self._store.symbol, span)
            except DataError as error:
                self._rest_problems.append(str(error))
                return
            month = iso(span.start)[:7]
            self._pages[month] = self._pages.get(month, 0) + rows.pages
            self._merge(rows.frame, [span], replaces=False)
        self.todo = subtract(self._wanted, self._covered)

    def _merge(self, frame: pl.DataFrame, covered: Sequence[Span], *, replaces: bool) -> None:
        both = pl.concat([frame, self._frame] if replaces else [self._frame, frame])
        self._frame = both.unique("funding_time", keep="first", maintain_order=True).sort("funding_time")
        self._covered = merge([*self._covered, *covered])

    def _by_month(self, frame: pl.DataFrame) -> dict[str, int]:
        months = frame["funding_time"].dt.strftime("%Y-%m")
        return {str(month): int(count) for month, count in months.value_counts().iter_rows()}
