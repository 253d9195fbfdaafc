"""Files that appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from agent_bt.core.errors import DataError
from agent_bt.core.files import whole_file

TEMPORARY = ".tmp-"


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, so that a reader sees the old file or the new one, also after a power cut.

    Raises:
        DataError: no room, no permission, or another fault of the disk; `path` is as it was.
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
            f"{path}: cannot be written: {error.strerror or error}; make room, then run the same command again"
        ) from error


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left in `folder`."""
    for left in folder.glob(f"{TEMPORARY}*"):
        left.unlink(missing_ok=True)
