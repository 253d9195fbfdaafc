"""The manifest of a run: hashes, identity, versions of code and packages, platform."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import agent_bt
from agent_bt.core.canonical import tagged_hash
from agent_bt.core.rules_version import RULES_VERSION
from agent_bt.records.hashes import config_hash

MANIFEST_VERSION = 1

PACKAGES = (
    "agent-bt",
    "genai-prices",
    "httpx",
    "jinja2",
    "jsonschema",
    "numba",
    "numpy",
    "orjson",
    "polars",
    "pyarrow",
    "pydantic",
    "ta-lib",
)
"""Packages that a result may depend on; their versions are recorded."""


def start_manifest(
    *,
    run_id: str,
    name: str,
    started: str,
    identity: Mapping[str, Any],
    config_file: str | None = None,
    prompt: Mapping[str, Any] | None = None,
    llm: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the manifest of a new run; `status` is `running` until the run is finished.

    Args:
        run_id: name of the run folder.
        name: of the config.
        started: ISO 8601, UTC.
        identity: the part of the config that determines the result; plain data.
        config_file: the file that the config was read from, as it was named; used to find prompts next to it again.
        prompt: name/version, hash and text of the prompt, for an agent.
        llm: `requested` and `effective` (negotiated) model parameters, version of the price table.
    """
    return {
        "version": MANIFEST_VERSION,
        "rules": RULES_VERSION,
        "run_id": run_id,
        "name": name,
        "status": "running",
        "started": started,
        "identity": dict(identity),
        "hashes": {"config": config_hash(identity)},
        "config_file": config_file,
        "prompt": None if prompt is None else dict(prompt),
        "llm": None if llm is None else dict(llm),
        "code": code_hash(),
        "packages": dict(_versions()),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


@cache
def code_hash() -> str:
    """Hash the source text of this package: relative paths and contents."""
    root = Path(agent_bt.__file__).parent
    parts: list[bytes] = []
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        parts += [path.relative_to(root).as_posix().encode(), path.read_bytes()]
    return tagged_hash("agent-bt/code/v1", *parts)


@cache
def _versions() -> Mapping[str, str | None]:
    # Each takes a parser of mail headers through its metadata.
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions
