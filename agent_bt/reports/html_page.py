"""Renders and writes the pages of all reports: the template, its packed chunks, and plotly's script."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agent_bt.core.errors import RecordError
from agent_bt.records.files import unwritable, whole_file
from agent_bt.reports.html_format import FILTERS
from agent_bt.reports.html_pack import script_json

ASSETS = Path(__file__).parent / "assets"
"""Templates, styles and scripts of the pages."""

_CHUNKS_HERE = "<!--chunks-->"


def render_page(
    template: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    settings: Mapping[str, Any],
    blocks: Mapping[str, str],
    plotly: Markup,
    facts: Mapping[str, Any],
) -> str:
    """Render a page, with a mark where `write_page` inserts the chunks.

    Args:
        template: a file of `assets`.
        styles: style sheets of the page, by name without suffix, in order.
        scripts: scripts of the page, by name without suffix, each after those that it uses.
        settings: data that the scripts read as JSON.
        blocks: packed data that the scripts decode at the start, by name.
        plotly: see `plotly_tag`.
        facts: all other variables of the template, which escapes them.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            **facts,
            settings=Markup(script_json(settings)),
            blocks={name: Markup(text) for name, text in blocks.items()},
            style=_assets(styles, "css"),
            script=_assets(scripts, "js"),
            plotly=plotly,
            chunks_here=Markup(_CHUNKS_HERE),
        )
    )


@cache
def _environment() -> Environment:
    """Return the template environment, created once in a process."""
    environment = Environment(
        loader=PackageLoader("agent_bt.reports", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def write_page(out: Path, page: str, chunks: Iterable[str], blocks: Iterable[tuple[str, str]] = ()) -> None:
    """Write a rendered page and its chunks, one at a time, so that they are never all in memory.

    Args:
        out: the file to create or replace.
        page: as rendered by `render_page`.
        chunks: packed data that is decoded on demand, by number.
        blocks: packed data that is decoded on demand, by name.

    Raises:
        RecordError: the file cannot be written.
    """
    head, tail = page.split(_CHUNKS_HERE)
    with whole_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        for number, chunk in enumerate(chunks):
            file.write(f'<script type="text/plain" id="chunk-{number}">{chunk}</script>\n')
        for name, block in blocks:
            file.write(f'<script type="text/plain" id="{name}-block">{block}</script>\n')
        file.write(tail)


def plotly_tag(out: Path, *, shared: Path | None, single_file: bool, later: bool = False) -> Markup:
    """Return the element that loads plotly, and copy plotly's script to where the page looks for it.

    Args:
        out: the report.
        shared: the folder above the report whose `assets` all reports in it share; None: `assets` next to the report.
        single_file: put the script (about 5 MB) inside the page instead.
        later: load it when the page needs it, not with the page.

    Raises:
        RecordError: plotly is not installed, or its script cannot be copied.
    """
    source, number = _plotly_script()
    if single_file:
        text = source.read_text(encoding="utf-8").replace("</script", "<\\/script")
        return Markup('<script id="plotly">{}</script>').format(Markup(text))
    here = out.resolve().parent
    above = here if shared is None else shared.resolve()
    target = above / "assets" / f"plotly-{number}.min.js"
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        _copy(source, target)
    up = "../" * len(here.relative_to(above).parts)
    # `async`: loaded while the page is parsed; the page's own script waits for it.
    tag = '<script id="plotly" data-src="{}"></script>' if later else '<script id="plotly" src="{}" async></script>'
    return Markup(tag).format(f"{up}assets/{target.name}")


def _assets(names: Sequence[str], ending: str) -> Markup:
    return Markup("\n".join((ASSETS / f"{name}.{ending}").read_text(encoding="utf-8") for name in names))


def _plotly_script() -> tuple[Path, str]:
    """Find plotly's browser script in the installed package, and its version, without importing the package."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise RecordError("the report needs the package plotly; install it: pip install plotly")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js", version("plotly")


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that it is complete or absent, also when two runs end at the same time."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(target, error) from error
    with whole_file(target, target.with_name(f"{target.name}.{os.getpid()}.partial")) as temporary:
        shutil.copyfile(source, temporary)
