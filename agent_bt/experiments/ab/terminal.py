"""An experiment as a terminal shows it: verdicts in words first, then the numbers they rest on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

DASH = "–"

_COLOURS = {"better": "green", "worse": "red", "cannot_tell": "yellow"}


def render(record: Mapping[str, Any]) -> RenderableType:
    """Render a whole `experiment.json`, or the result of comparing two runs."""
    return Group(*_parts(record))


def _parts(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    for banner in record.get("banners", ()):
        yield Text(f" {banner} ", style="bold black on yellow")
    for warning in record.get("warnings", ()):
        yield Text(f"warning: {warning}", style="yellow")
    if "experiment_id" in record:
        yield Text.assemble(("\n" + record["experiment_id"], "bold"), "  ", record["status"])
    if spent := record.get("spent"):
        cost = "unpriced" if spent["cost_usd"] is None else f"${spent['cost_usd']:,.4f}"
        tokens = f"{spent['prompt_tokens']:,} + {spent['completion_tokens']:,} tokens"
        yield Text(f"spent {spent['calls']:,} calls, {tokens}, {cost}, failed attempts included", style="dim")
    if not record.get("arms"):
        done = sum(cell["status"] != "unfinished" for cell in record.get("cells", ()))
        yield Text(f"{done} of {len(record.get('cells', ()))} runs are finished; the same command continues it")
        return
    yield Text(
        f"metric {record['metric']} ({record['unit']}), alpha {record['alpha']:g}, {record['bars']:,} bars", style="dim"
    )
    for arm in record["arms"].values():
        yield Text.assemble("\n", (arm["verdict"].replace("_", " ").upper(), f"bold {_COLOURS[arm['verdict']]}"))
        yield Text(arm["sentence"])
        for note in arm["notes"]:
            yield Text(f"note: {note}", style="dim")
    yield _verdicts(record)
    yield _results(record)
    for arm in record["arms"].values():
        yield from _flips(arm)
    yield from _many(record)


def _verdicts(record: Mapping[str, Any]) -> Table:
    table = _table("arm", "effect", "low", "high", "p", "smallest seen", "PSR", "DSR", "trials")
    for name, arm in record["arms"].items():
        numbers = [_number(arm[key], "+.3g") for key in ("effect", "ci_low", "ci_high")]
        rest = [_number(arm[key], ".3g") for key in ("p_value", "mde", "psr", "dsr")]
        table.add_row(_short(name), *numbers, *rest, str(arm["trials"]))
    return table


def _short(name: str) -> str:
    """An arm's name; of a run compared by its id, what tells it apart in a table: name and ending."""
    return re.sub(r"^\d{8}T\d{6}Z-", "", name)


def _results(record: Mapping[str, Any]) -> Table:
    table = _table("arm", "return", "Sharpe", "trades", "failed", "at most", "cost/decision", "latency p95")
    for name, arm in record["results"].items():
        rate, cost, latency = (arm[k] for k in ("failure_rate", "cost_usd_per_decision", "latency_ms_per_decision"))
        table.add_row(
            _short(name),
            _number(_mean(arm["total_return"]), ".2%"),
            _number(_mean(arm["sharpe"]), ".2f"),
            _number(_mean(arm["trades"]), ".1f"),
            _number(rate and rate["share"], ".2%"),
            _number(rate and rate["high"], ".2%"),
            _number(cost and cost["mean"], ".6f"),
            _number(latency and latency["p95"], ".0f"),
        )
    return table


def _flips(arm: Mapping[str, Any]) -> Iterator[RenderableType]:
    flips = arm["decisions"]
    if not flips["paired"]:
        return
    if flips.get("kind") == "targets":
        yield from _targets(arm, flips)
        return
    rate, names = flips["agreement"]["rate"], flips["actions"]
    arm_name, baseline = _short(arm["arm"]), _short(arm["baseline"])
    yield Text(
        f"\n{arm_name} and {baseline} decide alike in {rate['share']:.1%} of {flips['paired']:,} decisions "
        f"({rate['low']:.1%} to {rate['high']:.1%})"
    )
    if rate["share"] == 1.0:
        return
    table = _table(f"{baseline} \\ {arm_name}", *names, "PnL of the flips")
    for row, name in enumerate(names):
        earned = sum(flips["flip_pnl"][row])
        table.add_row(name, *(f"{count:,}" for count in flips["flip_matrix"][row]), f"{earned:+,.2f}")
    yield table


def _targets(arm: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[RenderableType]:
    rate = found["equal"]
    yield Text(
        f"\n{_short(arm['arm'])} and {_short(arm['baseline'])} want the same weights after {rate['share']:.1%} of "
        f"{found['paired']:,} decisions ({rate['low']:.1%} to {rate['high']:.1%}); on average "
        f"{found['overlap']:.1%} of them are in common"
    )
    table = _table("arm", "symbols wanted", "gross weight", "turnover/decision")
    for name, statistics in ((arm["baseline"], found["baseline"]), (arm["arm"], found["arm"])):
        table.add_row(
            _short(name),
            _number(statistics["positions"], ".1f"),
            _number(statistics["gross"], ".1%"),
            _number(statistics["turnover"], ".1%"),
        )
    yield table


def _many(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    if record.get("spa"):
        spa = record["spa"]
        yield Text(f"best of several: {spa['arm']}, p = {spa['p_value']:.3g} that none is better (Hansen's SPA)")
    if record.get("pbo") is not None:
        yield Text(f"probability of backtest overfitting: {record['pbo']:.0%}")


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for at, title in enumerate(titles):
        table.add_column(title, justify="right" if at else "left", overflow="fold")
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)
