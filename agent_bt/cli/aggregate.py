"""`agent-bt aggregate`: turn files of ticks into one file of bars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent_bt.cli import common

app = typer.Typer(name="aggregate", help="Aggregate ticks to time, tick, volume or dollar bars.", add_completion=False)


@app.command()
def aggregate(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Names the file and the column `symbol`: BTCUSDT.")],
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Ticks in chronological order: .parquet, .csv, .csv.gz, .zip.", show_default=False
        ),
    ],
    bar_type: Annotated[
        str, typer.Option("--bar-type", "-b", help="time_bar, tick_bar, volume_bar or dollar_bar.")
    ] = "time_bar",
    threshold: Annotated[
        str, typer.Option("--threshold", "-t", help="1h for time bars; else ticks, base units or quote units.")
    ] = "1h",
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("data/bars"),
    advanced: Annotated[
        bool, typer.Option("--advanced/--basic", help="With up_move_ratio, medium_price and reversals.")
    ] = True,
    include_last: Annotated[
        bool, typer.Option("--include-last/--closed-only", help="Keep the last bar, which may be unfinished.")
    ] = True,
    repair: Annotated[
        list[str] | None,
        typer.Option(
            "--repair", help="Mend ticks: sort, drop_duplicates, drop_invalid; repeatable.", show_default=False
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Files that are read at the same time.")] = 4,
    as_json: common.JsonOption = False,
) -> None:
    """Aggregate ticks to time, tick, volume or dollar bars; writes SYMBOL_BARTYPE_THRESHOLD.parquet."""
    from agent_bt.bars.files import aggregate_files

    written = aggregate_files(
        symbol,
        sources,
        bar_type=bar_type,
        threshold=threshold,
        folder=output,
        include_advanced=advanced,
        include_last=include_last,
        repair=repair or (),
        n_workers=workers,
    )
    if as_json:
        common.print_json(written.to_dict())
        return
    for what, count in written.repaired.items():
        common.print_message(f"repaired ({what}): {count:,} ticks")
    common.print_message(f"{written.ticks:,} ticks, {written.bars:,} bars")
    typer.echo(written.path)
