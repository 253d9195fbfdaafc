"""Renders a sweep for a terminal: the evidence for the best, then the combinations, then the walk-forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent_bt.experiments.sweep.report_facts import short_names, value_text

DASH = "–"

_MEASURES = (
    ("sharpe", "Sharpe", ".2f"),
    ("total_return", "return", ".2%"),
    ("max_drawdown", "drawdown", ".1%"),
    ("trades", "trades", ",d"),
)


def render(record: Mapping[str, Any], results: pl.DataFrame, *, top: int = 10) -> RenderableType:
    """Render a sweep.

    Args:
        record: content of `sweep.json`.
        results: content of `results.parquet`.
        top: rows of the table.
    """
    return Group(*_parts(record, results, top))


def _parts(record: Mapping[str, Any], results: pl.DataFrame, top: int) -> Iterator[RenderableType]:
    for banner in record["banners"]:
        yield Text(f" {banner} ", style="bold black on yellow")
    for warning in record["warnings"]:
        yield Text(f"warning: {warning}", style="yellow")
    about, counts = record["about"], record["combinations"]
    yield Text.assemble(("\n" + record["sweep_id"], "bold"), f"  {about['strategy']} on {about['source']}")
    yield Text(
        f"{counts['tried']:,} of {counts['all']:,} combinations, {about['start']} to {about['end']}, "
        f"chosen by {record['metric']}",
        style="dim",
    )
    if record["best"] is not None:
        yield Text.assemble("\n", ("BEST ON THIS DATA  ", "bold"), _params(record, record["best"]["params"]))
        yield Text(record["evidence"]["sentence"])
        if record["evidence"]["pbo"] is not None:
            yield Text(f"probability of backtest overfitting: {record['evidence']['pbo']:.0%}")
    yield _table(record, results, top)
    if record["walk_forward"] is not None:
        yield from _forward(record)


def _table(record: Mapping[str, Any], results: pl.DataFrame, top: int) -> Table:
    names = short_names(record["params"])
    shown = list(_MEASURES)
    if record["metric"] not in [name for name, *_ in shown]:
        shown.insert(0, (record["metric"], record["metric"], ".3g"))
    if "out_of_sample_return" in results.columns:
        shown.append(("out_of_sample_return", "out of sample", ".2%"))
    table = _empty(*names.values(), *(title for _, title, _ in shown))
    best = results.sort(record["metric"], descending=True, nulls_last=True, maintain_order=True).head(top)
    for row in best.iter_rows(named=True):
        table.add_row(
            *(value_text(row[path]) for path in names), *(_number(row[name], form) for name, _, form in shown)
        )
    return table


def _forward(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    forward, metric = record["walk_forward"], record["metric"]
    own, held = forward["performance"], forward["buy_and_hold"]
    yield Text.assemble(
        ("WALK-FORWARD  ", "bold"),
        f"chosen in {forward['train']}, reported in the {forward['test']} after: "
        f"return {_number(own['total_return'], '.2%')}, Sharpe {_number(own['sharpe'], '.2f')}, "
        f"drawdown {_number(own['max_drawdown'], '.1%')}; buy and hold: {_number(held['total_return'], '.2%')}; "
        f"probability that its true Sharpe is above 0: {_number(forward['evidence']['psr'], '.0%')}",
    )
    table = _empty("from", "to", "chosen", f"{metric} in sample", "out of sample", "return")
    for row in forward["windows"]:
        table.add_row(
            row["test"]["start"][:10],
            row["test"]["end"][:10],
            "nothing" if row["params"] is None else _params(record, row["params"]),
            _number(row["in_sample"], ".2f"),
            _number(row["out_of_sample"], ".2f"),
            _number(row["total_return"], ".2%"),
        )
    yield table


def _params(record: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    names = short_names(record["params"])
    return ", ".join(f"{names[path]} {value_text(value)}" for path, value in values.items())


def _empty(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="left" if title in ("from", "to", "chosen") else "right", overflow="fold")
    return table


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)
