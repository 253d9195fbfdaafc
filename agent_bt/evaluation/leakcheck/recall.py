"""Recall probes: the model is given a date and no data. Whoever answers with the right price has remembered it.

An answer within 1% says little where the price hardly moved, so it is held against chance: how often the same answer
would have been right on the other dates that were asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent_bt.core.clock import DAY, iso
from agent_bt.core.types import Reply

BANDS = (0.01, 0.05, 0.10)
"""Largest relative error of an answer that falls into the band."""

SCHEMA = {
    "type": "object",
    "properties": {"close": {"type": "number", "description": "The price; 0 if you do not know it."}},
    "required": ["close"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question: the close of a UTC day (its start, UTC us), and what it was (quote units)."""

    day: int
    close: float

    def messages(self, symbol: str) -> list[dict[str, str]]:
        """Return the messages of the question; date and symbol are all they hold."""
        return [
            {
                "role": "system",
                "content": "You are asked what you remember. No data is given and none is needed: answer from memory "
                "with one JSON object and nothing else: "
                '{"close": number}. Use 0 if you do not know.',
            },
            {
                "role": "user",
                "content": f"What was the last price of {symbol} on {iso(self.day)[:10]} (UTC day, spot market)?",
            },
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What the answers came to.

    Attributes:
        asked, answered: questions, and answers that hold a price.
        within: band -> share of the questions that were answered so well.
        chance: share within the narrowest band if every answer were given for another of the days.
        hits, expected: the same per question, float64 (n,): for a test of the one against the other.
        median_error: relative, of the answers; None without any.
    """

    asked: int
    answered: int
    within: dict[str, float]
    chance: float
    median_error: float | None
    hits: np.ndarray
    expected: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        keys = ("asked", "answered", "within", "chance", "median_error")
        return {key: getattr(self, key) for key in keys}


def choose_probes(times: np.ndarray, closes: np.ndarray, count: int) -> list[Probe]:
    """Choose `count` whole days, spread evenly; `times` int64 (T,) close times in UTC us, `closes` (T,)."""
    ends = np.flatnonzero(times % DAY == 0)
    if not len(ends):
        return []
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, min(count, len(ends))).round().astype(int))]
    return [Probe(day=int(times[row]) - DAY, close=float(closes[row])) for row in chosen]


def read_price(reply: Reply) -> float | None:
    """Read the price that a reply names; None where it names none, or says that it does not know."""
    try:
        value = json.loads(reply.text or "")
    except ValueError:
        return None
    price = value.get("close") if isinstance(value, dict) else None
    known = isinstance(price, int | float) and not isinstance(price, bool) and math.isfinite(price) and price > 0
    return float(price) if known and price is not None else None


def score(probes: Sequence[Probe], answers: Sequence[float | None]) -> Recall:
    """Score the answers to questions about prices by their dates.

    Args:
        probes: the questions.
        answers: one price for each probe; None: no valid answer.
    """
    truth = np.array([probe.close for probe in probes])
    given = np.array([math.nan if answer is None else answer for answer in answers])
    errors = np.abs(given[:, None] / truth[None, :] - 1.0)
    own = np.diag(errors)
    good = errors <= BANDS[0]
    others = len(probes) - 1
    expected = (good.sum(axis=1) - np.diag(good)) / others if others > 0 else np.zeros(len(probes))
    known = own[np.isfinite(own)]
    return Recall(
        asked=len(probes),
        answered=len(known),
        within={f"{band:.0%}": float(np.mean(own <= band)) for band in BANDS},
        chance=float(np.mean(expected)),
        median_error=float(np.median(known)) if len(known) else None,
        hits=np.diag(good).astype(np.float64),
        expected=expected.astype(np.float64),
    )
