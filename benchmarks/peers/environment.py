"""The environments the peers run in: virtual ones of their own, never the project's.

`.venv-peers/common` and `.venv-peers/nautilus` in the checkout, one per requirements file here; AGENT_BT_PEERS names
another folder than `.venv-peers`.

    python -m benchmarks.peers.environment              make or renew all of them
    python -m benchmarks.peers.environment common       one of them
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("common", "nautilus")


class PeersMissing(RuntimeError):
    """A peer's environment is not there or cannot be made; the message says why and what to do."""


def folder(name: str) -> Path:
    """Where the environment lies or will lie."""
    return Path(os.environ.get("AGENT_BT_PEERS", HERE.parents[1] / ".venv-peers")) / name


def find(name: str = "common") -> Path:
    """The Python of an environment that stands, as its requirements file wants it; nothing is installed.

    Raises:
        PeersMissing: it is not there, or older than its requirements.
    """
    where = folder(name)
    mark = where / "requirements.sha256"
    if not mark.is_file() or mark.read_text() != _digest(name):
        raise PeersMissing(f"no peers at {where}; run: python -m benchmarks.peers.environment {name}")
    return where / "bin" / "python"


def ensure(name: str = "common") -> Path:
    """The Python of an environment, which is made and filled from the package registry if it has to be.

    Raises:
        PeersMissing: it could not be installed; the message ends with what pip said.
    """
    try:
        return find(name)
    except PeersMissing:
        where = folder(name)
    print(f"installing the peers of requirements-{name}.txt into {where}; once, a minute or two", file=sys.stderr)
    venv.create(where, clear=True, with_pip=True)
    python = where / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--requirement", HERE / f"requirements-{name}.txt"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")] or [done.stdout.strip()]
        raise PeersMissing(f"pip could not install requirements-{name}.txt: {errors[-1]}")
    (where / "requirements.sha256").write_text(_digest(name))
    return python


def _digest(name: str) -> str:
    return hashlib.sha256((HERE / f"requirements-{name}.txt").read_bytes()).hexdigest()


def main() -> int:
    """Make what the command line names; the exit code is 1 if one of them could not be made."""
    failed = 0
    for name in sys.argv[1:] or NAMES:
        try:
            print(ensure(name))
        except PeersMissing as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
