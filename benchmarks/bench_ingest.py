"""Three months of minutes, ZIP to Parquet: `agent-bt data backfill` beside the bare steps without any check.

Run `python -m benchmarks.run ingest`. The real months of AGENT_BT_MARKET_DATA (see tests/conftest.py) are read
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


def seconds(work: Callable[[Path, Path], None], source: Path) -> float:
    """One round into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        work(source, Path(folder))
        return time.perf_counter() - began


def main() -> dict[str, Any]:
    """Medians of both, and the median of the paired ratios."""
    source = archive_folder()
    if not source.is_dir():
        raise SystemExit(f"no real market data at {source}; set AGENT_BT_MARKET_DATA")
    seconds(ingest, source), seconds(bare, source)
    # Both in each round, so that a machine that slows down or speeds up favours neither.
    pairs = [(seconds(ingest, source), seconds(bare, source)) for _ in range(ROUNDS)]
    ours = statistics.median(pair[0] for pair in pairs)
    row = {
        "work": f"{BARS:,} 1m bars, 3 monthly ZIPs -> Parquet, all checks",
        "ours": ours,
        "unit": "s",
        "peer": "unzip + polars read_csv + write_parquet, no check",
        "theirs": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
        "target": f"< {TARGET_S:g} s",
        "met": ours < TARGET_S,
    }
    print(f"{row['work']}: {ours:.3f} s ({BARS / ours / 1e3:,.0f} k bars/s); target {row['target']}")
    print(f"{row['peer']}: {row['theirs']:.3f} s; ratio {row['ratio']:.2f}")
    return {"name": "ingest", "rows": [row]}


if __name__ == "__main__":
    main()
