"""The log of a command, on stderr, from the level in AGENT_BT_LOG."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from agent_bt.core.errors import UsageError

LOG_VARIABLE = "AGENT_BT_LOG"
LEVELS = ("debug", "info", "warning", "error")


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write the log of a block to stderr; warnings alone, in their words, if AGENT_BT_LOG is not set.

    Raises:
        UsageError: AGENT_BT_LOG is not a level.
    """
    level = os.environ.get(LOG_VARIABLE, "").strip().lower()
    if level and level not in LEVELS:
        raise UsageError(f"{LOG_VARIABLE} must be one of {', '.join(LEVELS)}, got {level!r}")
    logger, handler = logging.getLogger("agent_bt"), logging.StreamHandler(sys.stderr)
    form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s" if level else "warning: %(message)s"
    handler.setFormatter(_KeylessFormatter(form))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level.upper() or logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def without_keys(text: str) -> str:
    """Replace the values of environment variables that hold keys: a message may quote a request."""
    for name, value in os.environ.items():
        if name.upper().endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")) and len(value) >= 8:
            text = text.replace(value, f"${name}")
    return text


class _KeylessFormatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Format the time, UTC."""
        return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        """Format the line, without keys."""
        return without_keys(super().format(record))
