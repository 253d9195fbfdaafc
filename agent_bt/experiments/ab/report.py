"""The HTML report of an A/B experiment: one page that opens from the disk, without a network.

1. verdicts, numbers and words                          `ab_facts`
2. the matrix of decisions and what is behind each cell `ab_cells`
3. bands of the accounts' growth                        `ab_curves`
4. the page around them                                 `html_page`, `assets/ab_report.html.j2`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_bt.core.errors import RecordError
from agent_bt.experiments.ab.folder import FINISHED, ExperimentFolder, home
from agent_bt.experiments.ab.pairs import Grid
from agent_bt.experiments.ab.report_cells import CHUNK, Cells, Lane
from agent_bt.experiments.ab.report_curves import pack_bands
from agent_bt.experiments.ab.report_facts import facts_of
from agent_bt.records.read import load_run
from agent_bt.reports.html_pack import pack_json
from agent_bt.reports.html_page import plotly_tag, render_page, write_page

REPORT = "report.html"
SCRIPTS = ("pack", "format", "page", "ab_diff", "ab_matrix", "ab_drawer", "ab_bands", "ab_main")
"""The page's own scripts, in the order in which they build on each other."""


def write_ab_report(folder: Path, *, single_file: bool = False, out: Path | None = None) -> Path:
    """Write the report of a finished experiment; the file appears whole.

    Args:
        folder: the experiment's, `runs/ab/<id>/`.
        single_file: put plotly's script inside (about 5 MB) instead of beside the reports.
        out: the file to write; default: `report.html` in the experiment's folder.

    Returns:
        The path of the report.

    Raises:
        RecordError: the experiment is not finished, or a file of it cannot be read, or the report not be written.
    """
    record = ExperimentFolder(folder).read()
    if record.get("status") != FINISHED:
        raise RecordError(f"{folder.name} is not finished; the command that began it continues it")
    out = folder / REPORT if out is None else out
    plotly = plotly_tag(out, shared=_shared_by(folder, out), single_file=single_file, later=True)
    grids = _grids(folder, record)
    cells = Cells(
        [Lane(arm=arm, replicate=at, runs=runs) for arm, grid in grids.items() for at, runs in enumerate(grid)]
    )
    page = render_page(
        "ab_report.html.j2",
        styles=("report", "ab_report"),
        scripts=SCRIPTS,
        settings=_settings(record, cells),
        blocks={
            "index": cells.index(),
            "bands": pack_bands(grids, baseline=record["baseline"]),
            "prompts": pack_json([_prompt(grid) for grid in grids.values()]),
        },
        plotly=plotly,
        facts={**facts_of(record), "rows": cells.count},
    )
    write_page(out, page, cells.chunks())
    return out


def _shared_by(folder: Path, out: Path) -> Path | None:
    """The folder of all runs, where the experiment lies in one: its reports share plotly with those of the runs."""
    inside = out.resolve().parent == folder.resolve()
    root = folder.resolve().parent.parent
    return root if inside and home(root) == folder.resolve().parent else None


def _grids(folder: Path, record: Mapping[str, Any]) -> dict[str, Grid]:
    """The runs of every arm: one row a replicate, one column a window."""
    rows: dict[str, dict[int, dict[int, str]]] = {name: {} for name in record["results"]}
    for cell in record["cells"]:
        rows[cell["arm"]].setdefault(cell["replicate"], {})[cell["window"]] = cell["run"]
    return {
        arm: [[load_run(folder / places[window]) for window in sorted(places)] for _, places in sorted(grid.items())]
        for arm, grid in rows.items()
    }


def _settings(record: Mapping[str, Any], cells: Cells) -> dict[str, Any]:
    names = list(record["results"])
    return {
        "count": cells.count,
        "chunk": CHUNK,
        "experiment_id": record["experiment_id"],
        "arms": names,
        "baseline": names.index(record["baseline"]),
        "lanes": [{"arm": names.index(lane.arm), "replicate": lane.replicate} for lane in cells.lanes],
        "windows": len(record["windows"]),
        "targets": cells.by_targets,
    }


def _prompt(grid: Grid) -> dict[str, Any]:
    """The prompt of an arm; without a name, it has none."""
    prompt = grid[0][0].manifest.get("prompt") or {}
    return {"name": prompt.get("name"), "text": prompt.get("text") or ""}
