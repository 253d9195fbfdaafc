"""How a file gets its name only when it is complete and durable; every room that writes files does it so."""

from __future__ import annotations

import os
from pathlib import Path


def publish(temporary: Path, path: Path) -> None:
    """Make what was written at `temporary` durable, then give it the name `path`, also in the face of a power cut.

    Raises:
        OSError: the disk is full, or permission is missing; `path` is as it was.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
