"""Write the bars of a symbol to a Parquet file that appears only when it is complete."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from agent_bt.bars.aggregate import FastBarAggregator, ProgressCallback
from agent_bt.bars.streaming import BarType, resolve
from agent_bt.bars.ticks import Repair
from agent_bt.core.errors import DataError, UsageError
from agent_bt.core.files import whole_file


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBars:
    """A file of bars: where it is, how many ticks and bars, and how many ticks were repaired."""

    path: Path
    ticks: int
    bars: int
    repaired: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "path": str(self.path)}


def bars_file(symbol: str, bar_type: str, threshold: float | str) -> str:
    """Return the name of a file of bars: `BTCUSDT_dollar_bar_1000000.parquet`.

    Args:
        symbol: as the exchange writes it.
        bar_type, threshold: see `bars.aggregate_bars`.

    Raises:
        UsageError: the symbol cannot be part of a file name, or type or threshold are not valid.
    """
    if not symbol or re.search(r"[/\\\x00-\x1f]", symbol) or symbol.startswith("."):
        raise UsageError(f"SYMBOL must be the name of a symbol such as BTCUSDT, got {symbol!r}")
    resolve(bar_type, threshold)
    try:
        text = f"{float(threshold):.12g}"
    except ValueError:  # a duration
        text = str(threshold).strip()
    return f"{symbol}_{bar_type}_{text}.parquet"


def aggregate_files(
    symbol: str,
    sources: Sequence[Path | str],
    *,
    bar_type: str,
    threshold: float | str,
    folder: Path,
    include_advanced: bool = True,
    include_last: bool = True,
    repair: Sequence[str] = (),
    n_workers: int = 4,
    progress_callback: ProgressCallback | None = None,
) -> WrittenBars:
    """Aggregate files of ticks and write their bars; a file of the same name is replaced as a whole.

    Args:
        symbol: names the file and the column `symbol`.
        sources: files in the order of time.
        bar_type, threshold, include_advanced, include_last, n_workers, progress_callback: see `bars.aggregate_bars`.
        folder: where the file is written; made if it is not there.
        repair: see `bars.ticks.read_ticks`.

    Raises:
        UsageError: a parameter is not valid.
        DataError: a source cannot be read or holds invalid ticks; the disk is full.
    """
    path = folder / bars_file(symbol, bar_type, threshold)
    aggregator = FastBarAggregator(
        bar_type=cast(BarType, bar_type),
        threshold=threshold,
        include_advanced=include_advanced,
        include_last=include_last,
        symbol=symbol,
        n_workers=n_workers,
        repair=cast(Sequence[Repair], repair),
    )
    result = aggregator.aggregate([Path(source) for source in sources], progress_callback)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            result.bars.write_parquet(temporary, compression="zstd")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}; make room or name another folder") from error
    return WrittenBars(path=path, ticks=result.ticks, bars=len(result.bars), repaired=result.repaired)
