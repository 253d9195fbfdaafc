"""The server process: llama.cpp's own HTTP server on 127.0.0.1, for as long as the process that started it lives.

Started as `python -m agent_bt.llm.llama_cpp.server` with the settings as one line of JSON on its standard input. It
prints one line of JSON, `{"address": ...}` or `{"error": ...}`, and ends when its input is closed or its parent is
gone: however a run ends, even killed, no server is left behind. What llama.cpp logs goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, Final

HOST: Final = "127.0.0.1"
LOOK_EVERY_S: Final = 1.0
"""How often the process looks whether its parent is still there."""

_LOG_WARNINGS: Final = 2


def main() -> None:
    """Serve until the parent closes the input, or is gone."""
    parent = os.getppid()
    # llama.cpp writes to standard output too: the answer goes out on a copy of it, everything else to the log.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    try:
        server, address = _serve(settings)
    except Exception as error:
        _print(answer, {"error": f"{type(error).__name__}: {error}"})
        sys.stdout.flush()
        os._exit(1)
    _print(answer, {"address": address})
    while sys.stdin.read(1 << 16):
        pass
    del server
    os._exit(0)


def _print(answer: Any, line: dict[str, str]) -> None:
    answer.write(json.dumps(line) + "\n")
    answer.flush()


def _follow(parent: int) -> None:
    """End with the parent: a copy of its end of the pipe, in a process that it forked, would keep the input open."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(0)


def _serve(settings: dict[str, Any]) -> tuple[Any, str]:
    """Start the server; returns it with its address.

    One slot without a cache of prompts: the same request has the same answer, whatever was asked before or beside it.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = settings["name"]
    params.n_ctx = settings["context"]
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = settings["threads"]
    params.hostnames = [HOST]
    params.port = settings["port"]
    params.n_parallel = 1
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    # Nothing but completions: no web page, no page of another site that asks, no view of the prompts, no download.
    params.cors_origins = f"http://{HOST}"
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.offline = True
    params.verbosity = _LOG_WARNINGS
    server = xllamacpp.Server(params)
    return server, str(server.listening_address)


if __name__ == "__main__":
    main()
