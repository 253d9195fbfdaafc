"""Stands in for llama.cpp in tests: the same few names, and answers that the model file lists.

A model file is `GGUF` and a JSON object: `replies` (texts, used in turn), `fails` (what the log says instead of a
start), `dies_after` (calls until the process kills itself), `context` (characters of a prompt that fit).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class CommonParams:
    """Takes any setting."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(path="")
        self.cpuparams = SimpleNamespace(n_threads=0)
        self.cpuparams_batch = SimpleNamespace(n_threads=0)
        self.hostnames = ["0.0.0.0"]
        self.port = 0
        self.n_parallel = 4
        self.cache_prompt = True


class Server:
    """Serves completions, and what it was started with at `/started`."""

    def __init__(self, params: Any) -> None:
        script = json.loads(Path(params.model.path).read_bytes()[4:])
        if "fails" in script:
            sys.stderr.write(f"0.00.000.001 W quiet\n0.00.000.002 E load: {script['fails']}\n")
            raise RuntimeError("Failed to init server, please check the input params.")
        started = {
            "pid": os.getpid(),
            "threads": [params.cpuparams.n_threads, params.cpuparams_batch.n_threads],
            "secrets": sorted(name for name in os.environ if name.endswith("API_KEY")),
            **{name: getattr(params, name) for name in ("n_ctx", "n_parallel", "cache_prompt", "model_alias", "ui")},
        }
        http = ThreadingHTTPServer((params.hostnames[0], params.port), _Handler)
        http.daemon_threads = True
        http.script, http.started, http.calls = script, started, []  # type: ignore[attr-defined]
        threading.Thread(target=http.serve_forever, daemon=True).start()
        self.listening_address = f"http://{params.hostnames[0]}:{http.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self._send(200, {**self.server.started, "calls": len(self.server.calls)})  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script, calls = self.server.script, self.server.calls  # type: ignore[attr-defined]
        calls.append(body)
        if len(calls) > script.get("dies_after", len(calls)):
            sys.stderr.write("0.00.000.003 E ggml: out of memory\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if len(json.dumps(body["messages"])) > script.get("context", 1_000_000):
            message = "request (9 tokens) exceeds the available context size (4 tokens), try increasing it"
            return self._send(400, {"error": {"code": 400, "message": message, "type": "exceed_context_size_error"}})
        replies = script.get("replies", ['{"action": "HOLD", "size_pct": 0.5, "note": "fake"}'])
        text = replies[(len(calls) - 1) % len(replies)]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        return self._send(200, {"object": "chat.completion", "choices": [choice], "usage": usage, "model": "fake"})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
