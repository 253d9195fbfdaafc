"""`agent-bt data list` and `info`: the contents of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from agent_bt.cli import common
from agent_bt.cli.data_common import (
    ConfigOption,
    KindOption,
    RootOption,
    SymbolOption,
    format_span,
    open_settlements,
    open_store,
    read_settings,
    store_root,
)

if TYPE_CHECKING:
    from agent_bt.data.store import Store


def list_series(
    config: ConfigOption = None,
    root: RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """List the contents of the store."""
    from agent_bt.data.store import series_in

    settings = read_settings(config, root)
    rows: list[dict[str, Any]] = []
    for store in series_in(store_root(settings)):
        known = store.offsets()
        rows.append(
            {
                "kind": store.kind,
                "symbol": store.symbol,
                "interval": "1m",
                "covered": [format_span(span) for span in known.covered],
                "months": len(known.months),
                "bars": sum(file.rows for file in known.months.values()),
                "settlements": _settlements(store),
                "bytes": sum(store.path(month).stat().st_size for month in store.months_on_disk()),
            }
        )
    if as_json:
        common.print_json({"root": settings.data.root, "series": rows})
        return
    if not rows:
        typer.echo(f"{settings.data.root}: the store is empty; fetch data with `agent-bt data backfill --months 2`")
        return
    table = _table("market", "symbol", "covered", "bars", "settlements", "MiB")
    for row in rows:
        spans = "\n".join(f"{first} to {last}" for first, last in row["covered"])
        settled = "" if row["settlements"] is None else f"{row['settlements']:,}"
        size = f"{row['bytes'] / 2**20:.1f}"
        table.add_row(row["kind"], row["symbol"], spans, f"{row['bars']:,}", settled, size)
    common.show(table)


def info(
    symbol: SymbolOption = None,
    kind: KindOption = None,
    config: ConfigOption = None,
    root: RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show the data of one symbol: months, sources, outages, gaps."""
    from agent_bt.core.errors import MissingData
    from agent_bt.data.spans import month_span
    from agent_bt.data.verify import unconfirmed

    settings = read_settings(config, root)
    store = open_store(settings, symbol, kind)
    known = store.offsets()
    if not known.covered:
        raise MissingData(f"{store.folder}: the store is empty; fetch data with\n  {store.command()}")
    rows: list[dict[str, Any]] = []
    for month, file in sorted(known.months.items()):
        files = [path for path in known.sources if f"-{month}" in path]
        whole = month_span(month).minutes
        rows.append({"month": month, "bars": file.rows, "of": whole, "sources": files, "sha256": file.sha256})
    spans: dict[str, list[list[str]]] = {
        name: [format_span(span) for span in values]
        for name, values in (
            ("covered", known.covered),
            ("outages", known.outages),
            ("unconfirmed_gaps", unconfirmed(store, known)),
        )
    }
    if settlements := open_settlements(store):
        spans["funding_covered"] = [format_span(span) for span in settlements.offsets().covered]
    if as_json:
        head = {"kind": store.kind, "symbol": store.symbol, "folder": str(store.folder)}
        common.print_json({**head, **spans, "settlements": _settlements(store), "months": rows})
        return
    table = _table("month", "bars", "of", "archive files")
    for row in rows:
        table.add_row(row["month"], f"{row['bars']:,}", f"{row['of']:,}", str(len(row["sources"])) or "REST only")
    common.show(table)
    for name, values in spans.items():
        for first, last in values:
            typer.echo(f"{name.replace('_', ' ')}: {first} to {last}")


def _settlements(store: Store) -> int | None:
    """Count the funding settlements of a store; None for a spot market."""
    settlements = open_settlements(store)
    return sum(file.rows for file in settlements.offsets().months.values()) if settlements else None


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    numbers = ("bars", "of", "settlements", "MiB", "archive files")
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left")
    return table
