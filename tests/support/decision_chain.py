"""The hash chain over the contents of decisions, computed in one go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent_bt.core.canonical import HashChain
from agent_bt.records.hashes import DECISION_TAG, content_bytes


def decisions_hash(contents: Iterable[Mapping[str, Any]]) -> str:
    """Return the head of the hash chain over the contents of all decisions, in order."""
    chain = HashChain(DECISION_TAG)
    for content in contents:
        chain.link(content_bytes(content))
    return chain.head
