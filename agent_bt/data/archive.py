"""Name and download the files of exchange archives, and check their checksums and ZIP structure."""

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
"""Largest table that is accepted, bytes uncompressed; a month of one-minute bars is 7 to 10 MB."""

_CHECKSUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One ZIP of the archive: a month or a day of one symbol.

    Attributes:
        period: the month (`2024-07`) or the UTC day (`2024-07-01`).
        span: the time it covers, UTC us.
        path: its path below the base URL of the archive.
    """

    period: str
    span: Span
    path: str

    @property
    def name(self) -> str:
        """Return the file name without `.zip`."""
        return self.path.rpartition("/")[2].removesuffix(".zip")


def archive_file(exchange: Exchange, kind: str, symbol: str, interval: str, period: str) -> ArchiveFile:
    """Return the ZIP of one month or one UTC day.

    Args:
        exchange: the exchange of the archive.
        kind: kind of market, one of `exchange.kinds`: `spot` or `um`.
        symbol: as the exchange writes it.
        interval: `1m`, or `data.exchange.FUNDING` for settlements.
        period: a month, `2024-07`, or a UTC day, `2024-07-01`.
    """
    path = exchange.archive_path(kind, symbol, interval, period)
    return ArchiveFile(period=period, span=_span_of(period), path=path)


def file_at(path: str) -> ArchiveFile:
    """Return the archive file at a path, with the period that its name ends with.

    Raises:
        DataError: the name does not end with a month or a day.
    """
    found = _PERIOD.search(path)
    if found is None:
        raise DataError(f"{path}: the file name must end with a month or a day, as in BTCUSDT-1m-2024-07.zip")
    return ArchiveFile(period=found[0], span=_span_of(found[0]), path=path)


def _span_of(period: str) -> Span:
    if len(period) == len("2024-07"):
        return month_span(period)
    start = time_us(period)
    return Span(start, start + DAY)


_PERIOD = re.compile(r"\d{4}-\d{2}(-\d{2})?(?=\.zip$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The CSV of an archive file.

    Attributes:
        file: the archive file.
        text: the CSV.
        sha256: of the ZIP, hexadecimal.
        size: of the ZIP, bytes.
    """

    file: ArchiveFile
    text: bytes
    sha256: str
    size: int


class Archive:
    """Download files of an exchange's archive from the original, a mirror, or a folder."""

    def __init__(self, base_url: str, transport: Transport, exchange: Exchange | None = None) -> None:
        """Open an archive.

        Args:
            base_url: http(s):// or file:// URL that the paths of the exchange (Binance: `spot/monthly/...`) are below.
            transport: sends the requests.
            exchange: the exchange of the archive; default: Binance.

        Raises:
            DataError: the URL is of a folder that does not exist.
        """
        parts = urlsplit(base_url)
        if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
            raise DataError(f"{unquote(parts.path)} is not a folder; check data.archive_url (--archive-url)")
        self.base_url = base_url.rstrip("/")
        self.transport = transport
        self.exchange = exchange or exchange_of("binance")

    def fetch(self, file: ArchiveFile) -> Table | None:
        """Download the table in `file`; return None if the archive has no such file.

        A damaged file is downloaded a second time, because the damage may have happened in transfer.

        Raises:
            ArchiveError: the checksum, the ZIP or its content is wrong, twice.
            Unreachable, Banned, DataError: see `Transport.get`.
        """
        try:
            return self._fetch(file)
        except ArchiveError:
            return self._fetch(file)

    def checksum(self, file: ArchiveFile) -> str | None:
        """Download the SHA-256 that the archive publishes for `file`; return None if it has none.

        Raises:
            ArchiveError: the response is not a checksum of this file.
        """
        if not self.exchange.has_checksums:
            return None
        response = self.transport.get(f"{self.base_url}/{file.path}.CHECKSUM")
        if response is None:
            return None
        match = _CHECKSUM.match(response.body.decode("utf-8", "replace"))
        if match is None or match.group(2) != f"{file.name}.zip":
            raise ArchiveError(f"{file.path}.CHECKSUM: must be a SHA-256 of {file.name}.zip")
        return match.group(1).lower()

    def _fetch(self, file: ArchiveFile) -> Table | None:
        response = self.transport.get(f"{self.base_url}/{file.path}")
        if response is None:
            return None
        expected = self.checksum(file)
        if expected is None and self.exchange.has_checksums:
            raise ArchiveError(f"{file.path}: the archive has no CHECKSUM of this file")
        actual = hashlib.sha256(response.body).hexdigest()
        if expected is not None and actual != expected:
            hint = "" if response.body.startswith(b"PK") else "; the response is not a ZIP"
            raise ArchiveError(f"{file.path}: SHA-256 is {actual[:12]}..., the archive states {expected[:12]}...{hint}")
        return Table(file=file, text=unzip(response.body, file), sha256=actual, size=len(response.body))


def unzip(data: bytes, file: ArchiveFile) -> bytes:
    """Extract the one table in a ZIP without trusting the sizes and names that the ZIP declares.

    Args:
        data: the ZIP.
        file: the archive file it was downloaded as; its name gives the name of the table.

    Raises:
        ArchiveError: the ZIP is damaged, encrypted or too large, or has a member other than the expected one.
    """
    expected = f"{file.name}.csv"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as container:
            names = container.namelist()
            if names != [expected]:
                raise ArchiveError(
                    f"{file.path}: contains {', '.join(names[:3]) or 'no file'}, expected only {expected}"
                )
            with container.open(expected) as member:
                text = member.read(MAX_TEXT + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"{file.path}: not a valid ZIP ({error})") from error
    if len(text) > MAX_TEXT:
        raise ArchiveError(f"{file.path}: must unpack to at most {MAX_TEXT >> 20} MiB")
    return text
