"""Read the month-partitioned Parquet store of one series of a symbol, and commit whole months to it."""

from __future__ import annotations

import hashlib
import io
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from agent_bt.core.clock import DAY, iso
from agent_bt.core.errors import DataError
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.files import remove_leftovers, write_whole
from agent_bt.data.offsets import MonthFile, Offsets, SourceFile
from agent_bt.data.settlements import FUNDING_SCHEMA
from agent_bt.data.spans import Span, merge, months_in, subtract

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A series of a symbol in the store.

    Attributes:
        name: name of its folder.
        offsets: file name of its offsets.
        schema: its columns, the time first.
    """

    name: str
    offsets: str
    schema: pl.Schema

    @property
    def time(self) -> str:
        """Return the column that rows are sorted by and assigned to months by."""
        return self.schema.names()[0]


KLINES = Series(name="klines_1m", offsets="offsets.json", schema=STORE_SCHEMA)
SETTLEMENTS = Series(name="funding", offsets="funding.json", schema=FUNDING_SCHEMA)


class Store:
    """Read and write one series in `ROOT/KIND/SYMBOL/`.

    Klines are in `klines_1m/YYYY-MM.parquet`, with `metadata/offsets.json` and optionally `raw_csv/`; the settlements
    of a perpetual in `funding/YYYY-MM.parquet`, with `metadata/funding.json`.

    A month is one file in the schema of its series, sorted, one row an instant. The Parquet file is replaced before the
    offsets, so that a concurrent reader may see more rows than the offsets list, never fewer.
    """

    def __init__(self, root: Path | str, symbol: str, kind: str = "spot", series: Series = KLINES) -> None:
        """Open the store of a series; nothing is read or created yet.

        Args:
            root: folder of the store, `data.root`.
            symbol: as the exchange writes it.
            kind: kind of market, `spot` (default) or `um`.
            series: `KLINES` (default) or `SETTLEMENTS`.
        """
        self.root = Path(root)
        self.symbol = symbol
        self.kind = kind
        self.series = series
        self.folder = self.root / kind / symbol
        self.months = self.folder / series.name
        self.raw_csv = self.folder / "raw_csv"
        self.offsets_path = self.folder / "metadata" / series.offsets
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r}, {self.symbol!r}, {self.kind!r}, {self.series.name})"

    def offsets(self) -> Offsets:
        """Read the offsets; return empty ones for a store that does not exist yet.

        Raises:
            DataError: the file is not readable.
        """
        try:
            text = self.offsets_path.read_bytes()
        except FileNotFoundError:
            return Offsets()
        except OSError as error:
            raise DataError(f"{self.offsets_path}: cannot be read: {error.strerror}") from error
        return Offsets.from_json(text, str(self.offsets_path), self.series.name)

    def path(self, month: str) -> Path:
        """Return the path of the Parquet file of a month."""
        return self.months / f"{month}.parquet"

    def months_on_disk(self) -> list[str]:
        """Return the months that have a file, recorded in the offsets or not."""
        return sorted(path.stem for path in self.months.glob("[0-9]*.parquet"))

    def read_month(self, month: str) -> pl.DataFrame:
        """Read all rows of a month, columns of the series; return an empty table if it has no file.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path(month)
        try:
            frame = pl.read_parquet(path)
        except FileNotFoundError:
            return self.series.schema.to_frame()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not readable as Parquet; {self._repair()}") from error
        if frame.schema != self.series.schema:
            raise DataError(
                f"{path}: columns must be {', '.join(self.series.schema.names())}, with their types; {self._repair()}"
            )
        return frame

    def read(self, span: Span) -> pl.DataFrame:
        """Read the rows whose time is in `span`, columns of the series.

        Raises:
            DataError: a file is damaged or missing.
        """
        known = self.offsets().months
        frames = [self.series.schema.to_frame()]
        for month in months_in(span):
            if month in known and not self.path(month).exists():
                raise DataError(f"{self.path(month)}: is missing; {self._repair()}")
            frames.append(self.read_month(month))
        time = pl.col(self.series.time).cast(pl.Int64)
        return pl.concat(frames).filter(time.is_between(span.start, span.end, closed="left")).rechunk()

    def intact(self, month: str, offsets: Offsets) -> bool:
        """Return whether the file of a month is unchanged since it was written, by its SHA-256.

        Args:
            month: such as `2024-07`; one without record and file is intact.
            offsets: the recorded hashes.
        """
        path, known = self.path(month), offsets.months.get(month)
        if known is None or not path.exists():
            return known is None and not path.exists()
        return hashlib.sha256(path.read_bytes()).hexdigest() == known.sha256

    def commit(
        self,
        month: str,
        frame: pl.DataFrame,
        *,
        covered: list[Span],
        outages: list[Span],
        sources: Mapping[str, SourceFile],
        forget: Span | None = None,
    ) -> None:
        """Replace the content of a month and update the offsets; both are on the disk on return.

        Args:
            month: such as `2024-07`.
            frame: all rows of the month, columns of the series, sorted by unique times. An empty one removes the file.
            covered: spans to add to the covered ones, UTC us.
            outages: spans to add to the outages, UTC us.
            sources: archive files to add, by path below the base URL of the archive.
            forget: span to remove from the covered spans and outages first, UTC us, with the sources of the month;
                default: none.

        Raises:
            DataError: the disk is full or not writable; rows that were committed before are kept.
        """
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", compression_level=3)
        content = buffer.getvalue()
        with self._writing:
            if len(frame):
                write_whole(self.path(month), content)
            else:
                self.path(month).unlink(missing_ok=True)
            known = self.offsets()
            removed = [forget] if forget else []
            months = {name: file for name, file in known.months.items() if name != month}
            if len(frame):
                months[month] = MonthFile(sha256=hashlib.sha256(content).hexdigest(), rows=len(frame))
            kept = {path: file for path, file in known.sources.items() if not (forget and month in path)}
            updated = replace(
                known,
                covered=tuple(merge([*subtract(known.covered, removed), *covered])),
                outages=tuple(merge([*subtract(known.outages, removed), *outages])),
                months=months,
                sources={**kept, **sources},
            )
            write_whole(self.offsets_path, updated.to_json(self.series.name))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the series against other writing processes; the lock ends with its process.

        Raises:
            DataError: another process writes to this symbol now, or the folder cannot be written.
        """
        try:
            self.offsets_path.parent.mkdir(parents=True, exist_ok=True)
            handle = (self.offsets_path.parent / ".lock").open("a")
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be written: {error.strerror}") from error
        with handle:
            if sys.platform != "win32":
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise DataError(f"{self.folder}: another process is writing here; wait for it to end") from None
            for folder in (self.months, self.raw_csv, self.offsets_path.parent):
                remove_leftovers(folder)
            yield

    def command(self, missing: Sequence[Span] = ()) -> str:
        """Return the command that fetches the missing spans; without a span, the last two months."""
        command = f"agent-bt data backfill{self._kind_option()} --symbol {self.symbol} --interval 1m"
        if str(self.root) != "data":
            command += f" --root {shlex.quote(str(self.root))}"
        if not missing:
            return f"{command} --months 2"
        first = iso(missing[0].start // DAY * DAY)[:10]
        last = iso(-(-missing[-1].end // DAY) * DAY)[:10]
        return f"{command} --start {first} --end {last}"

    def _repair(self) -> str:
        command = f"agent-bt data verify{self._kind_option()} --symbol {self.symbol} --root {self.root} --repair"
        return f"run `{command}`"

    def _kind_option(self) -> str:
        return "" if self.kind == "spot" else f" --kind {self.kind}"


def root_of(root: Path | str, exchange: str) -> Path:
    """Return the folder of an exchange's stores: `root` for Binance, else a subfolder with the exchange's name.

    Args:
        root: folder of the store, `data.root`.
        exchange: name of the exchange, `data.exchange`.
    """
    return Path(root) if exchange == "binance" else Path(root) / exchange.replace(":", ".")


def series_in(root: Path | str) -> list[Store]:
    """Return the stores of klines below `root`, sorted by kind and symbol."""
    found = sorted(Path(root).glob("*/*/metadata/offsets.json"))
    return [Store(root, path.parts[-3], path.parts[-4]) for path in found]
