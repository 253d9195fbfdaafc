"""Files that appear whole: written under a temporary name, made durable, then renamed into place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_bt.core.errors import RecordError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it becomes `path`, on failure it disappears.

    Raises:
        RecordError: the file cannot be written (disk full, no permission).
    """
    temporary = temporary_of(path)
    try:
        yield temporary
        publish(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """The name under which `path` is written until it is complete."""
    return path.with_name(path.name + ".partial")


def publish(path: Path) -> None:
    """Make what was written under the temporary name durable, then give it its own name; raises `OSError`."""
    temporary = temporary_of(path)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that it is there complete or not at all.

    Raises:
        RecordError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def unwritable(path: Path, error: OSError) -> RecordError:
    """The error for a file that could not be written, with what to do about it."""
    return RecordError(
        f"{path} cannot be written: {error.strerror or error}; what was recorded before is intact. "
        "Make room or choose another `output`, then run the same command again to continue"
    )
