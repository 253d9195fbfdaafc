"""Retry failed calls, after an exponential wait with jitter, or as long as the server asks."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from agent_bt.core.types import Reply

logger = logging.getLogger(__name__)

MAX_WAIT_S = 60.0
"""Longest wait before one attempt; a server that asks for more is asked again after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a call.

    Attributes:
        reply: what came back; `failure` is set where the attempt failed.
        retry_after_s: how long the server asked to wait, in seconds; None: it did not ask.
    """

    reply: Reply
    retry_after_s: float | None = None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `Retry-After` ask to wait (RFC 9110, section 10.2.3).

    Args:
        headers: of the response; lookups must ignore the case of names.

    Returns:
        Seconds; None: nothing was asked, or it cannot be read.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait_s = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if 0 <= wait_s < float("inf"):
            return wait_s
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def retrying(*, retries: int, backoff_s: float) -> AsyncRetrying:
    """Return a caller that repeats an async function returning an `Attempt` until it does not fail.

    The last attempt is returned, failed or not. Before attempt n + 1 it waits a random time between one half of
    `backoff_s` x 2^(n-1) and all of it, or what the server asked for and up to a tenth more, so that waiting callers
    do not return all at once; never more than `MAX_WAIT_S`.

    Args:
        retries: attempts after the first.
        backoff_s: scale of the wait, in seconds.
    """

    def wait(state: RetryCallState) -> float:
        asked_s = _attempt(state).retry_after_s
        if asked_s is not None:
            return min(asked_s * random.uniform(1.0, 1.1), MAX_WAIT_S)
        return min(backoff_s * 2.0 ** (state.attempt_number - 1), MAX_WAIT_S) * random.uniform(0.5, 1.0)

    return AsyncRetrying(
        retry=retry_if_result(lambda attempt: attempt.reply.failure is not None),
        stop=stop_after_attempt(1 + retries),
        wait=wait,
        before_sleep=_log_retry,
        retry_error_callback=_attempt,
    )


def _log_retry(state: RetryCallState) -> None:
    reply, pause_s = _attempt(state).reply, state.upcoming_sleep
    logger.info(
        "attempt %d failed (%s: %s); the next in %.2f s", state.attempt_number, reply.failure, reply.error, pause_s
    )


def _attempt(state: RetryCallState) -> Attempt:
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt
