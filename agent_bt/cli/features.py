"""`agent-bt features`: list the kinds, compute features of a market, or compare some with a recomputation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent_bt.cli import common

if TYPE_CHECKING:
    from agent_bt.config.model import Config
    from agent_bt.core.types import FeatureSpec
    from agent_bt.features.check import Sample

app = typer.Typer(
    name="features",
    help="List, compute and check features.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The config file (YAML); default: all defaults.", show_default=False),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="A feature by name, such as sma_50, instead of those of the config; repeatable."),
]


@app.command("list")
def list_kinds(as_json: common.JsonOption = False) -> None:
    """List the kinds of features, and how their columns are named."""
    from agent_bt.features.names import ALIASES, form
    from agent_bt.features.specs import KINDS

    names = sorted([*KINDS, *ALIASES])
    kinds = [KINDS[ALIASES.get(name, name)] for name in names]
    columns = [form(name) for name in names]
    meanings = [(kind.compute.__doc__ or "").strip().partition("\n")[0] for kind in kinds]
    if as_json:
        listed = zip(columns, kinds, meanings, strict=True)
        common.print_json([{"column": at, "reads": kind.inputs, "meaning": text} for at, kind, text in listed])
        return
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for column, meaning in zip(columns, meanings, strict=True):
        table.add_row(column, meaning)
    common.show(table)


@app.command()
def compute(
    config: ConfigOption = None,
    overrides: common.SetOption = None,
    columns: ColumnOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; .parquet or .csv.")] = Path(
        "features.parquet"
    ),
    as_json: common.JsonOption = False,
) -> None:
    """Compute all features over a market and write them: one row per bar, empty where not yet defined."""
    import io

    import polars as pl

    from agent_bt.backtest.bars import load_bars
    from agent_bt.config.load import load_config
    from agent_bt.core.errors import UsageError
    from agent_bt.data.files import write_whole
    from agent_bt.features.compute import compute as compute_features

    if out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--out {out}: the name must end in .parquet or .csv")
    settings = load_config(config, overrides or ())
    specs = _specs(settings, columns)
    bars = load_bars(settings).bars
    features = pl.DataFrame(compute_features(bars, specs), schema=[spec.column for spec in specs], orient="row")
    table = bars.select("open_time", "close_time", "close").hstack(features.fill_nan(None))
    buffer = io.BytesIO()
    if out.suffix == ".csv":
        table.write_csv(buffer)
    else:
        table.write_parquet(buffer)
    write_whole(out, buffer.getvalue())
    if as_json:
        common.print_json({"file": str(out), "rows": len(table), "columns": table.columns})
    else:
        typer.echo(f"wrote {out}: {len(table):,} rows, {', '.join(table.columns)}")


@app.command()
def sample(
    config: ConfigOption = None,
    overrides: common.SetOption = None,
    columns: ColumnOption = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=1000, help="Number of rows.")] = 5,
    at: Annotated[
        str | None,
        typer.Option("--at", help="Time of the last row, UTC: the last bar closed by then.", show_default=False),
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Compare features with a recomputation in plain Python from the bars up to then; exit code 1 if they differ."""
    from agent_bt.backtest.bars import load_bars
    from agent_bt.config.load import load_config
    from agent_bt.core.clock import iso, time_us
    from agent_bt.core.errors import DataError, UsageError
    from agent_bt.features.check import sample as take_sample

    settings = load_config(config, overrides or ())
    specs = _specs(settings, columns)
    try:
        until = None if at is None else time_us(at)
    except ValueError as error:
        raise UsageError(f"--at: {error}") from None
    bars = load_bars(settings).bars
    times = bars["close_time"].to_physical()
    last = len(bars) - 1 if until is None else int(times.search_sorted(until, side="right")) - 1
    if last < 0:
        raise UsageError(f"--at {at}: no bar has closed by then; the first one closes at {iso(int(times[0]))}")
    samples = take_sample(bars, specs, last, rows)
    differing = [one for one in samples if not one.agrees]
    if as_json:
        common.print_json({"agree": not differing, "samples": [_record(one, iso(one.close_time)) for one in samples]})
    else:
        common.show(_table(samples))
    if differing:
        names = ", ".join(sorted({one.column for one in differing}))
        raise DataError(f"{len(differing)} of {len(samples)} values differ from their recomputation: {names}")


def _specs(settings: Config, columns: list[str] | None) -> Sequence[FeatureSpec]:
    from agent_bt.core.errors import StrategyError, UsageError
    from agent_bt.features.names import specs_of
    from agent_bt.features.specs import feature_specs

    if not columns:
        return feature_specs(settings.features)
    try:
        specs = specs_of(columns)
    except StrategyError as error:
        raise UsageError(f"--column: {error}") from error
    if not specs:
        raise UsageError(
            f"--column {', '.join(columns)}: these are columns of the bars; name a feature, such as sma_50"
        )
    return specs


def _record(one: Sample, time: str) -> dict[str, Any]:
    return {
        "close_time": time,
        "feature": one.column,
        "value": one.value,
        "recomputed": one.recomputed,
        "agrees": one.agrees,
    }


def _table(samples: list[Sample]) -> Any:
    from rich.table import Table

    from agent_bt.core.clock import iso

    table = Table("bar closed (UTC)", "feature", box=None)
    for title in ("value", "recomputed", "difference"):
        table.add_column(title, justify="right")
    for one in samples:
        numbers = (f"{one.value:.6f}", f"{one.recomputed:.6f}", f"{one.value - one.recomputed:.1e}")
        table.add_row(iso(one.close_time), one.column, *numbers, style=None if one.agrees else "bold red")
    return table
