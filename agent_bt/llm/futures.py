"""Futures between the layers of an LLM: a wrapper's future can be cancelled only while the call was not sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from agent_bt.core.types import Reply


class LinkedFuture(Future[Reply]):
    """A future in front of another layer's; `cancel` succeeds only where it still prevents the call."""

    def __init__(self) -> None:
        super().__init__()
        self._link = threading.RLock()
        self._inner: Future[Reply] | None = None

    def attach(self, send: Callable[[], Future[Reply]]) -> Future[Reply] | None:
        """Send the call and return its future; None where this future was cancelled before."""
        with self._link:
            if self.cancelled():
                return None
            self._inner = send()
            return self._inner

    def cancel(self) -> bool:
        """Cancel the call; return False where it has been sent or answered."""
        with self._link:
            if self._inner is not None and not self._inner.cancel():
                return False
            return super().cancel()


def resolve(future: Future[Reply], outcome: Reply | BaseException) -> bool:
    """Set the outcome of a future; return False where it was cancelled.

    Args:
        future: not done yet.
        outcome: the reply, or the exception of the call.
    """
    if not future.set_running_or_notify_cancel():
        return False
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return True


def outcome_of(future: Future[Reply]) -> Reply | BaseException:
    """Return the reply or the exception of a future that is done and was not cancelled."""
    return future.exception() or future.result()
