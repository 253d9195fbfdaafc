"""Common to all commands: shared options, and output: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from agent_bt.backtest.estimate import Estimate
    from agent_bt.backtest.run import Result

from agent_bt.core.finding import Finding

DEBUG_VARIABLE = "AGENT_BT_DEBUG"

_state = {"verbose": False}


def _set_verbose(value: bool) -> bool:
    if value:
        _state["verbose"] = True
    return value


ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The config file (YAML).", show_default=False)]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Use cached replies only; no network connection is opened.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Estimate calls, tokens and cost, expected and at most; nothing is sent.")
]
ReportOption = Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report.")]
SingleFileOption = Annotated[
    bool, typer.Option("--single-file", help="Write one self-contained file, about 5 MB larger.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override one value of the config; repeatable.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
ProgressOption = Annotated[
    Literal["auto", "plain", "none"], typer.Option(help="Progress on stderr: live on a terminal, plain lines, or none.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only: no progress, no table.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show tracebacks of errors.", callback=_set_verbose)
]


def verbose() -> bool:
    """Return whether to show tracebacks: `-v`, or AGENT_BT_DEBUG set to anything but 0."""
    return _state["verbose"] or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def print_json(data: Any) -> None:
    """Print one JSON object on stdout; NaN and infinity become null."""
    import orjson

    typer.echo(orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY).decode())


def print_message(text: str) -> None:
    """Print a message on stderr."""
    typer.echo(text, err=True)


def show_error(message: str) -> None:
    """Print an error on stderr, coloured on a terminal."""
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(message.replace("\n", "\n       "), err=True)


def show_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print findings, each with its level (`error`, `warning`, `ok`) and advice.

    Args:
        findings: of a check.
        as_json: print them as JSON.

    Raises:
        Exit: exit code 2, if any finding is an error.
    """
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        rows = [{"level": f.level, "what": f.what, "advice": f.advice} for f in findings]
        print_json({"ok": not failed, "findings": rows})
    else:
        colours = {"error": typer.colors.RED, "warning": typer.colors.YELLOW, "ok": typer.colors.GREEN}
        for finding in findings:
            typer.secho(f"{finding.level:8}", fg=colours.get(finding.level), nl=False)
            typer.echo(finding.what + (f"\n        -> {finding.advice}" if finding.advice else ""))
    if failed:
        raise typer.Exit(2)


def show_result(result: Result, *, as_json: bool, quiet: bool) -> None:
    """Print the result of a run, then raise the error that ended it early, if any.

    Args:
        result: of the run.
        as_json: print the summary as JSON.
        quiet: print nothing.

    Raises:
        AgentBtError: the run ended early, or too many decisions failed.
    """
    from agent_bt.core.errors import QualityGate

    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        from agent_bt.reports.terminal import render

        show(render(result.summary))
        report = result.run_dir / "report.html"
        print_message(f"\n{report if report.exists() else result.run_dir}")
    if result.error is not None:
        raise result.error
    if result.status == "failed":
        counts = result.summary["decisions"]
        failed = counts["total"] - counts["model"]
        raise QualityGate(
            f"{failed:,} of {counts['total']:,} decisions failed, above risk.max_failed_share, so the result "
            f"is not meaningful; see what failed: agent-bt report {result.run_dir.name}"
        )


def show_estimate(found: Estimate, *, as_json: bool) -> None:
    """Print what a run, or an experiment, would cost.

    Args:
        found: the estimate.
        as_json: print it as JSON.
    """
    if as_json:
        print_json(found.to_dict())
        return
    cost = "unpriced" if found.cost_usd is None else f"{found.cost_usd:,.4f} USD"
    most = "unpriced" if found.cost_usd_most is None else f"{found.cost_usd_most:,.4f} USD"
    known = f"; {found.cached:,} requests need no call: in the cache, or asked before" if found.cached else ""
    typer.echo(f"decisions    {found.decisions:,}{known}")
    typer.echo(
        f"expected     {found.calls:,} calls, {found.prompt_tokens:,} + {found.completion_tokens:,} tokens, {cost}"
    )
    typer.echo(
        f"             each request once; length of replies: {found.completion_tokens_from}; prices: {found.prices}"
    )
    typer.echo(
        f"at most      {found.calls_most:,} calls, {found.prompt_tokens_most:,} + {found.completion_tokens_most:,} "
        f"tokens, {most}"
    )
    typer.echo(
        f"             with {found.retries} retries each, all prefetched calls that may go unused, test requests,"
    )
    typer.echo(
        "             a prompt token per byte, and replies of llm.max_tokens; a budget stops the run before that"
    )


def show(renderable: Any) -> None:
    """Print a rich table or text on stdout."""
    from rich.console import Console

    Console(file=sys.stdout).print(renderable)
