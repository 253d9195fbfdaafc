"""Binance Vision: which file holds what, and its content once checksum and ZIP have been checked."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent_bt.core.clock import DAY, time_us
from agent_bt.core.errors import ArchiveError, DataError
from agent_bt.data.spans import Span, month_span
from agent_bt.data.transport import Transport

MAX_TEXT = 64 * 2**20
"""No table is larger once unpacked; a month of minutes is 7 to 10 MB."""

_CHECKSUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S+)")


FOLDERS = {"spot": "spot", "um": "futures/um"}
"""Kind of market -> where the archive keeps it; `um` are perpetuals margined in USD."""

FUNDING = "fundingRate"
"""What stands in the place of the interval for the settlements of a perpetual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One ZIP of the archive: a month (`2024-07`) or a day (`2024-07-01`) of one symbol.

    `interval` is that of the klines, or `FUNDING`.
    """

    kind: str
    symbol: str
    interval: str
    period: str
    span: Span

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return f"{self.symbol}-{self.interval}-{self.period}"

    @property
    def path(self) -> str:
        """Where the archive keeps it, below its base URL."""
        frequency = "monthly" if len(self.period) == len("2024-07") else "daily"
        below = f"{FUNDING}/{self.symbol}" if self.interval == FUNDING else f"klines/{self.symbol}/{self.interval}"
        return f"{FOLDERS[self.kind]}/{frequency}/{below}/{self.name}.zip"


def monthly_file(kind: str, symbol: str, interval: str, month: str) -> ArchiveFile:
    """The ZIP of one month."""
    return ArchiveFile(kind=kind, symbol=symbol, interval=interval, period=month, span=month_span(month))


def daily_file(kind: str, symbol: str, interval: str, day: str) -> ArchiveFile:
    """The ZIP of one UTC day."""
    start = time_us(day)
    return ArchiveFile(kind=kind, symbol=symbol, interval=interval, period=day, span=Span(start, start + DAY))


def file_at(path: str) -> ArchiveFile:
    """The file that the archive keeps at `path` (the reverse of `ArchiveFile.path`)."""
    kind = next(kind for kind, folder in FOLDERS.items() if path.startswith(f"{folder}/"))
    frequency, table, symbol, *between, name = path.removeprefix(f"{FOLDERS[kind]}/").split("/")
    [interval] = between or [table]
    period = name.removeprefix(f"{symbol}-{interval}-").removesuffix(".zip")
    make = monthly_file if frequency == "monthly" else daily_file
    return make(kind, symbol, interval, period)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The CSV of an archive file, and the SHA-256 of the ZIP that it came in."""

    file: ArchiveFile
    text: bytes
    sha256: str
    size: int


class Archive:
    """A copy of Binance Vision behind a base URL: the original, a mirror, or a folder."""

    def __init__(self, base_url: str, transport: Transport) -> None:
        """`base_url` ends where `spot/monthly/...` begins: http(s):// or file://.

        Raises:
            DataError: it names a folder that is not there.
        """
        parts = urlsplit(base_url)
        if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
            raise DataError(f"there is no folder {unquote(parts.path)}; check data.archive_url (--archive-url)")
        self.base_url = base_url.rstrip("/")
        self.transport = transport

    def fetch(self, file: ArchiveFile) -> Table | None:
        """The table in `file`; None if the archive has no such file.

        A damaged arrival is fetched a second time, because the damage may have happened on the way.

        Raises:
            ArchiveError: checksum, ZIP or content are wrong, twice.
            Unreachable, Banned, DataError: see `Transport.get`.
        """
        try:
            return self._fetch(file)
        except ArchiveError:
            return self._fetch(file)

    def checksum(self, file: ArchiveFile) -> str | None:
        """The SHA-256 that the archive states for `file` now; None if it has none.

        Raises:
            ArchiveError: what came back is not a checksum of this file.
        """
        answer = self.transport.get(f"{self.base_url}/{file.path}.CHECKSUM")
        if answer is None:
            return None
        match = _CHECKSUM.match(answer.body.decode("utf-8", "replace"))
        if match is None or match.group(2) != f"{file.name}.zip":
            raise ArchiveError(f"{file.path}.CHECKSUM: not a SHA-256 of {file.name}.zip")
        return match.group(1).lower()

    def _fetch(self, file: ArchiveFile) -> Table | None:
        answer = self.transport.get(f"{self.base_url}/{file.path}")
        if answer is None:
            return None
        stated = self.checksum(file)
        if stated is None:
            raise ArchiveError(f"{file.path}: the archive has no CHECKSUM for it")
        found = hashlib.sha256(answer.body).hexdigest()
        if found != stated:
            hint = "" if answer.body.startswith(b"PK") else "; what came back is not even a ZIP"
            raise ArchiveError(f"{file.path}: SHA-256 is {found[:12]}..., the archive says {stated[:12]}...{hint}")
        return Table(file=file, text=unzip(answer.body, file), sha256=found, size=len(answer.body))


def unzip(data: bytes, file: ArchiveFile) -> bytes:
    """The one table in a ZIP, trusting nothing that the ZIP says about itself.

    Raises:
        ArchiveError: not a ZIP, damaged, encrypted, another member than the expected one, or too large.
    """
    expected = f"{file.name}.csv"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as container:
            names = container.namelist()
            if names != [expected]:
                raise ArchiveError(f"{file.path}: holds {', '.join(names[:3]) or 'nothing'}, expected only {expected}")
            with container.open(expected) as member:
                text = member.read(MAX_TEXT + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"{file.path}: not a sound ZIP ({error})") from error
    if len(text) > MAX_TEXT:
        raise ArchiveError(f"{file.path}: unpacks to more than {MAX_TEXT >> 20} MiB; refused")
    return text
