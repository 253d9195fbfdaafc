"""Files that are complete or absent: written under a temporary name, made durable, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_path(path: Path) -> Path:
    """Return the name under which `path` is written until it is complete: `.partial` added to its name."""
    return path.with_name(path.name + ".partial")


@contextmanager
def whole_file(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes `path` on success and is removed on failure.

    Args:
        path: the file to create or replace.
        temporary: the path to write to, in the same folder; default `temporary_path(path)`. Give a unique one where
            several processes may write the same file at the same time.

    Raises:
        OSError: the disk is full, or permission is missing; `path` is unchanged.
    """
    temporary = temporary_path(path) if temporary is None else temporary
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Make the file at `temporary` durable, then rename it to `path`; this also survives a power cut.

    Args:
        temporary: the complete file.
        path: its final name, in the same folder.

    Raises:
        OSError: the disk is full, or permission is missing; `path` is unchanged.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the file names in a folder durable, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
