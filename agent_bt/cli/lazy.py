"""A command group whose sub-groups are imported when one of them is asked for, so that `--help` need not wait."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer.main
from typer.core import TyperGroup

GROUPS = {
    "ab": "Compare prompts, models or strategies with evidence.",
    "sweep": "Try many parameters of a rule or ranker; says what the best of so many is worth.",
    "data": "Fetch, look at, check and export market data.",
    "features": "Compute features, and check them.",
    "prompts": "List, show, render, compare and lock prompts.",
    "runs": "List, show and verify runs.",
    "cache": "Look at, export, import and prune the store of replies.",
}
"""Sub-group, or heavy command -> its help; each is the `app` of the module of the same name in `agent_bt.cli`."""


ORDER = (
    *("init", "run", "backtest", "validate", "resume", "replay", "report", "runs"),
    *("compare", "ab", "sweep", "audit", "leakcheck", "data", "features", "prompts", "cache"),
    *("doctor", "schema", "test", "version"),
)
"""How `--help` lists them: first what a newcomer needs, last what is about the program itself."""


class LazyGroup(TyperGroup):
    """The commands of its own app, and `GROUPS`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._not_loaded = set(GROUPS)
        # A stand-in is enough for being listed and found.
        self.commands.update({name: TyperGroup(name=name, help=text) for name, text in GROUPS.items()})

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, as in `ORDER`; any other comes after these."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments begin with; a sub-group is put in its stand-in's place first."""
        if args and args[0] in self._not_loaded:
            self._not_loaded.remove(args[0])
            group = typer.main.get_command(import_module(f"agent_bt.cli.{args[0]}").app)
            group.name = args[0]
            self.commands[args[0]] = group
        return super().resolve_command(ctx, args)
