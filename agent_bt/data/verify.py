"""Verify the store against its offsets, for consistency, and against the archives; repair it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl

from agent_bt.core.clock import DAY, MINUTE, iso
from agent_bt.core.errors import DataError
from agent_bt.data.archive import Archive, file_at
from agent_bt.data.backfill import BackfillResult, Progress, backfill
from agent_bt.data.funding_backfill import backfill_funding
from agent_bt.data.klines import describe, valid_prices
from agent_bt.data.offsets import Offsets, SourceFile
from agent_bt.data.rest import Rest
from agent_bt.data.spans import Span, intersect, merge, minutes, missing_spans, month_of, month_span, subtract
from agent_bt.data.store import SETTLEMENTS, Store

MIN_QUIET_BARS = 10
"""Number of bars without volume directly before a gap or the end from which on the feed may have stopped earlier."""

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding of a check.

    Attributes:
        level: `error`: the store is wrong; `warning`: it may be; `info`: a property of the data.
        check: file, order, duplicates, place, ohlc, close_time, rate, replaced, gap, outage, quiet_tail, unit, source.
        month: such as `2024-07`.
        message: what was found.
        span: what has to be fetched to repair it, UTC us; None: the whole month.
    """

    level: Level
    check: str
    month: str
    message: str
    span: Span | None = None


def verify(store: Store, *, span: Span | None = None, archive: Archive | None = None) -> list[Finding]:
    """Check a store and return all findings, sorted by month.

    Args:
        store: the store to check, of minutes or settlements.
        span: the span that it should cover, UTC us; None (default): the one in its offsets.
        archive: the archive to compare checksums with, to find files replaced since they were fetched; None (default):
            no comparison.

    Raises:
        DataError: the offsets are not readable.
    """
    known = store.offsets()
    findings: list[Finding] = []
    for month in sorted({*known.months, *store.months_on_disk()}):
        findings += _check_file(store, month, known)
    findings += _check_units(known)
    if store.series == SETTLEMENTS:
        findings += _check_settled(store, known, span)
    for gap in subtract([span], known.covered) if span and store.series != SETTLEMENTS else ():
        text = f"{gap}: not covered; `agent-bt data backfill` or --repair fetches it"
        findings.append(Finding(level="error", check="gap", month=month_of(gap.start), message=text, span=gap))
    if archive is not None:
        findings += _check_archive(known, archive)
    return sorted(findings, key=lambda finding: finding.month)


def repair(
    store: Store,
    findings: Sequence[Finding],
    archive: Archive,
    rest: Rest | None,
    *,
    now: int,
    progress: Progress | None = None,
) -> BackfillResult | None:
    """Fetch damaged, replaced and missing data again; return None if no finding can be repaired by that.

    Damaged and replaced months are fetched as a whole, of a gap only its minutes.

    Args:
        store: the store to repair.
        findings: what `verify` returned for it.
        archive: source of ZIPs.
        rest: source of data that no ZIP has; None: only ZIPs are used.
        now: UTC us; see `data.backfill.backfill`.
        progress: reports the minutes done; default: none.

    Raises:
        DataError: the store cannot be written.
    """
    known = store.offsets()
    gaps = [finding.span for finding in findings if finding.span is not None]
    refetch = {finding.month for finding in findings if finding.level == "error" and finding.span is None}
    whole = [span for month in sorted(refetch) for span in _covered_or_present(store, month, known)]
    if not (spans := merge([*gaps, *whole])):
        return None
    if store.series == SETTLEMENTS:
        return backfill_funding(store, spans, archive, rest, now=now, refetch=refetch)
    return backfill(store, spans, archive, rest, now=now, refetch=refetch, progress=progress)


def unconfirmed(store: Store, known: Offsets) -> list[Span]:
    """Return the covered minutes that no archive has and that REST has not confirmed as an outage.

    Args:
        store: a store of minutes.
        known: its offsets.
    """
    gaps: list[Span] = []
    for month in sorted(known.months):
        opened = store.read_month(month)["open_time"].cast(pl.Int64).to_numpy()
        gaps += _gaps(np.unique(opened), month, known)
    return subtract(gaps, known.outages)


def _covered_or_present(store: Store, month: str, known: Offsets) -> list[Span]:
    if covered := intersect(known.covered, [month_span(month)]):
        return covered
    try:
        opened = store.read_month(month)[store.series.time].cast(pl.Int64)
        days = [Span(day, day + DAY) for day in (opened // DAY * DAY).unique().to_list()]
    except DataError:
        days = []
    return intersect(days, [month_span(month)]) or [month_span(month)]


def _gaps(opened: np.ndarray, month: str, known: Offsets) -> list[Span]:
    covered = intersect(known.covered, [month_span(month)])
    return [gap for part in covered for gap in missing_spans(opened, part)]


def _check_file(store: Store, month: str, known: Offsets) -> list[Finding]:
    problem = ""
    if month not in known.months:
        problem = "is not in the offsets; a process may have been killed while writing it"
    elif not store.path(month).exists():
        problem = "is missing"
    elif not store.intact(month, known):
        problem = "has changed since it was written (SHA-256)"
    findings = [_error("file", month, f"{store.path(month).name} {problem}")] if problem else []
    if month in known.months and store.path(month).exists():
        try:
            frame = store.read_month(month)
        except DataError as error:
            return [_error("file", month, str(error))]
        if store.series == SETTLEMENTS:
            return findings + list(_check_settlements(frame, month))
        findings += [*_check_rows(frame, month), *_check_gaps(frame, month, known)]
    return findings


def _check_settled(store: Store, known: Offsets, span: Span | None) -> Iterator[Finding]:
    minutes = Store(store.root, store.symbol, store.kind).offsets().covered
    between = [Span(known.covered[0].start, known.covered[-1].end)] if known.covered else []
    for gap in subtract([*minutes, *between, *([span] if span else [])], known.covered):
        text = f"{gap}: no funding, and no source has confirmed that; `agent-bt data backfill` requests it again"
        yield Finding(level="warning", check="gap", month=month_of(gap.start), message=text, span=gap)


def _check_settlements(frame: pl.DataFrame, month: str) -> Iterator[Finding]:
    whole = month_span(month)
    due = frame["funding_time"].cast(pl.Int64).to_numpy()
    counts = {
        ("order", "settlements not in order of time"): (np.diff(due) < 0).sum(),
        ("duplicates", "settlements with a duplicate time"): len(due) - len(np.unique(due)),
        ("place", "settlements outside the month or not on a minute"): (
            (due < whole.start) | (due >= whole.end) | (due % MINUTE != 0)
        ).sum(),
        ("rate", "settlements with an invalid rate"): len(
            frame.filter(~(pl.col("rate").is_finite() & (pl.col("rate").abs() < 1)).fill_null(False))
        ),
    }
    for (check, text), count in counts.items():
        if count:
            yield _error(check, month, f"{int(count):,} {text}")


def _check_rows(frame: pl.DataFrame, month: str) -> Iterator[Finding]:
    whole = month_span(month)
    opened, closed = (frame[name].cast(pl.Int64).to_numpy() for name in ("open_time", "close_time"))
    outside = (opened < whole.start) | (opened >= whole.end) | (opened % MINUTE != 0)
    counts = {
        ("order", "rows not in order of time"): (np.diff(opened) < 0).sum(),
        ("duplicates", "rows with a duplicate time"): len(opened) - len(np.unique(opened)),
        ("place", "rows that open outside the month or not on a minute"): outside.sum(),
        ("ohlc", "rows with invalid prices or volumes"): len(frame.filter(~valid_prices().fill_null(False))),
        ("close_time", "rows that do not close a minute after they open"): (closed != opened + MINUTE).sum(),
    }
    for (check, text), count in counts.items():
        if count:
            yield _error(check, month, f"{int(count):,} {text}")


def _check_gaps(frame: pl.DataFrame, month: str, known: Offsets) -> Iterator[Finding]:
    table = frame.unique("open_time").sort("open_time")
    opened = table["open_time"].cast(pl.Int64).to_numpy()
    traded = opened[table["volume"].to_numpy() > 0]
    gaps = _gaps(opened, month, known)
    for gap in gaps:
        for span in intersect([gap], known.outages):
            yield _info("outage", month, f"{span}: {span.minutes:,} minutes that no source has")
        for span in subtract([gap], known.outages):
            text = f"{span}: {minutes([span]):,} minutes missing, not confirmed as an outage"
            yield Finding(level="warning", check="gap", month=month, message=text, span=span)
    ends = [gap.start for gap in gaps]
    if known.covered and month_of(known.covered[-1].end - 1) == month:
        ends.append(known.covered[-1].end)
    for end in ends:
        before = traded[traded < end]
        last = int(before[-1]) + MINUTE if len(before) else month_span(month).start
        quiet = int(((opened >= last) & (opened < end)).sum())
        if quiet >= MIN_QUIET_BARS:
            text = f"{quiet:,} bars without volume directly before {iso(end)}, where data ends"
            yield Finding(level="warning", check="quiet_tail", month=month, message=text)


def _check_units(known: Offsets) -> Iterator[Finding]:
    files = sorted(((file_at(path), source) for path, source in known.sources.items()), key=lambda item: item[0].period)
    for file, source in files:
        for at in source.unit_changes:
            yield _info("unit", file.period[:7], f"{file.name}: the unit of time changes at {at}")
        if irregularities := describe(dict(source.notes)):
            yield _info("source", file.period[:7], f"{file.name}: has {irregularities}")
    timed = [(file, source) for file, source in files if source.units]
    for (_, earlier), (file, later) in pairwise(timed):
        before, after = earlier.units[-1], later.units[0]
        if before != after:
            text = f"{file.name}: the unit of time changes from {before} to {after} at {iso(file.span.start)}"
            yield _info("unit", file.period[:7], text)


def _check_archive(known: Offsets, archive: Archive) -> Iterator[Finding]:
    def check(item: tuple[str, SourceFile]) -> Finding | None:
        path, source = item
        file = file_at(path)
        month = file.period[:7]
        try:
            expected = archive.checksum(file)
        except DataError as error:
            return Finding(level="warning", check="replaced", month=month, message=f"cannot be checked: {error}")
        if expected is None:
            return _info("replaced", month, f"{file.name}: no longer in the archive")
        if expected != source.sha256:
            return _error("replaced", month, f"{file.name}: replaced in the archive since {source.fetched}")
        return None

    with ThreadPoolExecutor(4) as pool:
        yield from (finding for finding in pool.map(check, known.sources.items()) if finding)


def _error(check: str, month: str, message: str) -> Finding:
    return Finding(level="error", check=check, month=month, message=message)


def _info(check: str, month: str, message: str) -> Finding:
    return Finding(level="info", check=check, month=month, message=message)
