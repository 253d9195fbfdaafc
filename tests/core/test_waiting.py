"""Ctrl-C is heard while a reply is awaited, with Polars loaded."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future

import pytest

from agent_bt.core.waiting import result_of

PROGRAM = """
import os, signal, threading, time
from concurrent.futures import Future
import polars
from agent_bt.core.waiting import result_of
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
never = Future()
end = threading.Timer(20, lambda: never.set_result(None))
end.daemon = True
end.start()
try:
    result_of(never)
except KeyboardInterrupt:
    print("heard" if time.monotonic() - began < 10 else "late")
"""


def test_an_interrupt_is_heard_while_waiting() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "heard", done.stderr


def test_a_time_out_inside_the_future_is_its_result() -> None:
    future: Future[int] = Future()
    future.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        result_of(future)
