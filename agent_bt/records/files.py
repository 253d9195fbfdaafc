"""Complete files (`core.files`) for run folders: what cannot be written is a `RecordError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_bt.core import files
from agent_bt.core.errors import RecordError


@contextmanager
def whole_file(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to, as `core.files.whole_file` does.

    Args:
        path: the file to create or replace.
        temporary: the path to write to; default: `path` with `.partial` added to its name.

    Raises:
        RecordError: the file cannot be written (disk full, no permission).
    """
    try:
        with files.whole_file(path, temporary) as written:
            yield written
    except OSError as error:
        raise unwritable(path, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`; the file is complete or unchanged.

    Args:
        path: the file to create or replace.
        data: its whole content.

    Raises:
        RecordError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def unwritable(path: Path, error: OSError) -> RecordError:
    """Return the error for a file that could not be written, with advice.

    Args:
        path: the file.
        error: what the system reported.
    """
    return RecordError(
        f"{path} cannot be written: {error.strerror or error}; what was recorded before is intact. "
        "Free disk space or choose another `output`, then run the same command again to continue"
    )
