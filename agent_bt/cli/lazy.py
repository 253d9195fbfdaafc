"""A command group that imports its sub-groups on first use, so that `--help` is fast."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer.main
from typer.core import TyperGroup

GROUPS = {
    "ab": "Compare prompts, models or strategies with evidence.",
    "sweep": "Try many parameters of a rule or ranker, and judge the best of them.",
    "aggregate": "Aggregate ticks to time, tick, volume or dollar bars.",
    "data": "Fetch, list, verify and export market data.",
    "features": "List, compute and check features.",
    "prompts": "List, show, render, compare and lock prompts.",
    "runs": "List, show and verify runs.",
    "cache": "Show, export, import and prune the store of replies.",
}
"""Sub-group, or slow command -> its help; each is the `app` of the module of the same name in `agent_bt.cli`."""


ORDER = (
    *("init", "run", "backtest", "validate", "resume", "replay", "report", "runs"),
    *("compare", "ab", "sweep", "audit", "leakcheck", "data", "aggregate", "features", "prompts", "cache"),
    *("doctor", "schema", "test", "version"),
)
"""The order in `--help`: first what a newcomer needs, last what concerns the program itself."""


class LazyGroup(TyperGroup):
    """A group of the commands of its app and of `GROUPS`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._not_loaded = set(GROUPS)
        # A placeholder is enough to be listed and found.
        self.commands.update({name: TyperGroup(name=name, help=text) for name, text in GROUPS.items()})

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every command in the `ORDER`; others come last."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments start with; a sub-group is imported first.

        Args:
            ctx: the click context.
            args: the arguments.
        """
        if args and args[0] in self._not_loaded:
            self._not_loaded.remove(args[0])
            group = typer.main.get_command(import_module(f"agent_bt.cli.{args[0]}").app)
            group.name = args[0]
            self.commands[args[0]] = group
        return super().resolve_command(ctx, args)
