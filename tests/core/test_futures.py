"""Ctrl-C interrupts the wait for a reply, with Polars loaded; completed and failed futures."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future

import pytest

from agent_bt.core.futures import completed, failed, result_of

PROGRAM = """
import os, signal, threading, time
from concurrent.futures import Future
import polars
from agent_bt.core.futures import result_of
class Never(Future):
    waited_for = threading.Event()
    def result(self, timeout=None):
        self.waited_for.set()
        return super().result(timeout)
def interrupt():
    Never.waited_for.wait()
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
try:
    threading.Thread(target=interrupt).start()
    result_of(Never())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_ends_the_wait() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "interrupted", done.stderr


def test_a_time_out_inside_the_future_is_its_result() -> None:
    future: Future[int] = Future()
    future.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        result_of(future)


def test_a_completed_future_has_its_value_and_a_failed_one_its_exception() -> None:
    assert result_of(completed("reply")) == "reply"
    assert completed(None).done()
    with pytest.raises(KeyError, match="lost"):
        result_of(failed(KeyError("lost")))
