"""The lock of a prompts folder: `lock.json` holds the SHA-256 of versions whose text must not change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from agent_bt.core.errors import PromptError
from agent_bt.core.files import whole_file

LOCK = "lock.json"

_HASH = re.compile(r"[0-9a-f]{64}")


def read_lock(root: Path) -> dict[str, str]:
    """Return `name/version` -> SHA-256 of every locked version of a folder; empty if nothing is locked.

    Raises:
        PromptError: the lock cannot be read, or was damaged.
    """
    path = root / LOCK
    try:
        data = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise PromptError(f"{path} cannot be read: {error}; restore it, or remove it and lock again") from error
    if not _is_lock(data):
        raise PromptError(f"{path} is not a lock (name/version: sha256); restore it, or remove it and lock again")
    return dict(data)


def write_lock(root: Path, entries: Mapping[str, str]) -> Path:
    """Write the whole lock of a folder, sorted; return its file, which appears complete or not at all.

    Args:
        root: the prompts folder.
        entries: `name/version` -> SHA-256.

    Raises:
        PromptError: it cannot be written.
    """
    path = root / LOCK
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(orjson.dumps(dict(entries), option=options))
    except OSError as error:
        raise PromptError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def check_lock(path: Path, text_hash: str) -> None:
    """Compare a prompt file, `<root>/<name>/<version>.prompty`, with the lock of its root.

    Args:
        path: the file.
        text_hash: SHA-256 of its text, hexadecimal.

    Raises:
        PromptError: the version is locked and its text has changed; names the next free version.
    """
    folder = path.absolute().parent
    locked = read_lock(folder.parent).get(f"{folder.name}/{path.stem}")
    if locked is not None and locked != text_hash:
        free = path.with_stem(next_version(folder))
        raise PromptError(
            f"{path} is locked, and its text has changed since; make a new version: save the changed text as {free} "
            f"({folder.name}/{free.stem}), and restore {path.name}"
        )


def next_version(folder: Path) -> str:
    """Return the first of v1, v2, ... after all that the folder holds and its lock names."""
    locked = (key.partition("/") for key in read_lock(folder.parent))
    names = {path.stem for path in folder.iterdir()} | {version for name, _, version in locked if name == folder.name}
    numbers = [int(found[1]) for found in (re.match(r"v(\d+)", name) for name in names) if found]
    return f"v{max(numbers, default=0) + 1}"


def _is_lock(data: Any) -> bool:
    return isinstance(data, dict) and all(isinstance(text, str) and _HASH.fullmatch(text) for text in data.values())
