"""The offsets of a series: what the store covers of it, from which files, and when they were fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from agent_bt.core.clock import iso, time_us
from agent_bt.core.errors import DataError
from agent_bt.data.spans import Span, merge

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthFile:
    """One month of the store: `sha256` of the Parquet file, its rows."""

    sha256: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One archive file whose rows went into the store.

    `sha256` and `size` (bytes) of the ZIP; `fetched` ISO time; `units` of its times in order, `unit_changes` ISO open
    times; `notes` as in `klines.normalise`.
    """

    sha256: str
    size: int
    rows: int
    fetched: str
    units: tuple[str, ...] = ()
    unit_changes: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """What is known about one series.

    Attributes:
        covered: spans that an archive file or the REST endpoint has answered for.
        outages: spans that none of them has bars for; they are not asked for again. Part of `covered`.
        months: month -> its Parquet file.
        sources: path below the archive's base URL -> what was in it.
    """

    covered: tuple[Span, ...] = ()
    outages: tuple[Span, ...] = ()
    months: Mapping[str, MonthFile] = field(default_factory=dict)
    sources: Mapping[str, SourceFile] = field(default_factory=dict)

    def to_json(self, series: str) -> bytes:
        """The content of the file; `series` names what it is about."""
        content = {
            "version": VERSION,
            series: {
                "covered": [[iso(span.start), iso(span.end)] for span in self.covered],
                "outages": [[iso(span.start), iso(span.end)] for span in self.outages],
                "months": {month: asdict(file) for month, file in sorted(self.months.items())},
                "sources": {path: asdict(file) for path, file in sorted(self.sources.items())},
            },
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, text: bytes, name: str, series: str) -> Offsets:
        """Read the content of the file about `series`; `name` is for messages.

        Raises:
            DataError: the text is not what `to_json` writes.
        """
        try:
            content = orjson.loads(text)
            if content["version"] != VERSION:
                raise DataError(f"{name}: version {content['version']} is not one this agent-bt reads ({VERSION})")
            known = content[series]
            return cls(
                covered=_spans(known["covered"]),
                outages=_spans(known["outages"]),
                months={month: MonthFile(**file) for month, file in known["months"].items()},
                sources={path: _source(file) for path, file in known["sources"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{name}: not readable ({error!r}); remove it and run `agent-bt data backfill` again: "
                "everything is fetched anew"
            ) from error


def _spans(pairs: Iterable[tuple[str, str]]) -> tuple[Span, ...]:
    return tuple(merge(Span(time_us(start), time_us(end)) for start, end in pairs))


def _source(file: dict[str, Any]) -> SourceFile:
    lists = {key: tuple(file[key]) for key in ("units", "unit_changes")}
    return SourceFile(**(file | lists))
