"""Canonical JSON and tagged SHA-256: equal content has equal bytes, and so equal hashes, on any machine.

Canonical JSON is UTF-8, keys sorted, no white space, floats in their shortest round-trip form, non-finite
floats as null. A tag in front keeps hashes of different kinds of content apart.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_SERIALIZE_NUMPY


def canonical(value: Any) -> bytes:
    """Encode plain data as canonical JSON: dict with text keys, list, numpy array, str, int, float, bool, None.

    Raises:
        TypeError: the value holds a type that JSON does not have.
    """
    return orjson.dumps(value, option=_OPTIONS)


def tagged_hash(tag: str, *parts: bytes) -> str:
    """Hash a tag and parts with SHA-256, each preceded by its length, so that no two ways to split them agree.

    Args:
        tag: kind of the content, such as `agent-bt/request/v1`.
        parts: the content.

    Returns:
        The hash in hexadecimal.
    """
    digest = hashlib.sha256()
    for part in (tag.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def content_hash(tag: str, value: Any) -> str:
    """Hash the canonical JSON of plain data with a tag.

    Args:
        tag: kind of the content, such as `agent-bt/request/v1`.
        value: plain data, as of `canonical`.
    """
    return tagged_hash(tag, canonical(value))


class HashChain:
    """A running hash over records in order: each link covers the one before it and the record's content.

    Attributes:
        head: the hash so far, hexadecimal.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.head = tagged_hash(tag)

    def append(self, content: Any) -> str:
        """Add one record and return the new head."""
        return self.link(canonical(content))

    def link(self, data: bytes) -> str:
        """Add one record, given as canonical JSON, and return the new head."""
        self.head = tagged_hash(self._tag, self.head.encode(), data)
        return self.head
