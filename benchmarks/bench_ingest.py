"""Three months of minutes, ZIP to Parquet: `agent-bt data backfill` beside the bare steps without any check.

Run `python benchmarks/bench_ingest.py`. The real months of AGENT_BT_MARKET_DATA (see tests/conftest.py) are read
through a file:// address, so that no network is measured. The limit is what nobody can go below with the same
libraries on one thread: unzip, `polars.read_csv`, `write_parquet`, no checksum, no check of a row, no fsync.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from agent_bt.core.clock import time_us
from agent_bt.data.archive import Archive
from agent_bt.data.backfill import backfill
from agent_bt.data.klines import RAW_SCHEMA
from agent_bt.data.spans import Span
from agent_bt.data.store import Store
from agent_bt.data.transport import Transport

TARGET_S = 3.0
ROUNDS = 5
BARS = 132_480
MONTHS = ("2024-07", "2024-08", "2024-09")
SPAN = Span(time_us("2024-07-01"), time_us("2024-10-01"))


def archive_folder() -> Path:
    """Where the real archive files lie."""
    default = Path(__file__).parents[2] / "shared" / "market"
    return Path(os.environ.get("AGENT_BT_MARKET_DATA", default)) / "archive" / "data"


def ingest(source: Path, target: Path) -> None:
    """Ours: checksums, defensive ZIP, units, every row checked, fsync, offsets; then nothing is missing."""
    archive = Archive(source.resolve().as_uri(), Transport())
    result = backfill(Store(target, "BTCUSDT"), [SPAN], archive, None, now=time_us("2025-01-01"))
    if result.added != BARS or result.failures:
        raise RuntimeError(f"{result.added} bars, {result.failures}")


def bare(source: Path, target: Path) -> None:
    """The limit: the same libraries, no check, one month after the other."""
    bars = 0
    for month in MONTHS:
        name = f"BTCUSDT-1m-{month}"
        with zipfile.ZipFile(source / "spot" / "monthly" / "klines" / "BTCUSDT" / "1m" / f"{name}.zip") as container:
            text = container.read(f"{name}.csv")
        table = pl.read_csv(io.BytesIO(text), has_header=False, schema=RAW_SCHEMA)
        table.write_parquet(target / f"{month}.parquet", compression="zstd", compression_level=3)
        bars += len(table)
    if bars != BARS:
        raise RuntimeError(f"{bars} bars")


def measure(work: Callable[[Path, Path], None], source: Path) -> float:
    """Median seconds of some rounds, each into an empty folder, after one to warm up."""
    seconds = []
    for _ in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            work(source, Path(folder))
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> dict[str, Any]:
    """Measure, print a table, return the figures (seconds)."""
    source = archive_folder()
    if not source.is_dir():
        return {"name": "ingest", "skipped": f"no real market data at {source}; set AGENT_BT_MARKET_DATA"}
    ours, limit = measure(ingest, source), measure(bare, source)
    print(f"{BARS:,} one-minute bars, 3 monthly ZIPs -> Parquet, median of {ROUNDS}")
    print(f"  agent-bt, all checks          {ours:7.3f} s   {BARS / ours / 1e3:7,.0f} k bars/s")
    print(f"  unzip + read_csv + write      {limit:7.3f} s   {BARS / limit / 1e3:7,.0f} k bars/s")
    print(f"  ratio {ours / limit:.2f}; target < {TARGET_S} s: {'met' if ours < TARGET_S else 'MISSED'}")
    return {
        "name": "ingest",
        "bars": BARS,
        "seconds": ours,
        "limit_seconds": limit,
        "ratio_to_limit": ours / limit,
        "target_seconds": TARGET_S,
        "target_met": ours < TARGET_S,
    }


if __name__ == "__main__":
    main()
