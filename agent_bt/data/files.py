"""Write files atomically: temporary name, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from agent_bt.core.errors import DataError
from agent_bt.core.files import whole_file

TEMPORARY = ".tmp-"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, also after a power failure.

    Args:
        path: the file; its folder is created if it does not exist.
        content: the new content.

    Raises:
        DataError: the disk is full, permission is missing, or the disk fails; `path` is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        with whole_file(path, Path(name)) as temporary:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            temporary.chmod(0o644)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}; free disk space, then run the same command again"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes from `folder`."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)
