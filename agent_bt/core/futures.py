"""Futures that are done from the start, and waiting for one that is not so that Ctrl-C works at once."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.2


def completed(value: T) -> Future[T]:
    """Return a future that already holds `value`."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def failed(error: BaseException) -> Future[Any]:
    """Return a future that already holds an exception, raised by `result()`."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def result_of(future: Future[T]) -> T:
    """Return the result of a future, like `future.result()`, and notice a signal within a fifth of a second.

    With Polars loaded, a wait without a time-out goes on after SIGINT until it ends by itself.
    """
    while not future.done():
        try:
            return future.result(timeout=_POLL_S)
        except TimeoutError:
            continue
    return future.result()
