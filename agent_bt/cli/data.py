"""`agent-bt data`: fetch, look at, check and export the market data of the store."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent_bt.cli import common

if TYPE_CHECKING:
    from agent_bt.config import Config
    from agent_bt.data.backfill import Progress
    from agent_bt.data.spans import Span

app = typer.Typer(
    name="data",
    help="Fetch, look at, check and export market data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
    str | None, typer.Option("--rest-url", help="REST endpoint (default: data.rest_url).", show_default=False)
]
RestOption = Annotated[bool, typer.Option("--rest/--no-rest", help="Ask REST for minutes that no archive has.")]
SymbolOption = Annotated[
    str | None, typer.Option("--symbol", help="Such as BTCUSDT (default: market.symbol).", show_default=False)
]
KindOption = Annotated[Literal["spot"], typer.Option("--kind", help="Market.")]
StartOption = Annotated[str | None, typer.Option("--start", help="First instant, UTC: 2024-07-01.", show_default=False)]
EndOption = Annotated[str | None, typer.Option("--end", help="Last instant, exclusive, UTC.", show_default=False)]
ProgressOption = Annotated[
    Literal["auto", "plain", "none"], typer.Option(help="Progress on stderr: live, plain lines, or none.")
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=16, help="Downloads at once.")]


@app.command()
def backfill(
    symbol: SymbolOption = None,
    interval: Annotated[str, typer.Option(help="1m; all other intervals are aggregated from it.")] = "1m",
    months: Annotated[
        int | None, typer.Option(min=1, max=240, help="The last N complete months.", show_default=False)
    ] = None,
    start: StartOption = None,
    end: EndOption = None,
    keep_csv: Annotated[bool, typer.Option("--keep-csv", help="Also keep the CSV files, in raw_csv/.")] = False,
    jobs: JobsOption = 4,
    rest: RestOption = True,
    kind: KindOption = "spot",
    config: ConfigOption = None,
    root: RootOption = None,
    archive_url: ArchiveOption = None,
    rest_url: RestUrlOption = None,
    progress: ProgressOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Fetch what is missing: monthly files, then daily ones, then REST."""
    from agent_bt.core.errors import DataError, UsageError
    from agent_bt.data import backfill as filling
    from agent_bt.data.archive import Archive
    from agent_bt.data.rest import Rest
    from agent_bt.data.store import Store
    from agent_bt.data.transport import Transport

    if interval != "1m":
        raise UsageError(f"--interval {interval}: only 1m is fetched; runs aggregate other intervals from it")
    settings = _settings(config, root, archive_url, rest_url)
    now = time.time_ns() // 1000
    store = Store(settings.data.root, _symbol(symbol, settings), kind)
    transport = Transport()
    try:
        with _Bar(progress, f"{store.symbol} 1m") as shown:
            result = filling.backfill(
                store,
                [_asked_span(months, start, end, now)],
                Archive(settings.data.archive_url, transport),
                Rest(settings.data.rest_url, transport) if rest else None,
                now=now,
                jobs=jobs,
                keep_csv=keep_csv,
                progress=shown,
            )
    finally:
        transport.close()
    for text in result.warnings:
        common.tell(f"warning: {text}")
    if as_json:
        common.print_json({"kind": kind, "symbol": store.symbol, "folder": str(store.folder), **result.to_dict()})
    else:
        typer.echo(f"{result} ({store.folder})")
    if result.failures:
        raise DataError(
            "part of it could not be had; what has arrived is kept, and the same command goes on from there:\n"
            + "\n".join(result.failures)
        )


@app.command("list")
def list_series(
    config: ConfigOption = None,
    root: RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """List what the store holds."""
    from agent_bt.data.store import series_in

    settings = _settings(config, root)
    rows: list[dict[str, Any]] = []
    for store in series_in(settings.data.root):
        known = store.offsets()
        rows.append(
            {
                "kind": store.kind,
                "symbol": store.symbol,
                "interval": "1m",
                "covered": [_iso(span) for span in known.covered],
                "months": len(known.months),
                "bars": sum(file.rows for file in known.months.values()),
                "bytes": sum(store.path(month).stat().st_size for month in store.months_on_disk()),
            }
        )
    if as_json:
        common.print_json({"root": settings.data.root, "series": rows})
        return
    if not rows:
        typer.echo(f"{settings.data.root}: nothing yet; fetch data with `agent-bt data backfill --months 2`")
        return
    table = _table("market", "symbol", "covered", "bars", "MiB")
    for row in rows:
        spans = "\n".join(f"{first} to {last}" for first, last in row["covered"])
        table.add_row(row["kind"], row["symbol"], spans, f"{row['bars']:,}", f"{row['bytes'] / 2**20:.1f}")
    common.show(table)


@app.command()
def info(
    symbol: SymbolOption = None,
    kind: KindOption = "spot",
    config: ConfigOption = None,
    root: RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show one symbol: months, sources, outages, gaps."""
    from agent_bt.core.errors import MissingData
    from agent_bt.data.spans import month_span
    from agent_bt.data.store import Store
    from agent_bt.data.verify import unconfirmed

    settings = _settings(config, root)
    store = Store(settings.data.root, _symbol(symbol, settings), kind)
    known = store.offsets()
    if not known.covered:
        raise MissingData(
            f"{store.folder}: the store is empty; fetch data with\n"
            f"  agent-bt data backfill --symbol {store.symbol} --interval 1m --months 2"
        )
    rows: list[dict[str, Any]] = []
    for month, file in sorted(known.months.items()):
        files = [path for path in known.sources if f"-{month}" in path]
        whole = month_span(month).minutes
        rows.append({"month": month, "bars": file.rows, "of": whole, "sources": files, "sha256": file.sha256})
    spans: dict[str, list[list[str]]] = {
        name: [_iso(span) for span in values]
        for name, values in (
            ("covered", known.covered),
            ("outages", known.outages),
            ("unconfirmed_gaps", unconfirmed(store, known)),
        )
    }
    if as_json:
        common.print_json({"kind": kind, "symbol": store.symbol, "folder": str(store.folder), **spans, "months": rows})
        return
    table = _table("month", "bars", "of", "archive files")
    for row in rows:
        table.add_row(row["month"], f"{row['bars']:,}", f"{row['of']:,}", str(len(row["sources"])) or "REST only")
    common.show(table)
    for name, values in spans.items():
        for first, last in values:
            typer.echo(f"{name.replace('_', ' ')}: {first} to {last}")


@app.command()
def verify(
    symbol: SymbolOption = None,
    start: StartOption = None,
    end: EndOption = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Ask the archive whether files were replaced since.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch again what is damaged or missing.")] = False,
    rest: RestOption = True,
    kind: KindOption = "spot",
    config: ConfigOption = None,
    root: RootOption = None,
    archive_url: ArchiveOption = None,
    rest_url: RestUrlOption = None,
    progress: ProgressOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Check the store: files, gaps, order, prices, times, units; or repair it."""
    from dataclasses import asdict

    from agent_bt.core.clock import DAY
    from agent_bt.core.errors import DataError, MissingData
    from agent_bt.data import verify as checking
    from agent_bt.data.archive import Archive
    from agent_bt.data.rest import Rest
    from agent_bt.data.store import Store
    from agent_bt.data.transport import Transport

    settings = _settings(config, root, archive_url, rest_url)
    store = Store(settings.data.root, _symbol(symbol, settings), kind)
    now = time.time_ns() // 1000
    span = _given_span(start, end, now // DAY * DAY) if start else None
    if not (store.offsets().covered or store.months_on_disk() or span):
        raise MissingData(f"{store.folder}: the store is empty; fetch data with `agent-bt data backfill --months 2`")
    transport = Transport()
    archive = Archive(settings.data.archive_url, transport)
    repaired = None
    try:
        findings = checking.verify(store, span=span, archive=archive if remote else None)
        if repair:
            asked = Rest(settings.data.rest_url, transport) if rest else None
            with _Bar(progress, f"{store.symbol} repair") as shown:
                repaired = checking.repair(store, findings, archive, asked, now=now, progress=shown)
            findings = checking.verify(store, span=span, archive=archive if remote else None)
    finally:
        transport.close()
    errors = [finding for finding in findings if finding.level == "error"]
    if as_json:
        rows = [asdict(finding) | {"span": finding.span and _iso(finding.span)} for finding in findings]
        mended = None if repaired is None else repaired.to_dict()
        common.print_json({"ok": not errors, "findings": rows, "repaired": mended})
    else:
        colours = {"error": typer.colors.RED, "warning": typer.colors.YELLOW}
        for finding in findings:
            typer.secho(f"{finding.level:8}", fg=colours.get(finding.level), nl=False)
            typer.echo(f"{finding.month}  {finding.check:10}  {finding.message}")
        if repaired is not None:
            typer.echo(f"repaired: {repaired}")
        if not findings:
            typer.echo(f"{store.folder}: nothing found")
    for text in repaired.failures if repaired else ():
        common.tell(f"warning: {text}")
    if errors:
        advice = "some of it cannot be had now" if repair else "run it again with --repair"
        raise DataError(f"{len(errors)} errors in {store.folder}; {advice}")


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV file.", show_default=False)],
    symbol: SymbolOption = None,
    interval: Annotated[str, typer.Option(help="1m, 5m, 15m, 1h, 4h or 1d.")] = "1m",
    start: StartOption = None,
    end: EndOption = None,
    gaps: Annotated[
        Literal["forward_fill", "drop"], typer.Option(help="Missing bars: fill flat (flagged), or leave out.")
    ] = "drop",
    kind: KindOption = "spot",
    config: ConfigOption = None,
    root: RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Write bars as CSV; without --start, all of the last stretch that is covered."""
    import io

    from agent_bt.core.errors import UsageError
    from agent_bt.data.files import write_whole
    from agent_bt.data.sources import StoreSource
    from agent_bt.data.store import Store

    settings = _settings(config, root)
    store = Store(settings.data.root, _symbol(symbol, settings), kind)
    covered = store.offsets().covered
    last = covered[-1].end if covered else time.time_ns() // 60_000_000_000 * 60_000_000
    if start is None and end is not None:
        raise UsageError("--end needs --start")
    first = start or (_iso(covered[-1])[0] if covered else "2024-07-01")
    span = _given_span(first, end, last)
    try:
        frame = StoreSource(store.root, store.symbol, kind, gaps).fetch_ohlcv(interval, span.start, span.end)
    except ValueError as error:
        raise UsageError(f"--interval {error}") from None
    text = io.BytesIO()
    frame.write_csv(text, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    write_whole(output, text.getvalue())
    if as_json:
        common.print_json({"output": str(output), "bars": len(frame), "start": _iso(span)[0], "end": _iso(span)[1]})
    else:
        typer.echo(f"{output}: {len(frame):,} bars of {interval}, {span}")


def _iso(span: Span) -> list[str]:
    from agent_bt.core.clock import iso

    return [iso(span.start), iso(span.end)]


def _settings(
    config: Path | None, root: str | None, archive_url: str | None = None, rest_url: str | None = None
) -> Config:
    import json

    from agent_bt.settings import load_config

    given = {"data.root": root, "data.archive_url": archive_url, "data.rest_url": rest_url}
    # JSON is YAML: quoting keeps an address or a folder named 1e5 a text.
    return load_config(config, [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None])


def _symbol(symbol: str | None, settings: Config) -> str:
    from agent_bt.core.errors import UsageError

    if symbol is None:
        return settings.market.symbol
    if not (symbol.isalnum() and symbol.isascii()):
        raise UsageError(f"--symbol {symbol!r} is no symbol; write it as the exchange does: BTCUSDT")
    return symbol.upper()


def _asked_span(months: int | None, start: str | None, end: str | None, now: int) -> Span:
    from agent_bt.core.clock import DAY
    from agent_bt.core.errors import UsageError
    from agent_bt.data.spans import last_months

    if months is not None and (start or end):
        raise UsageError("give --months or --start/--end, not both")
    if months is not None:
        return last_months(months, now)
    if start is None:
        raise UsageError("say what to fetch: --months 2, or --start 2024-07-01 --end 2024-10-01")
    return _given_span(start, end, now // DAY * DAY)


def _given_span(start: str, end: str | None, default_end: int) -> Span:
    from agent_bt.core.clock import MINUTE, iso, time_us
    from agent_bt.core.errors import UsageError
    from agent_bt.data.spans import Span

    try:
        span = Span(time_us(start), time_us(end) if end else default_end)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if span.start % MINUTE or span.end % MINUTE:
        raise UsageError("--start and --end must be whole minutes")
    if span.start >= span.end:
        raise UsageError(f"--start ({iso(span.start)}) must be before --end ({iso(span.end)})")
    return span


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("bars", "of", "MiB", "archive files") else "left")
    return table


class _Bar:
    """Progress of a backfill on stderr: a live bar on a terminal, a line every few seconds elsewhere, or nothing."""

    def __init__(self, mode: Literal["auto", "plain", "none"], label: str) -> None:
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
        self._rich.update(self._task, total=total)
        if self._plain and total:
            common.tell(f"{self._label}: {total:,} minutes missing")

    def advance(self, count: int) -> None:
        self._rich.advance(self._task, count)
        task = self._rich.tasks[0]
        if self._plain and count and (task.finished or time.monotonic() - self._shown > 2.0):
            self._shown = time.monotonic()
            common.tell(f"{self._label}: {task.completed:,.0f} of {task.total or 0:,.0f} minutes")
