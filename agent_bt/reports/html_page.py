"""What every HTML report is put together with: the template, its packed chunks, and plotly's script."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
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
    """The page, with the place of its chunks marked; see `write_page`.

    Args:
        template: a file of `assets`.
        styles, scripts: the page's own, by name without ending, in the order in which they build on each other.
        settings: what the scripts read as JSON.
        blocks: packed data that the scripts decode at once, by name.
        plotly: see `plotly_tag`.
        facts: everything else that the template shows; the template escapes it.
    """
    env = Environment(
        loader=PackageLoader("agent_bt.reports", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(FILTERS)
    return env.get_template(template).render(
        **facts,
        settings=Markup(script_json(settings)),
        blocks={name: Markup(text) for name, text in blocks.items()},
        style=_assets(styles, "css"),
        script=_assets(scripts, "js"),
        plotly=plotly,
        chunks_here=Markup(_CHUNKS_HERE),
    )


def write_page(out: Path, page: str, chunks: Iterable[str], blocks: Iterable[tuple[str, str]] = ()) -> None:
    """Write a rendered page with its chunks, one after the other, in memory that does not hold them all.

    `blocks` are packed data by name, as in `render_page`, that the page can do without until they are asked for.

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
    """The element that loads plotly, whose script is copied to where it will be looked for.

    Args:
        out: the report.
        shared: the folder above the report whose `assets` all reports below it share; None: `assets` beside it.
        single_file: the script inside the page (about 5 MB) instead.
        later: loaded when the page asks for it, not with the page.

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
    # At once: compiled on another thread while the page is read; the page's own script waits for it.
    tag = '<script id="plotly" data-src="{}"></script>' if later else '<script id="plotly" src="{}" async></script>'
    return Markup(tag).format(f"{up}assets/{target.name}")


def _assets(names: Sequence[str], ending: str) -> Markup:
    return Markup("\n".join((ASSETS / f"{name}.{ending}").read_text(encoding="utf-8") for name in names))


def _plotly_script() -> tuple[Path, str]:
    """plotly's browser script in the installed package, and the package's version; the package is not imported."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise RecordError("the report needs the package plotly; install it: pip install plotly")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js", version("plotly")


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that it is there whole or not at all, also when two runs end at once."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(target, error) from error
    with whole_file(target, target.with_name(f"{target.name}.{os.getpid()}.partial")) as temporary:
        shutil.copyfile(source, temporary)
