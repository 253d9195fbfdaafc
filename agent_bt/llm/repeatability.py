"""Asks a model the same question several times, alone and together: does it answer the same, and does it queue?

Servers that batch calls, or reuse what they have computed for an earlier prompt, compute with other rounding than for a
call alone: at temperature 0 too, a word can then come out differently. Prefetch sends calls together, so that for such
a server "the same decisions" holds for what is recorded and replayed, and not from one run to the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from agent_bt.core.futures import result_of
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request

ALONE: Final = 3
TOGETHER: Final = 4
QUEUES_FROM: Final = 0.7
"""Share of the time of calls one after another from which on calls together count as queued."""

_ROWS: Final = "\n".join(
    f"{close:.1f},{volume},{rsi:.1f}"
    for close, volume, rsi in zip(
        (-61.2, -48.9, -55.3, -70.1, -42.6, -30.8, -35.0, -21.7, -9.4, -14.2, -3.3, 0.0),
        (84, 120, 97, 143, 210, 88, 65, 101, 156, 72, 93, 110),
        (38.1, 42.7, 40.2, 35.9, 46.3, 50.8, 49.1, 54.0, 58.6, 56.2, 60.4, 61.7),
        strict=True,
    )
)
QUESTION: Final = [
    {
        "role": "user",
        "content": "Bars of an hour, the last line is now: close in basis points from the current price, volume in % "
        f"of its mean, rsi.\nclose,volume,rsi\n{_ROWS}\n\nAnswer with one json object and nothing else: "
        '{"action": "BUY" or "SELL" or "HOLD", "size_pct": 0.5, "note": "why, in twenty words"}',
    }
]
RANK_QUESTION: Final = [
    {
        "role": "user",
        "content": "symbol,change,volatility\nS1,1.42,0.31\nS2,-0.87,0.22\nS3,2.05,0.54\nS4,0.12,0.18\nS5,-1.66,0.47\n"
        '\nAnswer with one json object and nothing else: {"weights": [{"symbol": "S1", "weight": 0.2}], "note": "why, '
        'in twenty words"}',
    }
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatability:
    """What came back for the same question.

    Attributes:
        alone: the texts of calls one after another.
        together: the texts of calls sent at once.
        alone_ms: median time of a call alone, ms.
        together_ms: time until all that were sent at once had come back, ms.
        failed: calls without a reply; their texts are left out.
    """

    alone: tuple[str, ...]
    together: tuple[str, ...]
    alone_ms: float
    together_ms: float
    failed: int = 0

    @property
    def same_alone(self) -> bool:
        """Whether calls one after another had the same answer."""
        return len(set(self.alone)) <= 1

    @property
    def same_together(self) -> bool:
        """Whether calls together had the answer of calls alone."""
        return set(self.together) <= set(self.alone)

    @property
    def queues(self) -> bool:
        """Whether calls together take about as long as one after another."""
        return len(self.together) > 1 and self.together_ms >= QUEUES_FROM * len(self.together) * self.alone_ms


def measure_repeatability(
    llm: LLM, request: Callable[[int], Request], *, together: int = TOGETHER
) -> Repeatability | None:
    """Ask the same question several times.

    Args:
        llm: where the requests go.
        request: makes the request with a number: the same question each time, and another address, so that no cache
            answers.
        together: calls sent at once; fewer than 2 are not sent.

    Returns:
        What came back; None where no call alone had a reply.

    Raises:
        ModelError: the model cannot be used.
    """
    alone, times = [], []
    for number in range(ALONE):
        began = time.perf_counter()
        alone.append(llm.complete(request(number)))
        times.append((time.perf_counter() - began) * 1e3)
    together = together if together > 1 else 0
    began = time.perf_counter()
    futures = [llm.submit(request(ALONE + number)) for number in range(together)]
    beside = [result_of(future) for future in futures]
    took = (time.perf_counter() - began) * 1e3
    answered = [took_one for reply, took_one in zip(alone, times, strict=True) if reply.failure is None]
    if not answered:
        return None
    return Repeatability(
        alone=_texts(alone),
        together=_texts(beside),
        alone_ms=median(answered),
        together_ms=took,
        failed=sum(reply.failure is not None for reply in [*alone, *beside]),
    )


def _texts(replies: list[Reply]) -> tuple[str, ...]:
    return tuple(reply.text or "" for reply in replies if reply.failure is None)
