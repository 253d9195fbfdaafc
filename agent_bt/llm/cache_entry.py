"""Entries of the store of replies, and their encoding as bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from agent_bt.core.canonical import canonical, tagged_hash
from agent_bt.core.types import Reply, Request, Usage

_KEPT = ("text", "finish_reason", "refusal", "body", "cost_usd", "latency_ms", "attempts")


class DamagedEntry(Exception):
    """An entry that does not hash to its address, or cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored reply.

    Attributes:
        request: the request it answers.
        reply: the reply.
        obtained_at: when it came, UTC us.
    """

    request: Request
    reply: Reply
    obtained_at: int

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything in the request body except the messages."""
        return {key: value for key, value in self.request.body.items() if key != "messages"}


def pack_request(request: Request) -> bytes:
    """Return the compressed canonical JSON of a request; its address is the tagged hash of that JSON."""
    return zlib.compress(canonical([request.provider, request.endpoint_id, request.body, request.replicate]))


def unpack_request(address: bytes, packed: bytes) -> Request:
    """Return the request stored under an address.

    Args:
        address: SHA-256, 32 bytes.
        packed: from `pack_request`.

    Raises:
        DamagedEntry: the bytes do not hash to the address.
    """
    provider, endpoint_id, body, replicate = orjson.loads(verify_request(address, packed))
    return Request(provider=provider, endpoint_id=endpoint_id, body=body, replicate=replicate)


def verify_request(address: bytes, packed: bytes) -> bytes:
    """Return the canonical JSON of the request stored under an address.

    Args:
        address: SHA-256, 32 bytes.
        packed: from `pack_request`.

    Raises:
        DamagedEntry: the bytes do not hash to the address.
    """
    try:
        plain = zlib.decompress(packed)
    except zlib.error as error:
        raise DamagedEntry(f"the request at {address.hex()[:12]} cannot be read: {error}") from error
    if tagged_hash("agent-bt/request/v1", plain) != address.hex():
        raise DamagedEntry(f"the request at {address.hex()[:12]} does not hash to its address")
    return plain


def pack_reply(reply: Reply) -> bytes:
    """Return the compressed JSON of a reply. ASCII, because a model may send half of a surrogate pair."""
    return zlib.compress(json.dumps(reply_to_plain(reply), sort_keys=True, separators=(",", ":")).encode())


def unpack_reply(packed: bytes) -> Reply:
    """Return a stored reply, marked as cached.

    Raises:
        DamagedEntry: the bytes are not what was stored (zlib's checksum covers them).
    """
    try:
        plain = zlib.decompress(packed)
        try:
            return reply_from_plain(orjson.loads(plain))
        except orjson.JSONDecodeError:  # half of a surrogate pair, which orjson does not accept
            return reply_from_plain(json.loads(plain))
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise DamagedEntry(f"a reply cannot be read: {error}") from error


def reply_to_plain(reply: Reply) -> dict[str, Any]:
    """Return the stored fields of a reply as plain data."""
    plain: dict[str, Any] = {key: getattr(reply, key) for key in _KEPT}
    plain["usage"] = None if reply.usage is None else asdict(reply.usage)
    # A count that was added later is stored only where it says something: older exports stay the same.
    if reply.usage is not None and not reply.usage.cache_write_tokens:
        del plain["usage"]["cache_write_tokens"]
    return plain


def reply_from_plain(plain: Mapping[str, Any]) -> Reply:
    """Return a reply from its stored fields, marked as cached.

    Raises:
        KeyError, TypeError: something is missing or too much.
    """
    usage = plain["usage"]
    return Reply(**{key: plain[key] for key in _KEPT}, usage=None if usage is None else Usage(**usage), cached=True)


def same_answer(one: Reply, other: Reply) -> bool:
    """Return whether two replies have the same content, whatever their usage and latency.

    Args:
        one: a reply.
        other: the reply it is compared with.
    """
    return (one.text, one.finish_reason, one.refusal) == (other.text, other.finish_reason, other.refusal)


def fingerprints(request: Request) -> tuple[int, int]:
    """Return 63 bits of the hash of all messages, and of the first one, which is the stable part of a prompt."""
    messages = request.body.get("messages", [])
    return _short_hash(messages), _short_hash(messages[:1])


def _short_hash(value: Any) -> int:
    return int(tagged_hash("agent-bt/messages/v1", canonical(value))[:16], 16) >> 1
