"""A run folder replays identically under another supported Python, in an environment that was made for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import ChatServer, stand_in_answer
from small_run import agent_bt, cli, small_config

ROOT = Path(__file__).parents[2]
SUPPORTED = ("3.11", "3.12", "3.13")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def other_python(version: str) -> str | None:
    """An interpreter of this version: on the path, or among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        told = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if told.returncode == 0 and re.match(rf"Python {re.escape(version)}\.", told.stdout):
            return candidate
    return None


@pytest.mark.verify
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", [version for version in SUPPORTED if version != HERE])
def test_a_run_replays_identically_under_another_python(tmp_path: Path, version: str) -> None:
    interpreter = other_python(version)
    if interpreter is None:
        pytest.skip(f"there is no Python {version} on this machine")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([interpreter, "-m", "venv", tmp_path / "venv"], check=True, capture_output=True)
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", str(ROOT)], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"the package cannot be installed for Python {version}: {installed.stderr.strip()[-300:]}")

    made = tmp_path / "made"
    made.mkdir()
    with ChatServer(stand_in_answer(eagerness=0.7)) as server:
        assert cli("run", small_config(made, server.url, risk__stop_loss=0.01), "-q").code == 0
    (run,) = made.glob("runs/2*")
    elsewhere = tmp_path / "elsewhere" / run.name
    shutil.copytree(run, elsewhere)
    shutil.rmtree(made)
    # From a folder that is no checkout, and without one on the path: the installed package answers.
    told = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith(f"Python {version}.")
    done = agent_bt("replay", elsewhere, "--json", "-q", cwd=tmp_path, python=str(python), PYTHONPATH="")
    assert done.code == 0, done.err
    assert done.json["identical"]
