"""Until when a model may have read about the market: what the config says, else a dated table, else unverified.

The table holds the last day of training data as the models' makers have published it (a month counts to its end). An
entry holds for exactly that name and for its dated snapshots (`gpt-4o-2024-08-06`), whatever stands before a `/` or
after a `:`; nothing is guessed from a like name, because a successor's name begins with its predecessor's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from agent_bt.config.model import LLMConfig
from agent_bt.core.clock import DAY, time_us
from agent_bt.llm.provider import is_embedded

TABLE_DATE = "2025-11"
"""When the table was last compared with what the makers publish."""

_TABLE = {
    "2021-09-30": ("gpt-3.5-turbo",),
    "2023-08-31": ("claude-3-haiku", "claude-3-opus", "claude-3-sonnet"),
    "2023-10-31": ("gpt-4o", "gpt-4o-mini", "o1", "o1-mini", "o3-mini"),
    "2023-12-31": (
        "gpt-4-turbo", "llama-3-70b-instruct", "llama-3.1-8b-instruct", "llama-3.1-70b-instruct",
        "llama-3.1-405b-instruct", "llama-3.3-70b-instruct", "llama3.1", "llama3.3",
    ),
    "2024-04-30": ("claude-3-5-sonnet",),
    "2024-05-31": ("gpt-5-mini", "gpt-5-nano"),
    "2024-06-30": ("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "o3", "o4-mini", "gpt-oss-120b", "gpt-oss-20b", "phi4"),
    "2024-07-31": ("claude-3-5-haiku",),
    "2024-08-31": ("gemini-2.0-flash", "llama-4-scout", "llama-4-maverick", "gemma3"),
    "2024-09-30": ("gpt-5",),
    "2024-11-30": ("claude-3-7-sonnet",),
    "2025-01-31": ("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"),
    "2025-03-31": ("claude-sonnet-4", "claude-opus-4", "claude-opus-4-1"),
    "2025-07-31": ("claude-sonnet-4-5", "claude-haiku-4-5"),
}  # fmt: skip
_LAST_DAY = {model: day for day, models in _TABLE.items() for model in models}
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")

Source = Literal["config", "table", "embedded", "unverified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoff:
    """The last day a model may have been trained on (ISO date), and who says so.

    `day` is None for an `embedded` model, which was trained on nothing, and where it is `unverified`.
    """

    day: str | None
    source: Source

    @property
    def instant(self) -> int | None:
        """The end of that day, UTC us."""
        return None if self.day is None else time_us(self.day) + DAY

    def __str__(self) -> str:
        match self.source:
            case "config":
                return f"{self.day} (llm.knowledge_cutoff)"
            case "table":
                return f"{self.day} (table of {TABLE_DATE})"
            case "embedded":
                return "none (an embedded model has read nothing)"
        return "unverified (set llm.knowledge_cutoff to the day its maker names)"


def find_cutoff(llm: LLMConfig) -> Cutoff:
    """Find the knowledge cutoff of the model that `llm` names."""
    if llm.knowledge_cutoff is not None:
        return Cutoff(day=llm.knowledge_cutoff[:10], source="config")
    if is_embedded(llm):
        return Cutoff(day=None, source="embedded")
    name = _SNAPSHOT.sub("", llm.model.lower().rpartition("/")[2].partition(":")[0])
    day = _LAST_DAY.get(name)
    return Cutoff(day=day, source="unverified" if day is None else "table")


def latest_instant(cutoffs: Iterable[Cutoff]) -> int | None:
    """Return the latest of the known cutoffs, UTC us; None if none is known."""
    return max((cutoff.instant for cutoff in cutoffs if cutoff.instant is not None), default=None)
