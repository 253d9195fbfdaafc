"""A leak check as a terminal shows it: the finding first, then each kind of memory, then what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

DASH = "–"

_STATUS = {
    "after_cutoff": "after the cutoff",
    "nothing_after_cutoff": "no bar is after the cutoff, so there is nothing to headline",
    "unverified": "whole range, UNVERIFIED: the model may have known it",
    "nothing_to_remember": "whole range (a generated market or an embedded model: nothing could be remembered)",
}


def render(found: Mapping[str, Any]) -> RenderableType:
    """Render a whole `leakcheck.json`."""
    return Group(*_parts(found))


def _parts(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    for banner in found["banners"]:
        yield Text(f" {banner} ", style="bold black on yellow")
    memory = found["memory"]
    if found["flagged"]:
        names = ", ".join(test["name"] for test in memory["tests"] if test["flagged"])
        yield Text(f"\nMEMORY SHOWS ({names})", style="bold red")
    else:
        yield Text("\nno memory shows", style="bold green")
    yield Text(f"{found['strategy']}, {found['model']}; knowledge cutoff: {found['cutoff']['text']}")
    performance = found["performance"]
    yield Text(f"result, {_STATUS[performance['status']]}: {_figures(performance['headline'])}")
    if performance["before"] is not None:
        yield Text(f"before the cutoff, no evidence: {_figures(performance['before'])}", style="dim")
    yield Text(f"plain against masked run: {found['masked']['sentence']}")
    yield _table(memory)
    recall = memory["recall"]
    if recall is not None:
        bands = ", ".join(f"{share:.0%} within {band}" for band, share in recall["within"].items())
        yield Text(
            f"recall: {recall['answered']} of {recall['asked']} dates answered, {bands} "
            f"(1% by chance: {recall['chance']:.0%})"
        )
    for warning in found["warnings"]:
        yield Text(f"warning: {warning}", style="yellow")


def _table(memory: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for at, title in enumerate(("history", "foresight", "p", "same action", "same when acting", "confidence", "bits")):
        table.add_column(title, justify="right" if at else "left")
    p_values = {test["name"]: test["p_value"] for test in memory["tests"]}
    for name, score in memory["foresight"].items():
        response = memory["responses"].get(name, {})
        table.add_row(
            name,
            f"{score:+.3f}",
            _number(p_values.get(name), ".3g"),
            _number(response.get("prediction_consistency"), ".0%"),
            _number(response.get("acting_consistency"), ".0%"),
            _number(response.get("confidence_invariance"), ".2f"),
            _number(response.get("divergence"), ".2f"),
        )
    return table


def _figures(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return DASH
    return (
        f"{figures['total_return']:+.2%} in {figures['days']} days, {figures['mean_return_bps_a_day']:+.1f} bps a day, "
        f"Sharpe {_number(figures['sharpe'], '.2f')}"
    )


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)
