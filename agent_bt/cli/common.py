"""What commands share: their common options, and how they speak: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from agent_bt.backtest.run import Result

from agent_bt.core.finding import Finding

DEBUG_VARIABLE = "AGENT_BT_DEBUG"

_state = {"verbose": False}


def _set_verbose(value: bool) -> bool:
    if value:
        _state["verbose"] = True
    return value


ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The config file (YAML).", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Set one value of the config; repeatable.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
ProgressOption = Annotated[
    Literal["auto", "plain", "none"], typer.Option(help="Progress on stderr: live, plain lines, or none.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table; errors only.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="More on stderr; tracebacks of errors.", callback=_set_verbose)
]


def verbose() -> bool:
    """Whether tracebacks are wanted: `-v`, or AGENT_BT_DEBUG set to anything but 0."""
    return _state["verbose"] or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def print_json(data: Any) -> None:
    """One JSON object on stdout; numbers JSON does not have become null."""
    import orjson

    typer.echo(orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY).decode())


def print_message(text: str) -> None:
    """A line for the reader, on stderr."""
    typer.echo(text, err=True)


def show_error(message: str) -> None:
    """An error on stderr: coloured on a terminal, plain elsewhere."""
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(message.replace("\n", "\n       "), err=True)


def show_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """What a check found, each with its level (`error`, `warning`, `ok`) and what to do; exit code 2 with an error."""
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
    """What came out of a run, then the way out: the error that ended it early, the quality gate, or nothing.

    Raises:
        AgentBtError: the run did not end well.
    """
    from agent_bt.core.errors import QualityGate

    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        from agent_bt.reports.terminal import render

        show(render(result.summary))
        made = result.run_dir / "report.html"
        print_message(f"\n{made if made.exists() else result.run_dir}")
    if result.error is not None:
        raise result.error
    if result.status == "failed":
        counts = result.summary["decisions"]
        failed = counts["total"] - counts["model"]
        raise QualityGate(
            f"{failed:,} of {counts['total']:,} decisions failed, above risk.max_failed_share, so the result "
            f"means nothing; see what went wrong: agent-bt report {result.run_dir.name}"
        )


def show(renderable: Any) -> None:
    """A rich table or text on stdout."""
    from rich.console import Console

    Console(file=sys.stdout).print(renderable)
