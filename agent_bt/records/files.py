"""Files that appear whole: written under a temporary name, made durable, then renamed into place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_bt.core import files as core_files
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
    core_files.publish(temporary_of(path), path)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that it is there complete or not at all.

    Raises:
        RecordError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def unwritable(path: Path, error: OSError) -> RecordError:
    """The error for a file that could not be written, with what to do about it."""
    return RecordError(
        f"{path} cannot be written: {error.strerror or error}; what was recorded before is intact. "
        "Make room or choose another `output`, then run the same command again to continue"
    )
