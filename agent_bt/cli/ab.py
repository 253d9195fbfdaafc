"""`agent-bt ab`: runs an experiment, shows its verdicts, lists experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent_bt.cli import common, runs

app = typer.Typer(name="ab", help="Compare prompts, models or strategies with evidence.", no_args_is_help=True)

ExperimentArgument = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="`latest`, an id or its start or end, a name, or its folder.")
]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="AB_CONFIG", help="The experiment (YAML).", show_default=False)],
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
    progress: common.ProgressOption = "auto",
    offline: common.OfflineOption = False,
    dry_run: common.DryRunOption = False,
    report: common.ReportOption = True,
    quiet: common.QuietOption = False,
    verbose: common.VerboseOption = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Run an experiment; the same command continues an unfinished one. The exit code does not depend on the verdict."""
    from agent_bt.experiments.ab.spec import load_experiment

    # Before anything heavy is loaded: a wrong config is reported at once.
    experiment = load_experiment(config, overrides or ())
    if dry_run:
        from agent_bt.experiments.ab.run import estimate_experiment

        common.show_estimate(estimate_experiment(experiment), as_json=as_json)
        return
    from agent_bt.cli.progress import make_progress
    from agent_bt.experiments.ab.run import run_experiment

    record = run_experiment(experiment, progress=make_progress("none" if quiet else progress), offline=offline)
    if as_json:
        common.print_json(record)
    elif not quiet:
        from agent_bt.experiments.ab.terminal import render

        common.show(render(record))
    folder = Path(experiment.shared.output) / "ab" / record["experiment_id"]
    if report:
        from agent_bt.experiments.ab.report import write_ab_report

        folder = write_ab_report(folder)
    if not (as_json or quiet):
        common.print_message(f"\n{folder}")


@app.command("report")
def show_report(
    experiment: ExperimentArgument = "latest",
    root: runs.RootOption = None,
    as_json: common.JsonOption = False,
    single_file: common.SingleFileOption = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; default: in the experiment's folder.", show_default=False),
    ] = None,
) -> None:
    """Show the verdicts of an experiment and their evidence, and write its HTML report; with --json only show."""
    from agent_bt.experiments.ab.folder import FINISHED, resolve

    folder = resolve(runs.find_root(root), experiment)
    record = folder.read()
    if as_json:
        common.print_json(record)
        return
    from agent_bt.experiments.ab.terminal import render

    common.show(render(record))
    if record.get("status") == FINISHED:
        from agent_bt.experiments.ab.report import write_ab_report

        common.print_message(f"\n{write_ab_report(folder.path, single_file=single_file, out=output)}")


@app.command("list")
def list_(root: runs.RootOption = None, as_json: common.JsonOption = False) -> None:
    """List experiments, oldest first; unfinished ones are continued by the command that began them."""
    from agent_bt.core.errors import RecordError
    from agent_bt.experiments.ab.folder import all_experiments, summary_line

    where = runs.find_root(root)
    rows = []
    for folder in all_experiments(where):
        try:
            rows.append(summary_line(folder.read()))
        except RecordError:
            rows.append(summary_line({"experiment_id": folder.experiment_id, "status": "damaged"}))
    if as_json:
        common.print_json({"experiments": rows})
        return
    if not rows:
        common.print_message(f"no experiments in {where / 'ab'}")
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("experiment", "status", "baseline", "verdicts"):
        table.add_column(title, no_wrap=title != "verdicts")
    for row in rows:
        verdicts = ", ".join(f"{arm}: {verdict}" for arm, verdict in row["verdicts"].items())
        table.add_row(row["experiment_id"], row["status"], row["baseline"] or "", verdicts)
    common.show(table)
