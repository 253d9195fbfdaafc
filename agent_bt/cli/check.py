"""Commands that check a result: `leakcheck` for memory, `audit` for look-ahead, `compare` for two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent_bt.cli import common, runs

MetricOption = Annotated[str, typer.Option(help="mean_return, total_return, sharpe or sortino.")]
AlphaOption = Annotated[float, typer.Option(min=1e-6, max=0.999999, help="Significance level of the verdict.")]


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The baseline: a run as in `runs show`.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run that is judged against it.")],
    metric: MetricOption = "mean_return",
    alpha: AlphaOption = 0.05,
    root: runs.RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Judge one finished run against another; the exit code does not depend on the verdict."""
    from agent_bt.evaluation.stats.metric import find_metric
    from agent_bt.experiments.ab.run import compare as judge_pair
    from agent_bt.records.read import load_run, resolve_run

    find_metric(metric)
    where = runs.find_root(root)
    first, second = (load_run(resolve_run(where, name)) for name in (run_a, run_b))
    judged = judge_pair(first, second, metric=metric, alpha=alpha)
    if as_json:
        common.print_json(judged)
        return
    from agent_bt.experiments.ab.terminal import render

    common.show(render(judged))


def audit(
    target: Annotated[str, typer.Argument(metavar="CONFIG|RUN", help="A config file, or a run as in `runs show`.")],
    overrides: common.SetOption = None,
    cuts: Annotated[int, typer.Option(min=1, help="Number of decisions after which the future is changed.")] = 12,
    root: runs.RootOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Look for look-ahead: end or change the market after a decision, and nothing before may change. Asks no model.

    Exit code 1 if anything does.
    """
    from agent_bt.config.load import load_config
    from agent_bt.core.errors import UsageError
    from agent_bt.experiments.audit import audit_config, audit_run
    from agent_bt.records.read import resolve_run

    if Path(target).suffix in (".yaml", ".yml"):
        found = audit_config(load_config(target, overrides or ()), Path(target), cuts=cuts)
    elif overrides:
        raise UsageError("--set changes a config; a run is audited as it was made")
    else:
        found = audit_run(resolve_run(runs.find_root(root), target), cuts=cuts)
    if as_json:
        common.print_json(found.to_dict())
    elif found.leak is None:
        typer.echo(
            f"no look-ahead: {found.strategy}, {found.decisions:,} decisions; {found.compared:,} steps stayed the same "
            f"to the last bit when the market ended or changed after {len(found.cuts)} of them"
        )
    else:
        common.show_error(f"look-ahead in {found.strategy}: {found.leak}")
    if found.leak is not None:
        raise typer.Exit(1)


def leakcheck(
    config: common.ConfigArgument,
    overrides: common.SetOption = None,
    samples: Annotated[int, typer.Option(min=3, help="Number of decisions repeated on each altered history.")] = 100,
    replicates: Annotated[int, typer.Option(min=1, help="Number of requests for each of these decisions.")] = 2,
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.5, help="False-positive rate of the check.")] = 0.01,
    offline: common.OfflineOption = False,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
    progress: common.ProgressOption = "auto",
    quiet: common.QuietOption = False,
    verbose: common.VerboseOption = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Check whether the model remembers this market: run the agent twice, and ask it about altered histories.

    Exit code 1 if it does.
    """
    from agent_bt.config.load import load_config

    settings = load_config(config, overrides or ())
    if dry_run:
        from agent_bt.experiments.leakcheck import estimate_leakcheck

        cost = estimate_leakcheck(settings, config, samples=samples, replicates=replicates)
        common.show_estimate(cost, as_json=as_json)
        return
    from agent_bt.cli.progress import make_progress
    from agent_bt.experiments.leakcheck import leakcheck

    found = leakcheck(
        settings,
        config,
        samples=samples,
        replicates=replicates,
        alpha=alpha,
        progress=make_progress("none" if quiet else progress),
        offline=offline,
    )
    if as_json:
        common.print_json(found)
    elif not quiet:
        from agent_bt.experiments.leakcheck_terminal import render

        common.show(render(found))
    if found["flagged"]:
        raise typer.Exit(1)
