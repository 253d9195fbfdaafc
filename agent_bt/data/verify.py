"""Checks what the store holds against what it claims, against itself, and against the archives; repairs it."""

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
from agent_bt.data.klines import describe, sound_prices
from agent_bt.data.offsets import Offsets, SourceFile
from agent_bt.data.rest import Rest
from agent_bt.data.spans import Span, absent, intersect, merge, minutes, month_of, month_span, subtract
from agent_bt.data.store import SETTLEMENTS, Store

QUIET_BARS = 10
"""So many bars without volume right before a gap or the end look like a feed that had already stopped."""

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check found.

    Attributes:
        level: `error`: the store is not what it should be; `warning`: nobody knows; `info`: so it is, and was.
        check: file, order, duplicates, place, ohlc, close_time, rate, replaced, gap, outage, quiet_tail, unit, source.
        month: such as `2024-07`.
        message: for the reader.
        span: what would have to be fetched to cure it, if less than the month.
    """

    level: Level
    check: str
    month: str
    message: str
    span: Span | None = None


def verify(store: Store, *, span: Span | None = None, archive: Archive | None = None) -> list[Finding]:
    """All findings, by month.

    Args:
        store: what is checked: minutes or settlements.
        span: what it should cover, UTC us; None: what it claims to.
        archive: where to ask whether files were replaced since they were fetched; None: nobody is asked.

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
    for hole in subtract([span], known.covered) if span and store.series != SETTLEMENTS else ():
        text = f"{hole}: not covered; `agent-bt data backfill` or --repair fetches it"
        findings.append(Finding(level="error", check="gap", month=month_of(hole.start), message=text, span=hole))
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
    """Fetch again what is damaged, was replaced, or is missing; None if nothing could be cured by that.

    Damaged and replaced months are fetched whole; for a gap, only its minutes are asked for.

    Raises:
        DataError: the store cannot be written.
    """
    known = store.offsets()
    gaps = [finding.span for finding in findings if finding.span is not None]
    afresh = {finding.month for finding in findings if finding.level == "error" and finding.span is None}
    whole = [span for month in sorted(afresh) for span in _promised(store, month, known)]
    if not (spans := merge([*gaps, *whole])):
        return None
    if store.series == SETTLEMENTS:
        return backfill_funding(store, spans, archive, rest, now=now, afresh=afresh)
    return backfill(store, spans, archive, rest, now=now, afresh=afresh, progress=progress)


def unconfirmed(store: Store, known: Offsets) -> list[Span]:
    """Covered minutes that no archive has, and that REST has not spoken about."""
    holes: list[Span] = []
    for month in sorted(known.months):
        opened = store.read_month(month)["open_time"].cast(pl.Int64).to_numpy()
        holes += _holes(np.unique(opened), month, known)
    return subtract(holes, known.outages)


def _promised(store: Store, month: str, known: Offsets) -> list[Span]:
    if promised := intersect(known.covered, [month_span(month)]):
        return promised
    try:
        opened = store.read_month(month)[store.series.time].cast(pl.Int64)
        days = [Span(day, day + DAY) for day in (opened // DAY * DAY).unique().to_list()]
    except DataError:
        days = []
    return intersect(days, [month_span(month)]) or [month_span(month)]


def _holes(opened: np.ndarray, month: str, known: Offsets) -> list[Span]:
    covered = intersect(known.covered, [month_span(month)])
    return [hole for part in covered for hole in absent(opened, part)]


def _check_file(store: Store, month: str, known: Offsets) -> list[Finding]:
    problem = ""
    if month not in known.months:
        problem = "is not recorded; a process may have been killed while writing"
    elif not store.path(month).exists():
        problem = "is gone"
    elif not store.intact(month, known):
        problem = "is not the file that was written (SHA-256)"
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
    for hole in subtract([*minutes, *between, *([span] if span else [])], known.covered):
        text = f"{hole}: no funding, and nobody has said that there is none; `agent-bt data backfill` asks again"
        yield Finding(level="warning", check="gap", month=month_of(hole.start), message=text, span=hole)


def _check_settlements(frame: pl.DataFrame, month: str) -> Iterator[Finding]:
    whole = month_span(month)
    due = frame["funding_time"].cast(pl.Int64).to_numpy()
    counts = {
        ("order", "settlements before an earlier one"): (np.diff(due) < 0).sum(),
        ("duplicates", "settlements of an instant that is there already"): len(due) - len(np.unique(due)),
        ("place", "settlements outside the month or off the minute"): (
            (due < whole.start) | (due >= whole.end) | (due % MINUTE != 0)
        ).sum(),
        ("rate", "settlements with an impossible rate"): len(
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
        ("order", "rows before an earlier row"): (np.diff(opened) < 0).sum(),
        ("duplicates", "rows of a minute that is there already"): len(opened) - len(np.unique(opened)),
        ("place", "rows that open outside the month or off the minute"): outside.sum(),
        ("ohlc", "rows with impossible prices or volumes"): len(frame.filter(~sound_prices().fill_null(False))),
        ("close_time", "rows that do not close a minute after they open"): (closed != opened + MINUTE).sum(),
    }
    for (check, text), count in counts.items():
        if count:
            yield _error(check, month, f"{int(count):,} {text}")


def _check_gaps(frame: pl.DataFrame, month: str, known: Offsets) -> Iterator[Finding]:
    table = frame.unique("open_time").sort("open_time")
    opened = table["open_time"].cast(pl.Int64).to_numpy()
    traded = opened[table["volume"].to_numpy() > 0]
    holes = _holes(opened, month, known)
    for hole in holes:
        for span in intersect([hole], known.outages):
            yield _info("outage", month, f"{span}: {span.minutes:,} minutes that nobody has")
        for span in subtract([hole], known.outages):
            text = f"{span}: {minutes([span]):,} minutes missing, not confirmed as an outage"
            yield Finding(level="warning", check="gap", month=month, message=text, span=span)
    ends = [hole.start for hole in holes]
    if known.covered and month_of(known.covered[-1].end - 1) == month:
        ends.append(known.covered[-1].end)
    for end in ends:
        before = traded[traded < end]
        last = int(before[-1]) + MINUTE if len(before) else month_span(month).start
        quiet = int(((opened >= last) & (opened < end)).sum())
        if quiet >= QUIET_BARS:
            text = f"{quiet:,} bars without volume right before {iso(end)}, where data ends"
            yield Finding(level="warning", check="quiet_tail", month=month, message=text)


def _check_units(known: Offsets) -> Iterator[Finding]:
    files = sorted(((file_at(path), source) for path, source in known.sources.items()), key=lambda item: item[0].period)
    for file, source in files:
        for at in source.unit_changes:
            yield _info("unit", file.period[:7], f"{file.name}: the unit of time changes at {at}")
        if odd := describe(dict(source.notes)):
            yield _info("source", file.period[:7], f"{file.name}: came with {odd}")
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
            stated = archive.checksum(file)
        except DataError as error:
            return Finding(level="warning", check="replaced", month=month, message=f"cannot be checked: {error}")
        if stated is None:
            return _info("replaced", month, f"{file.name}: the archive has it no more")
        if stated != source.sha256:
            return _error("replaced", month, f"{file.name}: replaced in the archive since {source.fetched}")
        return None

    with ThreadPoolExecutor(4) as pool:
        yield from (finding for finding in pool.map(check, known.sources.items()) if finding)


def _error(check: str, month: str, message: str) -> Finding:
    return Finding(level="error", check=check, month=month, message=message)


def _info(check: str, month: str, message: str) -> Finding:
    return Finding(level="info", check=check, month=month, message=message)
