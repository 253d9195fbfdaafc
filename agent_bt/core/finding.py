"""The result of one check of `validate` or `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        level: `ok`, `warning`, or `error`: nothing will run.
        what: what was found.
        advice: what to do about it; empty if nothing.
    """

    level: Literal["ok", "warning", "error"]
    what: str
    advice: str = ""
