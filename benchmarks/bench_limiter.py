"""The adaptive limiter against a local server with hidden limits: ratio to the best throughput, refused calls.

The server is a process of its own and speaks plain HTTP; the calls go through the OpenAI-compatible provider. The best
throughput is measured too, by the same client behind a limiter that knows the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

CASES: dict[str, dict[str, float]] = {
    "10 calls at once, 100 ms": {"at_once": 10, "latency_ms": 100},
    "40 calls at once, 400 ms": {"at_once": 40, "latency_ms": 400},
    "60 calls a second, 100 ms": {"per_s": 60, "latency_ms": 100},
    "60 calls a second, 500 ms": {"per_s": 60, "latency_ms": 500},
}
CALLS = 3000
MAX_IN_FLIGHT = 64
BODY = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{}"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def main() -> dict[str, Any]:
    """Every case with the adaptive limiter and with a limiter that knows the limit, one after the other."""
    rows = []
    for work, limits in CASES.items():
        best, _ = _measure(limits, known=True)
        ours, refused = _measure(limits, known=False)
        rows += [
            {
                "work": f"hidden limit: {work}",
                "ours": ours,
                "unit": "answers/s",
                "peer": "a limiter that knows the limit",
                "theirs": best,
                "ratio": ours / best,
                "target": ">= 0.85",
                "met": ours >= 0.85 * best,
            },
            {
                "work": f"hidden limit: {work}: refused",
                "ours": 100 * refused,
                "unit": "% of calls",
                "target": "< 2",
                "met": refused < 0.02,
            },
        ]
    return {"name": "limiter", "rows": rows, "calls": CALLS}


class _FixedLimits:
    """A limiter that knows the limit of the endpoint."""

    def __init__(self, at_once: float | None, per_s: float | None) -> None:
        self._places = asyncio.Semaphore(int(at_once) if at_once else MAX_IN_FLIGHT)
        self._interval_s = 1.01 / per_s if per_s else 0.0
        self._next = 0.0

    async def acquire(self) -> None:
        await self._places.acquire()
        now = time.monotonic()
        self._next = max(self._next, now - 0.02) + self._interval_s
        await asyncio.sleep(max(0.0, self._next - self._interval_s - now))

    def release(self, status: int | None, headers: Mapping[str, str]) -> None:  # noqa: ARG002
        self._places.release()


def _measure(limits: Mapping[str, float], *, known: bool) -> tuple[float, float]:
    """Answers per second, and the share of calls that were refused."""
    from agent_bt.core.types import Request
    from agent_bt.llm.limiter import AdaptiveLimiter
    from agent_bt.llm.openai_client import OpenAILLM
    from agent_bt.llm.retry import RetryLLM

    command = [sys.executable, __file__, json.dumps(limits)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            port = int(server.stdout.readline())
            limiter = (
                _FixedLimits(limits.get("at_once"), limits.get("per_s")) if known else AdaptiveLimiter(MAX_IN_FLIGHT)
            )
            client = OpenAILLM(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", limiter=limiter)
            llm = RetryLLM(client, lambda _: 20)
            body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
            began = time.perf_counter()
            futures = [llm.submit(Request(provider="p", endpoint_id="e", body=body, replicate=n)) for n in range(CALLS)]
            failures = [reply.failure for reply in (future.result() for future in futures) if reply.failure]
            seconds = time.perf_counter() - began
            llm.close()
        finally:
            server.stdin.close()
        counts = json.loads(server.stdout.readline())
    assert not failures, failures[:3]
    return CALLS / seconds, counts["refused"] / (counts["refused"] + counts["taken"])


async def _serve(at_once: float = float("inf"), per_s: float = float("inf"), latency_ms: float = 100) -> None:
    starts: deque[float] = deque()
    counts = {"taken": 0, "refused": 0, "inside": 0}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            now = time.monotonic()
            while starts and starts[0] <= now - 1:
                starts.popleft()
            if counts["inside"] >= at_once or len(starts) >= per_s:
                counts["refused"] += 1
                status, body = b"429 Too Many Requests", b'{"error": {"message": "slow down"}}'
            else:
                starts.append(now)
                counts["taken"] += 1
                counts["inside"] += 1
                await asyncio.sleep(latency_ms / 1000)
                counts["inside"] -= 1
                status, body = b"200 OK", BODY
            writer.write(
                b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (status, len(body), body)
            )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The server with hidden limits.")
    parser.add_argument("limits", help="JSON: at_once, per_s, latency_ms")
    asyncio.run(_serve(**json.loads(parser.parse_args().limits)))
