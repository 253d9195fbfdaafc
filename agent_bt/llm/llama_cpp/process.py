"""Starts llama.cpp's server in a process of its own, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from agent_bt.config.secrets import names_secret
from agent_bt.core.errors import ConfigError, EndpointDown
from agent_bt.llm.llama_cpp.server import HOST

STOP_TIMEOUT_S: Final = 5.0
_LOG_END: Final = 20_000
_SHOWN_ERRORS: Final = 3
_ERROR_LINE: Final = re.compile(r"^[\d.]+ E (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the server is started with.

    Attributes:
        model: path of the GGUF file.
        name: what the model is called in its answers.
        context: most tokens of a prompt and its reply together.
        threads: threads that compute.
        port: on 127.0.0.1; 0: any that is free.
    """

    model: str
    name: str
    context: int
    threads: int
    port: int = 0


def usable_threads() -> int:
    """Return one thread for each core but one: threads that wait for a core that is busy slow down all the others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def check_installed() -> None:
    """Check that llama.cpp is installed.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("xllamacpp") is None:
        raise ConfigError(
            "llm.provider llama_cpp needs llama.cpp, which the extra `local` installs: pip install 'agent-bt[local]' "
            "(or: pip install xllamacpp)"
        )


class LlamaServer:
    """A running server; it ends with `stop`, and at the latest with this process.

    Args:
        settings: what it is started with.

    Raises:
        ConfigError: llama.cpp is not installed, or the port is in use.
        EndpointDown: the server did not start; the message has what it said.
    """

    def __init__(self, settings: ServerSettings) -> None:
        check_installed()
        _check_port(settings.port)
        self._settings = settings
        self._stopping = threading.Lock()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        # A session of its own: the Ctrl-C that stops the run does not stop the server before the run has ended.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent_bt.llm.llama_cpp.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            env=_environment(),
        )
        try:
            self.address = self._start()
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"LlamaServer(name={self._settings.name!r}, address={self.address!r}, pid={self._process.pid})"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def death(self, within_s: float = 0.0) -> str | None:
        """Return how the server ended and what it said last; None while it runs.

        Args:
            within_s: how long to wait for its end, in seconds.
        """
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        said = self._said()
        return f"{how}{f': {said}' if said else ''}"

    def stop(self) -> None:
        """End the server and wait until it is gone; idempotent."""
        with self._stopping:
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._log.close()

    def _start(self) -> str:
        """Send the settings and wait for the address: a large model takes its time to load."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with contextlib.suppress(OSError):  # a process that is gone says why below
            stdin.write(json.dumps(asdict(self._settings)).encode() + b"\n")
            stdin.flush()
        line = stdout.readline()
        answer = json.loads(line) if line else {"error": "it ended before it could answer"}
        if "address" in answer:
            return str(answer["address"])
        self._process.wait()
        said = self._said() or answer["error"]
        raise EndpointDown(
            f"the server for {self._settings.model} did not start ({self.death() if not line else said}); check that "
            "llama.cpp knows this kind of model, and that the memory is enough"
        )

    def _said(self) -> str:
        """Return the last errors of the server's log, shortest form."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), _LOG_END, max(0, size - _LOG_END)).decode(errors="replace")
        found = _ERROR_LINE.findall(text) or [line for line in text.splitlines() if line.strip()]
        return "; ".join(" ".join(line.split()) for line in found[-_SHOWN_ERRORS:])


def _check_port(port: int) -> None:
    if not port:
        return
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"llm.server.port: {port} on {HOST} cannot be used ({error.strerror}); set 0 for any free port, or end "
                "what uses it"
            ) from None


def _environment() -> dict[str, str]:
    """Return the environment of the server: without keys, and with the path that this package was imported from."""
    package = str(Path(__file__).resolve().parents[3])
    given = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not names_secret(name)}
    return {**kept, "PYTHONPATH": os.pathsep.join([package, given] if given else [package])}
