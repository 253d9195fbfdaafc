"""Read and write the offsets of a series: the spans the store covers, their source files and when they were fetched."""

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
    """One month of the store.

    Attributes:
        sha256: of the Parquet file, hexadecimal.
        rows: number of its rows.
    """

    sha256: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One archive file whose rows went into the store.

    Attributes:
        sha256: of the ZIP, hexadecimal.
        size: of the ZIP, bytes.
        rows: number of rows used.
        fetched: time of the download, ISO 8601.
        units: units of its times (`ms`, `us`) in order of appearance.
        unit_changes: open times at which the unit changes, ISO 8601.
        notes: see `klines.normalise`.
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
    """The state of one series of the store.

    Attributes:
        covered: spans for which an archive file or the REST endpoint has given data or confirmed that there is none.
        outages: spans without bars at any source, not requested again; part of `covered`.
        months: month -> its Parquet file.
        sources: path below the archive's base URL -> the file that was used.
    """

    covered: tuple[Span, ...] = ()
    outages: tuple[Span, ...] = ()
    months: Mapping[str, MonthFile] = field(default_factory=dict)
    sources: Mapping[str, SourceFile] = field(default_factory=dict)

    def to_json(self, series: str) -> bytes:
        """Return the content of the offsets file of the series named `series`."""
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
        """Read the content of an offsets file.

        Args:
            text: the content, as `to_json` writes it.
            name: name of the file in error messages.
            series: name of the series that the file must be about.

        Raises:
            DataError: the content is not valid, or of another version.
        """
        try:
            content = orjson.loads(text)
            if content["version"] != VERSION:
                raise DataError(f"{name}: version must be {VERSION}, got {content['version']}; update agent-bt")
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
                "all data are fetched again"
            ) from error


def _spans(pairs: Iterable[tuple[str, str]]) -> tuple[Span, ...]:
    return tuple(merge(Span(time_us(start), time_us(end)) for start, end in pairs))


def _source(file: dict[str, Any]) -> SourceFile:
    lists = {key: tuple(file[key]) for key in ("units", "unit_changes")}
    return SourceFile(**(file | lists))
