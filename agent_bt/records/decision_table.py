"""Writes `decisions.parquet` while the run runs, a row group at a time, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agent_bt.records.files import publish, temporary_of, unwritable
from agent_bt.records.schema import decision_schema

_ROWS, _BYTES = 512, 16 << 20
"""The most rows, and about the most bytes, that are in memory at once: one row group."""


class DecisionTable:
    """Collects records and writes them; the file appears at `close`, whole.

    The schema follows from the first record: the columns of its window are the strategy's. A row group is encoded and
    written by a thread of its own while the next one is collected; one at a time, so that memory stays bounded.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is written before the first row group is full."""
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._windows: list[dict[str, np.ndarray]] = []
        self._size = 0
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent-bt-decisions")
        self._writing: Future[None] | None = None

    def append(self, content: dict[str, Any], telemetry: dict[str, Any], size: int) -> None:
        """Take one record, as made by `schema.content_of` and `telemetry_of`; `size` is about its bytes.

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
        """Write what is left; the file gets its name.

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
            publish(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def discard(self) -> None:
        """Forget everything; what was written disappears."""
        self._thread.shutdown()
        if self._writer is not None and self._writer.is_open:
            self._writer.close()
        temporary_of(self.path).unlink(missing_ok=True)

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
        """Wait for the row group that is being written; raises what went wrong with it."""
        if self._writing is not None:
            self._writing.result()

    def _write(self, table: pa.Table) -> None:
        if self._writer is None:
            # Dictionaries cost time and save nothing on prompts, replies and prices, which hardly ever repeat.
            self._writer = pq.ParquetWriter(
                temporary_of(self.path), table.schema, compression="zstd", compression_level=1, use_dictionary=False
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
