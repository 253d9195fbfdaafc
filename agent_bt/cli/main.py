"""The command `agent-bt`: its commands, and the conversion of errors to messages and exit codes."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent_bt import __version__
from agent_bt.cli import backtest, check, common, doctor, init, resume_replay, runs, schema
from agent_bt.cli.lazy import LazyGroup
from agent_bt.cli.logs import logging_to_stderr, without_keys
from agent_bt.core.errors import AgentBtError, UsageError

if TYPE_CHECKING:
    from agent_bt.config.model import Config

app = typer.Typer(
    name="agent-bt",
    cls=LazyGroup,
    help="Backtest the decisions of LLM agents.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad usage or config, 3 too many failed decisions, 4 budget reached, "
    "5 replay miss or divergence, 130 interrupted. After 4 and 130 the same command continues the run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"agent-bt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def version() -> None:
    """Show the version."""
    _show_version(True)


@app.command()
def run(
    config: common.ConfigArgument,
    overrides: common.SetOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N decisions.", show_default=False)
    ] = None,
    as_json: common.JsonOption = False,
    progress: common.ProgressOption = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a new run; do not continue an unfinished one.")] = False,
    offline: common.OfflineOption = False,
    dry_run: common.DryRunOption = False,
    report: common.ReportOption = True,
    quiet: common.QuietOption = False,
    verbose: common.VerboseOption = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Run a backtest; the same command continues an unfinished run."""
    from agent_bt.config.load import load_config

    # Before slow imports, so that an invalid config is reported at once.
    settings = load_config(config, overrides or ())
    if dry_run:
        _estimate(settings, config, limit, as_json=as_json)
        return
    from agent_bt.backtest.run import run_config
    from agent_bt.cli.progress import make_progress

    result = run_config(
        settings,
        config_path=config,
        limit=limit,
        progress=make_progress("none" if quiet else progress),
        fresh=fresh,
        offline=offline,
        report=report,
    )
    common.show_result(result, as_json=as_json, quiet=quiet)


def _estimate(settings: Config, path: Path, limit: int | None, *, as_json: bool) -> None:
    from agent_bt.backtest.estimate import estimate

    common.show_estimate(estimate(settings, config_path=path, limit=limit), as_json=as_json)


@app.command()
def validate(
    config: common.ConfigArgument,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Check a config, its prompt and its data without running anything."""
    from agent_bt.config.load import load_config

    settings = load_config(config, overrides or ())
    from agent_bt.backtest.preview import validate

    common.show_findings(validate(settings, config), as_json=as_json)


@app.command("report")
def write_report(
    run: runs.RunArgument = "latest",
    root: runs.RootOption = None,
    single_file: common.SingleFileOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write; default: report.html in the run folder.", show_default=False
        ),
    ] = None,
) -> None:
    """Write the HTML report of a run."""
    from agent_bt.records.read import resolve_run
    from agent_bt.reports import html

    typer.echo(html.write_report(resolve_run(runs.find_root(root), run), single_file=single_file, out=output))


@app.command()
def test(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments for pytest, after `--`.", show_default=False)
    ] = None,
) -> None:
    """Run the test suite of a checkout."""
    import subprocess
    from importlib.util import find_spec

    root = Path(__file__).parents[2]
    if not (root / "tests" / "conftest.py").is_file():
        raise UsageError("an installed package has no tests; run this in a checkout of the source code")
    if find_spec("pytest") is None:
        raise UsageError("pytest is not installed; run `make test`, or `pip install --group dev` in the checkout")
    command = [sys.executable, "-m", "pytest", "-m", "not verify", *(arguments or ())]
    raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)


app.command("backtest", context_settings=backtest.SETTINGS)(backtest.backtest)
app.command("resume")(resume_replay.resume)
app.command("replay")(resume_replay.replay)
app.command("compare")(check.compare)
app.command("audit")(check.audit)
app.command("leakcheck")(check.leakcheck)
app.command("doctor")(doctor.doctor)
app.command("init")(init.init)
app.command("schema")(schema.schema)


def main() -> None:
    """Run a command, and convert every error to a message on stderr and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with logging_to_stderr():
            app()
    except AgentBtError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(
                f"no space left on the disk ({error.filename or 'while writing'}); free some space, then run it again",
                1,
            )
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)
    except Exception as error:  # whatever else it is, the user gets a message, not a traceback
        _fail(f"unexpected {type(error).__name__}: {error}", 1)
    except BaseException as error:
        # Polars converts a Ctrl-C inside it into a panic that quotes it.
        if "KeyboardInterrupt" not in str(error):
            raise
        _fail("interrupted", 130)


def _fail(message: str, code: int) -> None:
    if common.verbose():
        common.print_message(without_keys(traceback.format_exc()))
    common.show_error(without_keys(message))
    if message.startswith("unexpected ") and not common.verbose():
        common.print_message(f"       this is a bug; set {common.DEBUG_VARIABLE}=1 to see where it happened")
    sys.exit(code)
