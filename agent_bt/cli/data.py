"""`agent-bt data`: fetch, list, verify and export the market data of the store."""

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
    format_span,
    open_archive,
    open_rest,
    open_settlements,
    open_store,
    parse_span,
    read_settings,
    requested_span,
)
from agent_bt.cli.data_show import info, list_series

if TYPE_CHECKING:
    from agent_bt.data.backfill import BackfillResult

app = typer.Typer(
    name="data",
    help="Fetch, list, verify and export market data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def backfill(
    symbol: SymbolOption = None,
    interval: Annotated[str, typer.Option(help="Only 1m; other intervals are aggregated from it.")] = "1m",
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
    """Fetch missing data: monthly archives, then daily ones, then REST; for perpetuals also funding."""
    from agent_bt.core.errors import DataError, UsageError
    from agent_bt.data import backfill as filling
    from agent_bt.data.funding_backfill import backfill_funding
    from agent_bt.data.transport import Transport

    if interval != "1m":
        raise UsageError(f"--interval {interval}: only 1m can be fetched; runs aggregate other intervals from it")
    settings = read_settings(config, root, archive_url, rest_url)
    now = time.time_ns() // 1000
    store = open_store(settings, symbol, kind)
    settlements = open_settlements(store)
    spans = [requested_span(months, start, end, now)]
    transport = Transport()
    try:
        archive = open_archive(settings, transport)
        endpoint = open_rest(settings, store.kind, transport) if rest else None
        with Bar(progress, f"{store.symbol} 1m") as shown:
            results = [
                filling.backfill(store, spans, archive, endpoint, now=now, jobs=jobs, keep_csv=keep_csv, progress=shown)
            ]
        if settlements:
            results.append(backfill_funding(settlements, spans, archive, endpoint, now=now, jobs=jobs))
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
            "some data could not be fetched; fetched data is kept, and the same command continues from there:\n"
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
        bool, typer.Option("--remote", help="Check whether the archive has replaced files since.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch damaged or missing data again.")] = False,
    rest: RestOption = True,
    kind: KindOption = None,
    config: ConfigOption = None,
    root: RootOption = None,
    archive_url: ArchiveOption = None,
    rest_url: RestUrlOption = None,
    progress: ProgressOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Verify the store: files, gaps, order, prices, times, units; or repair it."""
    from dataclasses import asdict

    from agent_bt.core.clock import DAY
    from agent_bt.core.errors import DataError, MissingData, UsageError
    from agent_bt.data import verify as checking
    from agent_bt.data.transport import Transport

    settings = read_settings(config, root, archive_url, rest_url)
    store = open_store(settings, symbol, kind)
    settlements = open_settlements(store)
    now = time.time_ns() // 1000
    if start is None and end is not None:
        raise UsageError("--end needs --start")
    span = None if start is None else parse_span(start, end, now // DAY * DAY)
    if not (store.offsets().covered or store.months_on_disk() or span):
        raise MissingData(f"{store.folder}: the store is empty; fetch data with\n  {store.command()}")
    transport = Transport()
    archive = open_archive(settings, transport)
    findings: list[checking.Finding] = []
    repaired: dict[str, BackfillResult | None] = {}
    try:
        endpoint = open_rest(settings, store.kind, transport) if rest else None
        for series in filter(None, (store, settlements)):
            found = checking.verify(series, span=span, archive=archive if remote else None)
            if repair:
                with Bar(progress, f"{store.symbol} repair") as shown:
                    fixed = checking.repair(series, found, archive, endpoint, now=now, progress=shown)
                repaired["repaired" if series is store else "repaired_funding"] = fixed
                found = checking.verify(series, span=span, archive=archive if remote else None)
            findings += found
    finally:
        transport.close()
    errors = [finding for finding in findings if finding.level == "error"]
    if as_json:
        rows = [asdict(finding) | {"span": finding.span and format_span(finding.span)} for finding in findings]
        repaired_rows = {name: result and result.to_dict() for name, result in repaired.items()}
        common.print_json({"ok": not errors, "findings": rows, "repaired": None, **repaired_rows})
    else:
        colours = {"error": typer.colors.RED, "warning": typer.colors.YELLOW}
        for finding in findings:
            typer.secho(f"{finding.level:8}", fg=colours.get(finding.level), nl=False)
            typer.echo(f"{finding.month}  {finding.check:10}  {finding.message}")
        for result in filter(None, repaired.values()):
            typer.echo(f"repaired: {result}")
        if not findings:
            typer.echo(f"{store.folder}: no problems found")
    for text in [text for result in filter(None, repaired.values()) for text in result.failures]:
        common.print_message(f"warning: {text}")
    if errors:
        advice = "some of them cannot be repaired now" if repair else "run it again with --repair"
        raise DataError(f"{len(errors)} errors in {store.folder}; {advice}")


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV file to write.", show_default=False)],
    symbol: SymbolOption = None,
    interval: Annotated[str, typer.Option(help="1m, 5m, 15m, 1h, 4h or 1d.")] = "1m",
    start: StartOption = None,
    end: EndOption = None,
    gaps: Annotated[
        Literal["forward_fill", "drop"], typer.Option(help="Missing bars: forward-fill (flagged), or leave out.")
    ] = "drop",
    kind: KindOption = None,
    config: ConfigOption = None,
    root: RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Write bars as CSV; without --start, the whole last covered period."""
    import io

    from agent_bt.core.errors import UsageError
    from agent_bt.data.files import write_whole
    from agent_bt.data.sources import StoreSource

    store = open_store(read_settings(config, root), symbol, kind)
    covered = store.offsets().covered
    last = covered[-1].end if covered else time.time_ns() // 60_000_000_000 * 60_000_000
    if start is None and end is not None:
        raise UsageError("--end needs --start")
    if start is None:
        start = format_span(covered[-1])[0] if covered else "2024-07-01"
    span = parse_span(start, end, last)
    try:
        frame = StoreSource(store.root, store.symbol, store.kind, gaps).fetch_ohlcv(interval, span.start, span.end)
    except ValueError as error:
        raise UsageError(f"--interval {error}") from None
    text = io.BytesIO()
    frame.write_csv(text, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    write_whole(output, text.getvalue())
    if as_json:
        common.print_json(
            {"output": str(output), "bars": len(frame), "start": format_span(span)[0], "end": format_span(span)[1]}
        )
    else:
        typer.echo(f"{output}: {len(frame):,} bars of {interval}, {span}")
