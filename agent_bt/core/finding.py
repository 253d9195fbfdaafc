"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `validate` or `doctor`. With an `error` nothing will run; `advice` says what to do, if anything."""

    level: Literal["ok", "warning", "error"]
    what: str
    advice: str = ""
