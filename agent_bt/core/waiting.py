"""Waiting for a future so that Ctrl-C is heard at once."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.2


def result_of(future: Future[T]) -> T:
    """The result of a future, like `future.result()`, but a signal is noticed within a fifth of a second.

    With Polars loaded, a wait without a time-out goes on after SIGINT until it ends by itself.
    """
    while not future.done():
        try:
            return future.result(timeout=_POLL_S)
        except TimeoutError:
            continue
    return future.result()
