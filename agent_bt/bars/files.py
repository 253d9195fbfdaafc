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
    """A file of bars that was written.

    Attributes:
        path: the Parquet file.
        ticks: number of ticks that were aggregated.
        bars: number of bars in the file.
        repaired: kind of repair -> number of ticks.
    """

    path: Path
    ticks: int
    bars: int
    repaired: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain data, for `--json`."""
        return {**asdict(self), "path": str(self.path)}


def bars_file(symbol: str, bar_type: str, threshold: float | str) -> str:
    """Return the name of a file of bars: `BTCUSDT_dollar_bar_1000000.parquet`.

    Args:
        symbol: as the exchange writes it.
        bar_type: see `bars.aggregate_bars`.
        threshold: see `bars.aggregate_bars`.

    Raises:
        UsageError: the symbol cannot be part of a file name, or the bar type or the threshold is not valid.
    """
    if not symbol or re.search(r"[/\\\x00-\x1f]", symbol) or symbol.startswith("."):
        raise UsageError(f"SYMBOL must be the name of a symbol such as BTCUSDT, got {symbol!r}")
    resolve(bar_type, threshold)
    try:
        text = f"{float(threshold):.12g}"
    except ValueError:  # a duration such as 1h
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
    """Aggregate files of ticks and write their bars; a file of the same name is replaced atomically.

    Args:
        symbol: as the exchange writes it; part of the file name and value of the column `symbol`.
        sources: files of ticks in chronological order.
        bar_type: `time_bar`, `tick_bar`, `volume_bar` or `dollar_bar`.
        threshold: a duration, a number of ticks, a volume or a dollar volume; see `bars.aggregate_bars`.
        folder: folder of the file; created if it does not exist.
        include_advanced: whether `up_move_ratio`, `medium_price` and `reversals` are computed; default True.
        include_last: whether the last, unfinished bar is part of the result; default True.
        repair: see `bars.ticks.read_ticks`; default: nothing is repaired.
        n_workers: number of files that are read at the same time; default 4.
        progress_callback: called with (current, total) after each file; default: none.

    Raises:
        UsageError: a parameter is not valid.
        DataError: a source cannot be read or holds invalid ticks, or the file cannot be written.
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
        raise DataError(f"{path} cannot be written: {error}; free disk space or choose another folder") from error
    return WrittenBars(path=path, ticks=result.ticks, bars=len(result.bars), repaired=result.repaired)
