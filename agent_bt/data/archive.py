"""Archives of exchanges: which file holds what, and its content once checksum and ZIP have been checked."""

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
from agent_bt.data.exchange import Exchange, exchange_of
from agent_bt.data.spans import Span, month_span
from agent_bt.data.transport import Transport

MAX_TEXT = 64 * 2**20
"""No table is larger once unpacked; a month of minutes is 7 to 10 MB."""

_CHECKSUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One ZIP of the archive: a month (`2024-07`) or a day (`2024-07-01`) of one symbol.

    Attributes:
        period: the month or the day.
        span: the time it covers.
        path: where the archive keeps it, below its base URL.
    """

    period: str
    span: Span
    path: str

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.rpartition("/")[2].removesuffix(".zip")


def archive_file(exchange: Exchange, kind: str, symbol: str, interval: str, period: str) -> ArchiveFile:
    """Return the ZIP of one month or one UTC day.

    Args:
        exchange: keeps the archive.
        kind, symbol, interval, period: see `Exchange.archive_path`.
    """
    path = exchange.archive_path(kind, symbol, interval, period)
    return ArchiveFile(period=period, span=_span_of(period), path=path)


def file_at(path: str) -> ArchiveFile:
    """Return the file that an archive keeps at a path; its period stands at the end of its name.

    Raises:
        DataError: its name does not end with a month or a day.
    """
    found = _PERIOD.search(path)
    if found is None:
        raise DataError(f"{path}: its name must end with a month or a day, as in BTCUSDT-1m-2024-07.zip")
    return ArchiveFile(period=found[0], span=_span_of(found[0]), path=path)


def _span_of(period: str) -> Span:
    if len(period) == len("2024-07"):
        return month_span(period)
    start = time_us(period)
    return Span(start, start + DAY)


_PERIOD = re.compile(r"\d{4}-\d{2}(-\d{2})?(?=\.zip$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The CSV of an archive file, and the SHA-256 of the ZIP that it came in."""

    file: ArchiveFile
    text: bytes
    sha256: str
    size: int


class Archive:
    """An exchange's archive behind a base URL: the original, a mirror, or a folder."""

    def __init__(self, base_url: str, transport: Transport, exchange: Exchange | None = None) -> None:
        """Open an archive.

        Args:
            base_url: ends where the paths of the exchange begin (Binance: `spot/monthly/...`); http(s):// or file://.
            transport: sends the requests.
            exchange: whose archive it is; default: Binance.

        Raises:
            DataError: it names a folder that is not there.
        """
        parts = urlsplit(base_url)
        if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
            raise DataError(f"there is no folder {unquote(parts.path)}; check data.archive_url (--archive-url)")
        self.base_url = base_url.rstrip("/")
        self.transport = transport
        self.exchange = exchange or exchange_of("binance")

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
        if not self.exchange.has_checksums:
            return None
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
        if stated is None and self.exchange.has_checksums:
            raise ArchiveError(f"{file.path}: the archive has no CHECKSUM for it")
        found = hashlib.sha256(answer.body).hexdigest()
        if stated is not None and found != stated:
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
