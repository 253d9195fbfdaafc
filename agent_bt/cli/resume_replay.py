"""Commands that run an earlier run again: `resume` continues an unfinished one, `replay` checks a finished one."""

from __future__ import annotations

import typer

from agent_bt.cli import common, runs


def resume(
    run: runs.RunArgument = "latest",
    overrides: common.SetOption = None,
    root: runs.RootOption = None,
    offline: common.OfflineOption = False,
    as_json: common.JsonOption = False,
    progress: common.ProgressOption = "auto",
    quiet: common.QuietOption = False,
    verbose: common.VerboseOption = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Continue an unfinished run from its folder; `latest` is the newest resumable one."""
    from agent_bt.backtest.run import resume
    from agent_bt.cli.progress import make_progress
    from agent_bt.core.errors import UsageError
    from agent_bt.records.read import list_runs, resolve_run
    from agent_bt.records.run_folder import RunFolder

    folder = runs.find_root(root)
    if run == "latest":
        open_runs = [entry.path for entry in list_runs(folder) if entry.resumable]
        if not open_runs:
            raise UsageError(f"no run in {folder} can be continued; `agent-bt runs list` lists all runs")
        path = max(open_runs, key=lambda path: path.name)
    else:
        path = resolve_run(folder, run)
    result = resume(
        RunFolder(path),
        overrides=overrides or (),
        progress=make_progress("none" if quiet else progress),
        offline=offline,
    )
    common.show_result(result, as_json=as_json, quiet=quiet)


def replay(
    run: runs.RunArgument = "latest",
    root: runs.RootOption = None,
    as_json: common.JsonOption = False,
    progress: common.ProgressOption = "auto",
    quiet: common.QuietOption = False,
    verbose: common.VerboseOption = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Rebuild a run from its folder alone; the first difference ends it with exit code 5."""
    from agent_bt.backtest.replay import explain_changes
    from agent_bt.backtest.replay import replay as replay_run
    from agent_bt.cli.progress import make_progress
    from agent_bt.core.errors import ReplayError
    from agent_bt.records.read import resolve_run

    outcome = replay_run(resolve_run(runs.find_root(root), run), make_progress("none" if quiet else progress))
    if as_json:
        common.print_json(outcome.to_dict())
    elif outcome.identical:
        rate = outcome.decisions / outcome.seconds if outcome.seconds else 0.0
        typer.echo(
            f"identical: {outcome.run_id}, {outcome.decisions:,} decisions in {outcome.seconds:.1f} s "
            f"({rate:,.0f} per second); hashes of data, decisions, fills and equity are equal"
        )
    if not outcome.identical:
        message = f"{outcome.run_id} differs from its record, {outcome.divergence}"
        if outcome.changed_rules:
            message += f"\n{explain_changes(outcome.changed_rules)}"
        raise ReplayError(message)
