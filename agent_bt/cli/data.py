"""`agent-bt data`: fetch, look at, check and export the market data of the store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent_bt.cli import common
from agent_bt.cli.data_common import (
    ArchiveOption,
    Bar,
    ConfigOption,
    EndOption,
    JobsOption,
    KindOption,
    ProgressOption,
    RestOption,
    RestUrlOption,
    RootOption,
    StartOption,
    SymbolOption,
    asked_span,
    edges,
    given_span,
    open_rest,
    open_store,
    read_settings,
    settlements_of,
)
from agent_bt.cli.data_show import info, list_series

if TYPE_CHECKING:
    from agent_bt.data.backfill import BackfillResult

app = typer.Typer(
    name="data",
    help="Fetch, look at, check and export market data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    kind: KindOption = None,
    config: ConfigOption = None,
    root: RootOption = None,
    archive_url: ArchiveOption = None,
    rest_url: RestUrlOption = None,
    progress: ProgressOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Fetch what is missing: monthly files, then daily ones, then REST; of perpetuals the funding too."""
    from agent_bt.core.errors import DataError, UsageError
    from agent_bt.data import backfill as filling
    from agent_bt.data.archive import Archive
    from agent_bt.data.funding_backfill import backfill_funding
    from agent_bt.data.transport import Transport

    if interval != "1m":
        raise UsageError(f"--interval {interval}: only 1m is fetched; runs aggregate other intervals from it")
    settings = read_settings(config, root, archive_url, rest_url)
    now = time.time_ns() // 1000
    store = open_store(settings, symbol, kind)
    settlements = settlements_of(store)
    spans = [asked_span(months, start, end, now)]
    transport = Transport()
    try:
        archive = Archive(settings.data.archive_url, transport)
        asked = open_rest(settings, store.kind, transport) if rest else None
        with Bar(progress, f"{store.symbol} 1m") as shown:
            results = [
                filling.backfill(store, spans, archive, asked, now=now, jobs=jobs, keep_csv=keep_csv, progress=shown)
            ]
        if settlements:
            results.append(backfill_funding(settlements, spans, archive, asked, now=now, jobs=jobs))
    finally:
        transport.close()
    for text in [text for result in results for text in result.warnings]:
        common.print_message(f"warning: {text}")
    if as_json:
        head = {"kind": store.kind, "symbol": store.symbol, "folder": str(store.folder)}
        funding = {"funding": results[1].to_dict()} if settlements else {}
        common.print_json({**head, **results[0].to_dict(), **funding})
    else:
        for result in results:
            typer.echo(f"{result} ({store.folder})")
    if failures := [text for result in results for text in result.failures]:
        raise DataError(
            "part of it could not be had; what has arrived is kept, and the same command goes on from there:\n"
            + "\n".join(failures)
        )


app.command("list")(list_series)
app.command()(info)


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
    kind: KindOption = None,
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
    from agent_bt.data.transport import Transport

    settings = read_settings(config, root, archive_url, rest_url)
    store = open_store(settings, symbol, kind)
    settlements = settlements_of(store)
    now = time.time_ns() // 1000
    span = given_span(start, end, now // DAY * DAY) if start else None
    if not (store.offsets().covered or store.months_on_disk() or span):
        raise MissingData(f"{store.folder}: the store is empty; fetch data with\n  {store.command()}")
    transport = Transport()
    archive = Archive(settings.data.archive_url, transport)
    findings: list[checking.Finding] = []
    repaired: dict[str, BackfillResult | None] = {}
    try:
        asked = open_rest(settings, store.kind, transport) if rest else None
        for series in filter(None, (store, settlements)):
            found = checking.verify(series, span=span, archive=archive if remote else None)
            if repair:
                with Bar(progress, f"{store.symbol} repair") as shown:
                    mended = checking.repair(series, found, archive, asked, now=now, progress=shown)
                repaired["repaired" if series is store else "repaired_funding"] = mended
                found = checking.verify(series, span=span, archive=archive if remote else None)
            findings += found
    finally:
        transport.close()
    errors = [finding for finding in findings if finding.level == "error"]
    if as_json:
        rows = [asdict(finding) | {"span": finding.span and edges(finding.span)} for finding in findings]
        mended_rows = {name: result and result.to_dict() for name, result in repaired.items()}
        common.print_json({"ok": not errors, "findings": rows, "repaired": None, **mended_rows})
    else:
        colours = {"error": typer.colors.RED, "warning": typer.colors.YELLOW}
        for finding in findings:
            typer.secho(f"{finding.level:8}", fg=colours.get(finding.level), nl=False)
            typer.echo(f"{finding.month}  {finding.check:10}  {finding.message}")
        for result in filter(None, repaired.values()):
            typer.echo(f"repaired: {result}")
        if not findings:
            typer.echo(f"{store.folder}: nothing found")
    for text in [text for result in filter(None, repaired.values()) for text in result.failures]:
        common.print_message(f"warning: {text}")
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
    kind: KindOption = None,
    config: ConfigOption = None,
    root: RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Write bars as CSV; without --start, all of the last stretch that is covered."""
    import io

    from agent_bt.core.errors import UsageError
    from agent_bt.data.files import write_whole
    from agent_bt.data.sources import StoreSource

    store = open_store(read_settings(config, root), symbol, kind)
    covered = store.offsets().covered
    last = covered[-1].end if covered else time.time_ns() // 60_000_000_000 * 60_000_000
    if start is None and end is not None:
        raise UsageError("--end needs --start")
    first = start or (edges(covered[-1])[0] if covered else "2024-07-01")
    span = given_span(first, end, last)
    try:
        frame = StoreSource(store.root, store.symbol, store.kind, gaps).fetch_ohlcv(interval, span.start, span.end)
    except ValueError as error:
        raise UsageError(f"--interval {error}") from None
    text = io.BytesIO()
    frame.write_csv(text, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    write_whole(output, text.getvalue())
    if as_json:
        common.print_json({"output": str(output), "bars": len(frame), "start": edges(span)[0], "end": edges(span)[1]})
    else:
        typer.echo(f"{output}: {len(frame):,} bars of {interval}, {span}")
