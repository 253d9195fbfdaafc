"""The tables of a run folder: decisions streamed from the journal, fills, the equity curve, the bars used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow.parquet as pq

from agent_bt.core.canonical import HashChain
from agent_bt.core.errors import RecordError
from agent_bt.core.schema import TIME
from agent_bt.core.types import Fill
from agent_bt.records.files import whole_file
from agent_bt.records.hashes import DECISION_TAG, TELEMETRY_TAG
from agent_bt.records.journal import JournalReader, Line
from agent_bt.records.schema import FILL, decision_schema, fill_row, json_schema

FILL_SCHEMA = pl.Schema(FILL)

_EQUITY: dict[str, Any] = {
    "time": TIME,
    **dict.fromkeys(("equity", "cash", "exposure", "price", "drawdown"), pl.Float64),
}
EQUITY_SCHEMA = pl.Schema(_EQUITY)
"""Per bar: its close time; equity and cash (quote units), share of equity held, close, drawdown (<= 0, a share)."""

_ROWS, _BYTES = 256, 8 << 20
"""The most rows and (about) the most bytes of journal that are in memory at once; one row group of Parquet."""


def fills_frame(fills: Sequence[Fill]) -> pl.DataFrame:
    """The fills as a table, in order; columns of `FILL_SCHEMA`."""
    return pl.DataFrame([fill_row(fill) for fill in fills], schema=json_schema(FILL_SCHEMA)).cast(FILL_SCHEMA)


def equity_frame(
    *, time: np.ndarray, equity: np.ndarray, exposure: np.ndarray, price: np.ndarray, initial_cash: float
) -> pl.DataFrame:
    """The equity curve as a table of `EQUITY_SCHEMA`; all arrays (T,), `time` int64 close times in UTC us.

    Cash follows from equity and exposure (a signed share of equity); the drawdown counts the starting cash as a peak.
    """
    peak = np.maximum(np.maximum.accumulate(equity), initial_cash)
    columns = {
        "time": time,
        "equity": equity,
        "cash": equity * (1.0 - exposure),
        "exposure": exposure,
        "price": price,
        "drawdown": equity / peak - 1.0,
    }
    return pl.DataFrame(columns).cast(EQUITY_SCHEMA)


def write_table(path: Path, frame: pl.DataFrame) -> None:
    """Write a table as Parquet; it appears whole or not at all.

    Raises:
        RecordError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        frame.write_parquet(temporary, compression="zstd")


def write_decisions(journal: Path, path: Path, *, count: int, head: str) -> str:
    """Stream the first `count` records of a journal into `decisions.parquet`, a row group at a time.

    `head` is what the chain must be after them. Returns the hash of their telemetry.

    Raises:
        RecordError: the journal is damaged or ends too early, or the table cannot be written.
    """
    telemetry = HashChain(TELEMETRY_TAG)
    lines = islice(JournalReader(journal).lines(), count)
    seen, chain, writer = 0, HashChain(DECISION_TAG).head, None
    with whole_file(path) as temporary:
        schema, batches = _schema_and_batches(lines)
        try:
            for batch in batches:
                for line in batch:
                    telemetry.link(line.telemetry)
                seen, chain = batch[-1].number, batch[-1].chain
                table = _parse(batch, schema).to_arrow(compat_level=pl.CompatLevel.oldest())
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema, compression="zstd", use_dictionary=["prompt"])
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            pl.DataFrame(schema=schema).write_parquet(temporary)
        if seen != count or chain != head:
            raise RecordError(
                f"{journal} holds {seen} decisions where {count} were made, or other ones; "
                "was it changed while the run was running? Run the same command again to repair it"
            )
    return telemetry.head


def _schema_and_batches(lines: Iterator[Line]) -> tuple[pl.Schema, Iterator[list[Line]]]:
    """The schema that the first record asks for, and all lines in batches."""
    first = next(lines, None)
    if first is None:
        return decision_schema(()), iter(())
    window = orjson.loads(first.content).get("window", {})
    columns = [name for name in window if name != "close_time"]
    return decision_schema(columns), _batches(first, lines)


def _batches(first: Line, lines: Iterator[Line]) -> Iterator[list[Line]]:
    batch, size = [first], len(first.raw)
    for line in lines:
        if len(batch) >= _ROWS or size + len(line.raw) > _BYTES:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.raw)
    yield batch


def _parse(batch: Sequence[Line], schema: pl.Schema) -> pl.DataFrame:
    plain = json_schema(schema)
    telemetry = plain.pop("telemetry")
    source = BytesIO(b"".join(line.raw for line in batch))
    table = pl.read_ndjson(source, schema={"content": pl.Struct(plain), "telemetry": telemetry})
    return table.unnest("content").cast(schema)
