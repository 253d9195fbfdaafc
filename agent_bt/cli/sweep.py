"""`agent-bt sweep`: try many parameters of a rule or ranker, and judge the best of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent_bt.cli import common

app = typer.Typer(
    name="sweep",
    help="Try many parameters of a rule or ranker, and judge the best of them.",
    add_completion=False,
)


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="SWEEP_CONFIG", help="The sweep (YAML).", show_default=False)],
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
    progress: common.ProgressOption = "auto",
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Combinations in the table.")] = 10,
    report: common.ReportOption = True,
    single_file: common.SingleFileOption = False,
    quiet: common.QuietOption = False,
    verbose: common.VerboseOption = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Try many parameters of a rule or ranker, and judge the best of them.

    Every combination uses the account of a run and counts as a trial; the Sharpe ratio of the best is deflated by them.

    With walk_forward it is chosen in a training period and reported in the test period after it.
    """
    from agent_bt.experiments.sweep.spec import load_sweep

    # Before anything heavy is loaded: a wrong config is reported at once.
    declared = load_sweep(config, overrides or ())
    from agent_bt.cli.progress import make_progress
    from agent_bt.experiments.sweep.run import run_sweep

    folder, record = run_sweep(declared, progress=make_progress("none" if quiet else progress))
    if as_json:
        common.print_json(record)
    elif not quiet:
        from agent_bt.experiments.sweep.terminal import render

        common.show(render(record, folder.tables()[0], top=top))
    made = folder.path
    if report:
        from agent_bt.experiments.sweep.report import write_sweep_report

        made = write_sweep_report(folder.path, single_file=single_file)
    if not (as_json or quiet):
        common.print_message(f"\n{made}")
