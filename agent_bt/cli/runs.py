"""`agent-bt runs`: list runs, show one, verify one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent_bt.cli import common

app = typer.Typer(name="runs", help="List, show and verify runs.", no_args_is_help=True)

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="`latest`, the id or name of a run, the start or end of an id, or its folder."),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="The folder of runs; default: `output` of the config.", show_default=False),
]


@app.command("list")
def list_(root: RootOption = None, as_json: common.JsonOption = False) -> None:
    """List runs, oldest first; `agent-bt resume` continues unfinished ones."""
    from agent_bt.records.read import list_runs

    where = find_root(root)
    runs = list_runs(where)
    if as_json:
        keys = ("run_id", "name", "status", "started", "decisions", "total_return", "resumable")
        common.print_json({"runs": [{key: getattr(run, key) for key in keys} for run in runs]})
        return
    if not runs:
        common.print_message(f"no runs in {where}")
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("run", "status"):
        table.add_column(title, no_wrap=True)
    for title in ("decisions", "return"):
        table.add_column(title, justify="right")
    for run in runs:
        decisions = "" if run.decisions is None else f"{run.decisions:,}"
        total_return = "" if run.total_return is None else f"{run.total_return:.2%}"
        status = f"{run.status}, resumable" if run.resumable else run.status
        table.add_row(run.run_id, status, decisions, total_return)
    common.show(table)
    if any(run.resumable for run in runs):
        common.print_message("continue a resumable run with: agent-bt resume RUN")


@app.command()
def show(run: RunArgument = "latest", root: RootOption = None, as_json: common.JsonOption = False) -> None:
    """Show the summary of a run, with its baselines."""
    from agent_bt.records.read import load_run, resolve_run

    loaded = load_run(resolve_run(find_root(root), run))
    if as_json:
        common.print_json(loaded.summary)
        return
    from agent_bt.reports.terminal import render

    common.show(render(loaded.summary))


@app.command()
def verify(run: RunArgument = "latest", root: RootOption = None, as_json: common.JsonOption = False) -> None:
    """Recompute every hash and count of a run; exit code 1 if anything differs."""
    from agent_bt.records.read import resolve_run
    from agent_bt.records.verify import verify as verify_run

    path = resolve_run(find_root(root), run)
    differences = verify_run(path)
    if as_json:
        found = [{"what": each.what, "recorded": each.recorded, "derived": each.derived} for each in differences]
        common.print_json({"run_id": path.name, "verified": not differences, "differences": found})
    elif differences:
        for difference in differences:
            common.show_error(str(difference))
        count = "1 difference" if len(differences) == 1 else f"{len(differences)} differences"
        common.print_message(f"{path.name}: {count}; the folder was changed after the run")
    else:
        typer.echo(f"{path.name}: verified, nothing was changed")
    if differences:
        raise typer.Exit(1)


def find_root(root: Path | None) -> Path:
    """Return the given folder of runs, else that of the config in the environment."""
    if root is not None:
        return root
    from agent_bt.config.load import load_config

    return Path(load_config().output)
