"""Commands that question a result: `compare` two runs."""

from __future__ import annotations

from typing import Annotated

import typer

from agent_bt.cli import common, runs

MetricOption = Annotated[str, typer.Option(help="mean_return, total_return, sharpe or sortino.")]
AlphaOption = Annotated[float, typer.Option(min=1e-6, max=0.999999, help="Chance of a false verdict.")]


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The baseline: a run as in `runs show`.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run that is judged against it.")],
    metric: MetricOption = "mean_return",
    alpha: AlphaOption = 0.05,
    root: runs.RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Judge one finished run against another; exit code 0 whatever the verdict."""
    from agent_bt.ab import compare_runs
    from agent_bt.core.errors import UsageError
    from agent_bt.evaluation.stats.measures import METRICS
    from agent_bt.records.read import load_run, resolve_run

    if metric not in METRICS:
        raise UsageError(f"--metric {metric} is not one of {', '.join(METRICS)}")
    where = runs.find_root(root)
    first, second = (load_run(resolve_run(where, name)) for name in (run_a, run_b))
    judged = compare_runs(first, second, metric=metric, alpha=alpha)
    if as_json:
        common.print_json(judged)
        return
    from agent_bt.reports.terminal_ab import render

    common.show(render(judged))
