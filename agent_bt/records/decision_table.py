"""Writes `decisions.parquet` during a run, one row group at a time, in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agent_bt.core.files import publish, temporary_path
from agent_bt.records.files import unwritable
from agent_bt.records.schema import decision_schema

_ROWS, _BYTES = 512, 16 << 20
"""Maximum rows, and approximate maximum bytes, in memory at once: one row group."""


class DecisionTable:
    """A writer of the table of decisions; the file gets its name at `close`, when it is complete.

    The schema follows from the first record: its window has the strategy's columns. A thread encodes and writes a row
    group while the next one is collected; one at a time, so that memory stays bounded.
    """

    def __init__(self, path: Path) -> None:
        """Open nothing yet: the first row group is written when it is full."""
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._windows: list[dict[str, np.ndarray]] = []
        self._size = 0
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent-bt-decisions")
        self._writing: Future[None] | None = None

    def append(self, content: dict[str, Any], telemetry: dict[str, Any], size: int) -> None:
        """Add one record.

        Args:
            content: as built by `decision_record.build_content`.
            telemetry: as built by `decision_record.build_telemetry`.
            size: approximate size of the record in bytes.

        Raises:
            RecordError: the table cannot be written.
        """
        row = {**content, "telemetry": telemetry}
        window = row.pop("window", None)
        if window is not None:
            self._windows.append(window)
        self._rows.append(row)
        self._size += size
        if len(self._rows) >= _ROWS or self._size >= _BYTES:
            self._write_group()

    def close(self) -> None:
        """Write the remaining records and give the file its name.

        Raises:
            RecordError: the table cannot be written.
        """
        if self._rows or self._writer is None:
            self._write_group()
        try:
            self._wait()
            self._thread.shutdown()
            assert self._writer is not None
            self._writer.close()
            publish(temporary_path(self.path), self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def discard(self) -> None:
        """Drop all records and remove what was written."""
        self._thread.shutdown()
        if self._writer is not None and self._writer.is_open:
            self._writer.close()
        temporary_path(self.path).unlink(missing_ok=True)

    def _write_group(self) -> None:
        if self._schema is None:
            self._schema = _arrow_schema(list(self._windows[0]) if self._windows else [])
        table = _build(self._rows, self._windows, self._schema)
        self._rows, self._windows, self._size = [], [], 0
        try:
            self._wait()
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._writing = self._thread.submit(self._write, table)

    def _wait(self) -> None:
        """Wait for the row group that is being written, and raise its error if it failed."""
        if self._writing is not None:
            self._writing.result()

    def _write(self, table: pa.Table) -> None:
        if self._writer is None:
            # Dictionary encoding costs time and saves nothing on prompts, replies and prices, which rarely repeat.
            self._writer = pq.ParquetWriter(
                temporary_path(self.path), table.schema, compression="zstd", compression_level=1, use_dictionary=False
            )
        self._writer.write_table(table)


def _arrow_schema(window: Sequence[str]) -> pa.Schema:
    schema = decision_schema([name for name in window if name != "close_time"])
    return pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema


def _build(rows: list[dict[str, Any]], windows: list[dict[str, np.ndarray]], schema: pa.Schema) -> pa.Table:
    at = schema.get_field_index("window")
    if at < 0:
        return pa.Table.from_pylist(rows, schema=schema)
    table = pa.Table.from_pylist(rows, schema=schema.remove(at))
    offsets = np.cumsum([0, *(len(window["close_time"]) for window in windows)])
    fields = list(schema.field(at).type)
    lists = []
    for field in fields:
        values = pa.array(np.concatenate([window[field.name] for window in windows])).cast(field.type.value_type)
        lists.append(pa.LargeListArray.from_arrays(pa.array(offsets), values))
    return table.add_column(at, schema.field(at), pa.StructArray.from_arrays(lists, fields=fields))
