"""What a terminal would show, as text without colour."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.console import Console

from agent_bt.reports.terminal import render


def plain(summary: Mapping[str, Any], width: int = 100) -> str:
    """Render a summary as text.

    Args:
        summary: as in `summary.json`.
        width: maximum length of a line, in characters.
    """
    out = StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(render(summary))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
