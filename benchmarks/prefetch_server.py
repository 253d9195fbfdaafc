"""A chat-completions server of its own process that answers after a fixed time, for measuring prefetch.

    POST /<run>/<latency in ms>/v1/chat/completions     GET /<run>/calls     how many calls this run has made

The model named in the body is the policy. `hold-0.9`: HOLD with that chance, else a trade that takes a flat account
into the market, or out of it again; the draw is a hash of the body, so it does not depend on order or repetition.
`stand-in`: the embedded policy of the package. `stand-in-0.35` sets how many of its signals it acts on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections import Counter
from typing import Any

import orjson

from agent_bt.llm.stand_in import StandInParams, answer

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_FLAT = "position: flat"
_BUY, _SELL = '{"action": "BUY", "size_pct": 1}', '{"action": "SELL", "size_pct": 1}'
_HOLD = '{"action": "HOLD"}'


def reply_to(body: bytes) -> str:
    """What the policy named in the body says to it."""
    request: dict[str, Any] = orjson.loads(body)
    policy, _, share = request["model"].rpartition("-")
    messages = request["messages"]
    if policy == "stand-in":
        return answer(messages, StandInParams(eagerness=float(share)))
    draw = int.from_bytes(hashlib.sha256(body).digest()[:8], "big") / 2**64
    if draw < float(share):
        return _HOLD
    return _BUY if _FLAT in messages[-1]["content"] else _SELL


class Connection(asyncio.Protocol):
    """One kept-alive connection; a client sends the next request when it has the answer to the last."""

    def __init__(self, calls: Counter[str]) -> None:
        self._calls = calls
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect until a request is whole."""
        self._buffer += data
        head, found, body = self._buffer.partition(_HEAD_END)
        if not found:
            return
        length = _LENGTH.search(head)
        if length is not None and len(body) < int(length.group(1)):
            return
        self._buffer = b""
        method, path = head.split(b" ", 2)[:2]
        _, run, *rest = path.decode().split("/")
        if method == b"GET":
            self._write(orjson.dumps({"calls": self._calls[run]}))
            return
        self._calls[run] += 1
        text = reply_to(body)
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(text) // 4}
        whole = {
            "id": "bench", "object": "chat.completion", "created": 0, "model": "bench",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }  # fmt: skip
        asyncio.get_running_loop().call_later(float(rest[0]) / 1e3, self._write, orjson.dumps(whole))

    def _write(self, body: bytes) -> None:
        if not self._transport.is_closing():
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)


async def serve() -> None:
    """Listen on a free port, say which on stdout, and go on until stdin is closed."""
    calls: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(calls), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
