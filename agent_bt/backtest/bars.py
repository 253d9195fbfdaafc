"""Load the bars of a run from the source that its configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from agent_bt.config.model import Config
from agent_bt.core.clock import HOUR, duration_us, interval_us, iso, time_us
from agent_bt.core.errors import DataError
from agent_bt.core.protocols import DataSource

if TYPE_CHECKING:
    from agent_bt.data.panel import Panel


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBars:
    """The bars of a run, and where they come from.

    Attributes:
        bars: columns of `BAR_SCHEMA`, warm-up included; several symbols one after another, with `symbol`, and
            perpetual futures with `funding_rate`.
        label: names the source in reports.
        sample: whether the prices are generated.
        notes: what is not exact, or missing at the ends.
    """

    bars: pl.DataFrame
    label: str
    sample: bool
    notes: tuple[str, ...] = ()


def load_bars(config: Config) -> LoadedBars:
    """Fetch the bars of a run from its source.

    Raises:
        DataError: the source lacks them; the message says how to get them.
    """
    market = config.market
    start, end = time_us(market.start) - duration_us(market.warmup), time_us(market.end)
    notes: tuple[str, ...] = ()
    if config.multi_symbol:
        from agent_bt.data.funding import load_panel_funding

        panel = open_panel(config)
        label, notes, bars = panel.label, panel.notes, panel.fetch_panel(market.interval, start, end)
        if _funded(config) and not bars.is_empty():
            bars = load_panel_funding(panel, bars)
        notes = (*notes, *_shortfalls(config, bars, start, end))
    else:
        from agent_bt.data.funding import load_funding

        source = open_source(config)
        label, bars = source.label, source.fetch_ohlcv(market.interval, start, end)
        if _funded(config):
            bars = load_funding(source, bars)
    if not _funded(config) and "funding_rate" in bars.columns:
        bars = bars.drop("funding_rate")
    if bars.is_empty():
        raise DataError(f"{label} has no bars from {iso(start)} to {market.end}; choose another range")
    return LoadedBars(bars=bars, label=label, sample=market.source == "sample", notes=notes)


def _shortfalls(config: Config, bars: pl.DataFrame, start: int, end: int) -> Sequence[str]:
    """Describe where the bars of several symbols do not cover `start` to `end` (UTC us), for which they were loaded."""
    if bars.is_empty():
        return ()
    market, pool, bar = config.market, config.pool, interval_us(config.market.interval)
    first, last = (int(bars[name].cast(pl.Int64).sort()[at]) for name, at in (("open_time", 0), ("close_time", -1)))
    notes = []
    if first - start >= bar:
        notes.append(
            f"No bars before {iso(first)}; the run needs bars from {iso(start)} (market.start minus market.warmup)"
        )
    if end - last >= bar:
        notes.append(f"No bars after {iso(last)}: the run ends there, not at market.end ({iso(end)})")
    begin = max(time_us(market.start), first)
    if pool.enabled and begin - first < duration_us(pool.lookback):
        hours = (begin - first) / HOUR
        notes.append(
            f"The first selection of the pool has {hours:g} hours of bars before the run, less than its lookback of "
            f"{pool.lookback}; market.warmup reads more"
        )
    return notes


def _funded(config: Config) -> bool:
    return config.market.kind == "um" and config.execution.funding


def open_source(config: Config) -> DataSource:
    """Open the data source of one symbol that `market.source` names."""
    from agent_bt.data.sample import SampleSource
    from agent_bt.data.sources import ParquetSource, StoreSource
    from agent_bt.data.store import root_of

    market = config.market
    if market.source == "sample":
        return SampleSource(market.symbol, config.seed, gaps=market.gaps)
    if market.source == "store":
        root = root_of(config.data.root, config.data.exchange)
        return StoreSource(root, market.symbol, kind=market.kind, gaps=market.gaps)
    return ParquetSource(Path(market.source), market.symbol, gaps=market.gaps)


SAMPLE_SYMBOLS = tuple(f"SAMPLE{number:02}USDT" for number in range(1, 11))
"""Symbols of a run over several symbols of the sample market that names none."""


def open_panel(config: Config) -> Panel:
    """Open the data source of several symbols that `market.source` names.

    Raises:
        DataError: it is empty, or lacks symbols of the config.
    """
    from agent_bt.data.panel import PanelSource, StorePanel
    from agent_bt.data.sample_panel import SamplePanel
    from agent_bt.data.store import root_of, series_in

    market = config.market
    if market.source == "sample":
        return SamplePanel(market.symbols or SAMPLE_SYMBOLS, config.seed, gaps=market.gaps)
    if market.source == "store":
        root = root_of(config.data.root, config.data.exchange)
        symbols = market.symbols or sorted({store.symbol for store in series_in(root) if store.kind == market.kind})
        if not symbols:
            raise DataError(
                f"{root}: no symbol of kind {market.kind} is stored; fetch some with `agent-bt data backfill`"
            )
        return StorePanel(root, symbols, market.kind, gaps=market.gaps)
    return PanelSource(Path(market.source), market.symbols, gaps=market.gaps)
