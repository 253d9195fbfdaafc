"""The command line: exit codes, messages on stderr, results on stdout, and a quick start."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from agent_bt import __version__
from agent_bt.backtest import run as run_module
from agent_bt.cli import main as cli
from agent_bt.cli.lazy import GROUPS, ORDER
from agent_bt.core import errors

HEAVY = {"numpy", "polars", "numba", "talib", "openai", "httpx", "pydantic", "pyarrow", "plotly", "yaml", "jinja2"}

CODES = {
    errors.AgentBtError: 1,
    errors.UsageError: 2,
    errors.ConfigError: 2,
    errors.PromptError: 2,
    errors.MissingData: 1,
    errors.AuthenticationFailed: 1,
    errors.RecordError: 1,
    errors.QualityGate: 3,
    errors.BudgetReached: 4,
    errors.ReplayError: 5,
    errors.Interrupted: 130,
}


def agent_bt(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    command = [sys.executable, "-m", "agent_bt", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_BT_")}
    clean["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(
        command, cwd=cwd, env=clean | env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def ended_with(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str]:
    """Return exit code and stderr of `agent-bt run` when running raises `error`."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(run_module, "run_config", fail)
    config = Path(__file__).parents[2] / "configs" / "backtest.yaml"
    monkeypatch.setattr(sys, "argv", ["agent-bt", "run", str(config), "--progress", "none", *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.err


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_every_error_has_its_exit_code_and_message(
    kind: type[errors.AgentBtError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = ended_with(kind("what happened; what to do"), monkeypatch, capsys)
    assert code == CODES[kind]
    assert "what happened; what to do" in text
    assert "Traceback" not in text


def test_the_tree_in_the_docstring_has_the_exit_codes() -> None:
    written = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("|", " ").replace("`--", " ").replace("--", " ").split()
        if len(words) > 2 and words[1].isdigit():
            written[words[0]] = int(words[1])
    classes = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.AgentBtError)
    }
    assert written == classes


def test_a_full_disk_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = ended_with(OSError(errno.ENOSPC, "No space left on device", "runs/x"), monkeypatch, capsys)
    assert code == 1
    assert "no space left" in text
    assert "runs/x" in text


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended_with(KeyboardInterrupt(), monkeypatch, capsys)[0] == 130


def test_an_unexpected_error_shows_its_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AGENT_BT_DEBUG", raising=False)
    monkeypatch.setitem(cli.common._state, "verbose", False)
    code, text = ended_with(ZeroDivisionError("oops"), monkeypatch, capsys)
    assert (code, "Traceback" in text, "ZeroDivisionError: oops" in text) == (1, False, True)
    assert "Traceback" in ended_with(ZeroDivisionError("oops"), monkeypatch, capsys, "-v")[1]
    monkeypatch.setitem(cli.common._state, "verbose", False)
    monkeypatch.setenv("AGENT_BT_DEBUG", "1")
    assert "Traceback" in ended_with(ZeroDivisionError("oops"), monkeypatch, capsys)[1]


def test_no_key_of_the_environment_is_ever_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret-key")
    monkeypatch.setenv("AGENT_BT_DEBUG", "1")
    for error in (RuntimeError("sent very-secret-key"), errors.ModelError("refused: very-secret-key")):
        text = ended_with(error, monkeypatch, capsys)[1]
        assert "very-secret-key" not in text
        assert "$SOME_API_KEY" in text


def test_a_wrong_command_line_or_config_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("llm:\n  provder: x\n")
    for arguments, part in (
        (["runn"], "No such command"),
        (["run"], "CONFIG"),
        (["run", "c.yaml", "--limit", "0"], "--limit"),
        (["run", "c.yaml", "--progress", "loud"], "--progress"),
        (["run", "missing.yaml"], "no config file missing.yaml"),
        (["run", "c.yaml"], "c.yaml, line 2: llm.provder"),
        (["validate", "c.yaml"], "did you mean llm.provider?"),
        (["run", "c.yaml", "--set", "x"], "dotted.path=value"),
    ):
        done = agent_bt(*arguments, cwd=tmp_path)
        assert done.returncode == 2, (arguments, done.stderr)
        assert part in done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_a_wrong_environment_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    done = agent_bt("validate", "c.yaml", cwd=tmp_path, AGENT_BT_LLM_MODEL="x")
    assert done.returncode == 2
    assert "did you mean AGENT_BT_LLM__MODEL?" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['agent-bt', '--help']\n"
        "from agent_bt.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert HEAVY & set(done.stderr.split()) == set()


def test_every_command_has_help() -> None:
    runner = CliRunner()
    listing = runner.invoke(cli.app, ["--help"]).output
    for name in ("run", "validate", "init", "doctor", "schema", "test", "version", "report"):
        assert name in listing
        assert runner.invoke(cli.app, [name, "--help"]).exit_code == 0


def test_every_command_has_a_place_in_the_order_of_help() -> None:
    group = typer.main.get_command(cli.app)
    listed = group.list_commands(group.make_context("agent-bt", ["version"]))
    assert set(listed) <= set(ORDER)
    assert listed == [name for name in ORDER if name in listed]


def test_every_group_is_listed_with_its_own_help() -> None:
    modules = [path.stem for path in Path(cli.__file__).parent.glob("*.py") if path.stem not in ("main", "__init__")]
    groups = {name: getattr(import_module(f"agent_bt.cli.{name}"), "app", None) for name in modules}
    assert {name: group.info.help for name, group in groups.items() if group is not None} == GROUPS


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_is_loaded_on_first_use(name: str) -> None:
    module = import_module(f"agent_bt.cli.{name}")
    help_text = CliRunner().invoke(cli.app, [name, "--help"]).output
    commands = [info.name or (info.callback and info.callback.__name__) for info in module.app.registered_commands]
    assert commands
    for command in commands:
        assert str(command) in help_text
        assert CliRunner().invoke(cli.app, [name, str(command), "--help"]).exit_code == 0


def test_the_version_is_printed_both_ways() -> None:
    runner = CliRunner()
    for arguments in (["version"], ["--version"]):
        assert runner.invoke(cli.app, arguments).output == f"agent-bt {__version__}\n"


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m agent_bt schema | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=Path(__file__).parents[2], capture_output=True, check=True)
    assert done.stdout == b"{"
    assert done.stderr == b""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_names_the_commands(shell: str, tmp_path: Path) -> None:
    words = {"COMP_WORDS": "agent-bt v", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "agent-bt v"}
    code = "import sys; sys.argv[0] = 'agent-bt'\nfrom agent_bt.cli.main import main\nmain()"
    env = os.environ | words | {"_AGENT_BT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "validate" in done.stdout
    assert "version" in done.stdout


def test_shell_completion_reaches_into_a_group() -> None:
    words = {"COMP_WORDS": "agent-bt data b", "COMP_CWORD": "2", "_AGENT_BT_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv[0] = 'agent-bt'\nfrom agent_bt.cli.main import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["backfill"]
