"""The HTML report of a run: one page that opens from the disk, without a network.

1. the numbers and words                               `html_facts`
2. candles, curves, decisions, packed                  `html_curves`, `html_decisions`, `html_pack`
3. the page around them, with its own style and script `assets/report.html.j2`, `assets/*.css`, `assets/*.js`
4. plotly's script, out of the installed package, once beside the reports or inside the page
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agent_bt.core.clock import duration_us
from agent_bt.core.errors import RecordError
from agent_bt.records.files import unwritable, whole_file
from agent_bt.records.read import Run, load_run
from agent_bt.reports.html_curves import pack_candles, pack_curves, read_baselines
from agent_bt.reports.html_decisions import CHUNK, Decisions
from agent_bt.reports.html_facts import facts_of
from agent_bt.reports.html_format import FILTERS
from agent_bt.reports.html_pack import pack_json, script_json
from agent_bt.reports.html_trades import trade_rows

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("pack", "format", "table", "market", "chart", "detail", "decisions", "lists", "main")
"""The page's own scripts, in the order in which they build on each other."""

_CHUNKS_HERE = "<!--chunks-->"


def write_report(run: Run | str | Path, *, single_file: bool = False, out: Path | None = None) -> Path:
    """Write the report of a run; the file appears whole.

    Args:
        run: a run, or its folder.
        single_file: put plotly's script inside (about 5 MB) instead of beside the reports.
        out: the file to write; default: `report.html` in the run folder.

    Returns:
        The path of the report.

    Raises:
        RecordError: the run has no results yet, or a file cannot be read or written.
    """
    run = run if isinstance(run, Run) else load_run(run)
    out = run.folder.report if out is None else out
    plotly = _plotly_inside() if single_file else _plotly_beside(run, out)
    decisions = _decisions(run)
    head, tail = _page(run, decisions, plotly).split(_CHUNKS_HERE)
    with whole_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        for number, chunk in enumerate(decisions.chunks()):
            file.write(f'<script type="text/plain" id="chunk-{number}">{chunk}</script>\n')
        file.write(tail)
    return out


def _page(run: Run, decisions: Decisions, plotly: Markup) -> str:
    equity, baselines = run.equity, read_baselines(run.path)
    about = run.summary.get("about") or {}
    blocks = {
        **decisions.index(),
        "candles": pack_candles(_visible_bars(run.market, equity)),
        "curves": pack_curves(equity, baselines),
        "trades": pack_json(trade_rows(run.fills)),
        "failures": pack_json(decisions.failures().with_columns(pl.col("time").dt.epoch("ms")).to_dicts()),
    }
    settings: dict[str, Any] = {
        "count": decisions.count,
        "chunk": CHUNK,
        "symbol": about.get("symbol") or "",
        "interval_ms": duration_us(about["interval"]) // 1000 if about.get("interval") else None,
        "run_id": run.run_id,
    }
    env = Environment(
        loader=PackageLoader("agent_bt.reports", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(FILTERS)
    return env.get_template("report.html.j2").render(
        **facts_of(run, equity, baselines, decisions.calls()),
        trade_count=len(run.fills),
        settings=Markup(script_json(settings)),
        blocks={name: Markup(text) for name, text in blocks.items()},
        style=Markup((ASSETS / "report.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)),
        plotly=plotly,
        chunks_here=Markup(_CHUNKS_HERE),
    )


def _decisions(run: Run) -> Decisions:
    try:
        return Decisions(run.folder.decisions)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RecordError(f"{run.folder.decisions} cannot be read: {error}; the run is incomplete") from error


def _visible_bars(bars: pl.DataFrame, equity: pl.DataFrame) -> pl.DataFrame:
    """The bars of the run itself and a day before it, where windows begin."""
    start = equity["time"][0] - pl.duration(days=1)
    return bars.filter(pl.col("close_time") >= start)


def _plotly_script() -> tuple[Path, str]:
    """plotly's browser script in the installed package, and the package's version; the package is not imported."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise RecordError("the report needs the package plotly; install it: pip install plotly")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js", version("plotly")


def _plotly_inside() -> Markup:
    text = _plotly_script()[0].read_text(encoding="utf-8").replace("</script", "<\\/script")
    return Markup('<script id="plotly">{}</script>').format(Markup(text))


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that it is there whole or not at all, also when two runs end at once."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise unwritable(target, error) from error


def _plotly_beside(run: Run, out: Path) -> Markup:
    """One copy for all reports of a folder of runs; a report written elsewhere has it in `assets` beside itself."""
    inside = out.resolve().parent == run.path.resolve()
    folder = out.resolve().parent.parent if inside else out.resolve().parent
    source, number = _plotly_script()
    target = folder / "assets" / f"plotly-{number}.min.js"
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        _copy(source, target)
    path = f"{'../' if inside else ''}assets/{target.name}"
    # Compiled on another thread while the page is read; the page's own script waits for it.
    return Markup('<script id="plotly" src="{}" async></script>').format(path)
