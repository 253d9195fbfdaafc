"""Common to the `agent-bt data` commands: options, their interpretation, and progress."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent_bt.cli import common

if TYPE_CHECKING:
    from agent_bt.config.model import Config
    from agent_bt.data.archive import Archive
    from agent_bt.data.backfill import Progress
    from agent_bt.data.rest import Rest
    from agent_bt.data.spans import Span
    from agent_bt.data.store import Store
    from agent_bt.data.transport import Transport

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Take defaults from a config file.", show_default=False)
]
RootOption = Annotated[
    str | None, typer.Option("--root", help="Folder of the store (default: data.root).", show_default=False)
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive-url", help="Archive, http(s):// or file:// (default: data.archive_url).", show_default=False
    ),
]
RestUrlOption = Annotated[
    str | None,
    typer.Option("--rest-url", help="REST endpoint (default: data.rest_url or rest_url_um).", show_default=False),
]
RestOption = Annotated[bool, typer.Option("--rest/--no-rest", help="Use REST for minutes that no archive has.")]
SymbolOption = Annotated[
    str | None, typer.Option("--symbol", help="Such as BTCUSDT (default: market.symbol).", show_default=False)
]
KindOption = Annotated[
    Literal["spot", "um"] | None,
    typer.Option("--kind", help="spot, or um: USD-M perpetuals (default: market.kind).", show_default=False),
]
StartOption = Annotated[str | None, typer.Option("--start", help="Start, UTC, such as 2024-07-01.", show_default=False)]
EndOption = Annotated[str | None, typer.Option("--end", help="End, exclusive, UTC.", show_default=False)]
ProgressOption = Annotated[
    Literal["auto", "plain", "none"], typer.Option(help="Progress on stderr: live on a terminal, plain lines, or none.")
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=16, help="Parallel downloads.")]


def read_settings(
    config: Path | None, root: str | None, archive_url: str | None = None, rest_url: str | None = None
) -> Config:
    """Load the config, with the options as overrides.

    Args:
        config: a config file; None: all defaults.
        root: folder of the store.
        archive_url: of the archive.
        rest_url: of the REST endpoint, for spot and perpetuals.
    """
    import json

    from agent_bt.config.load import load_config

    given = {
        "data.root": root,
        "data.archive_url": archive_url,
        "data.rest_url": rest_url,
        "data.rest_url_um": rest_url,
    }
    # JSON is YAML: quoting keeps a folder named 1e5 a string.
    return load_config(config, [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None])


def open_store(settings: Config, symbol: str | None, kind: str | None) -> Store:
    """Open the store of minute bars of one symbol.

    Args:
        settings: the config, for what is not given.
        symbol: as the exchange writes it; None: `market.symbol`.
        kind: `spot` or `um`; None: `market.kind`.

    Raises:
        UsageError: it is not a symbol.
    """
    from agent_bt.core.errors import UsageError
    from agent_bt.data.store import Store

    symbol = symbol or settings.market.symbol
    if not (symbol.isalnum() and symbol.isascii()):
        raise UsageError(f"--symbol {symbol!r} is not a symbol; write it as the exchange does: BTCUSDT")
    return Store(store_root(settings), symbol.upper(), kind or settings.market.kind)


def store_root(settings: Config) -> Path:
    """Return the folder of the store: `data.root`, with a folder of its own for every exchange but Binance."""
    from agent_bt.data.store import root_of

    return root_of(settings.data.root, settings.data.exchange)


def open_settlements(store: Store) -> Store | None:
    """Open the funding settlements of a perpetual; None for a spot market."""
    from agent_bt.data.store import SETTLEMENTS, Store

    return Store(store.root, store.symbol, store.kind, SETTLEMENTS) if store.kind == "um" else None


def open_rest(settings: Config, kind: str, transport: Transport) -> Rest:
    """Open the REST endpoint of a market.

    Args:
        settings: the config.
        kind: `spot` or `um`.
        transport: sends the requests.
    """
    from agent_bt.data.exchange import exchange_of
    from agent_bt.data.rest import Rest

    exchange = exchange_of(settings.data.exchange)
    key = "rest_url_um" if kind == "um" else "rest_url"
    url = getattr(settings.data, key)
    if key not in settings.data.model_fields_set:
        url = exchange.rest_urls.get(kind, url)
    return Rest(url, transport, kind, exchange)


def open_archive(settings: Config, transport: Transport) -> Archive:
    """Open the archive that `data.archive_url` names, by default the one of the exchange.

    Args:
        settings: the config.
        transport: sends the requests.
    """
    from agent_bt.data.archive import Archive
    from agent_bt.data.exchange import exchange_of

    exchange = exchange_of(settings.data.exchange)
    own = "archive_url" in settings.data.model_fields_set
    return Archive(settings.data.archive_url if own else exchange.archive_url, transport, exchange)


def format_span(span: Span) -> list[str]:
    """Format start and end of a span as ISO 8601."""
    from agent_bt.core.clock import iso

    return [iso(span.start), iso(span.end)]


def requested_span(months: int | None, start: str | None, end: str | None, now: int) -> Span:
    """Return the span that `--months`, or `--start` and `--end`, give.

    Args:
        months: the last complete months.
        start: ISO 8601, UTC.
        end: ISO 8601, UTC, exclusive; None: the start of today.
        now: the current time, UTC us.

    Raises:
        UsageError: both or neither are given, or they are invalid.
    """
    from agent_bt.core.clock import DAY
    from agent_bt.core.errors import UsageError
    from agent_bt.data.spans import last_months

    if months is not None and (start or end):
        raise UsageError("give --months or --start/--end, not both")
    if months is not None:
        return last_months(months, now)
    if start is None:
        raise UsageError("give a period to fetch: --months 2, or --start 2024-07-01 --end 2024-10-01")
    return parse_span(start, end, now // DAY * DAY)


def parse_span(start: str, end: str | None, default_end: int) -> Span:
    """Return the span that `--start` and `--end` give.

    Args:
        start: ISO 8601, UTC.
        end: ISO 8601, UTC, exclusive.
        default_end: used without `end`, UTC us.

    Raises:
        UsageError: they are not times, or not a span of whole minutes.
    """
    from agent_bt.core.clock import MINUTE, iso, time_us
    from agent_bt.core.errors import UsageError
    from agent_bt.data.spans import Span

    try:
        span = Span(time_us(start), default_end if end is None else time_us(end))
    except ValueError as error:
        raise UsageError(str(error)) from None
    if span.start % MINUTE or span.end % MINUTE:
        raise UsageError("--start and --end must be whole minutes")
    if span.start >= span.end:
        raise UsageError(f"--start ({iso(span.start)}) must be before --end ({iso(span.end)})")
    return span


class Bar:
    """The progress of a backfill on stderr: a live bar on a terminal, a line every few seconds elsewhere, or none."""

    def __init__(self, mode: Literal["auto", "plain", "none"], label: str) -> None:
        """Prepare the display.

        Args:
            mode: `auto` is live on a terminal, plain lines elsewhere; `plain`; `none`.
            label: name of the work.
        """
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._live = mode == "auto" and sys.stderr.isatty()
        self._plain = mode != "none" and not self._live
        self._label = label
        self._shown = 0.0
        self._rich = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} minutes"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._live,
        )
        self._task = self._rich.add_task(label, total=0)

    def __enter__(self) -> Progress:
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def begin(self, total: int) -> None:
        """Start with `total` missing minutes."""
        self._rich.update(self._task, total=total)
        if self._plain and total:
            common.print_message(f"{self._label}: {total:,} minutes missing")

    def advance(self, count: int) -> None:
        """Add `count` fetched minutes."""
        self._rich.advance(self._task, count)
        task = self._rich.tasks[0]
        if self._plain and count and (task.finished or time.monotonic() - self._shown > 2.0):
            self._shown = time.monotonic()
            common.print_message(f"{self._label}: {task.completed:,.0f} of {task.total or 0:,.0f} minutes")
