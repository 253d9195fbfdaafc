"""`agent-bt prompts`: list, show, render, compare and lock prompt files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent_bt.cli import common

if TYPE_CHECKING:
    from agent_bt.agents.prompt import Prompt

app = typer.Typer(
    name="prompts",
    help="List, show, render, compare and lock prompts.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="A config file: prompts beside it are found too.", show_default=False),
]
Reference = Annotated[str, typer.Argument(help="name/version, or a .prompty file.", show_default=False)]


@app.command("list")
def list_prompts(config: ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """List all prompts: in ./prompts, beside the config, and the shipped ones."""
    from agent_bt.agents.prompt import available_prompts, load_prompt, prompt_roots
    from agent_bt.core.errors import PromptError

    rows = []
    for reference, path in available_prompts(prompt_roots(config)).items():
        try:
            description, error = load_prompt(path, ()).description, None
        except PromptError as fault:
            description, error = "", str(fault)
        rows.append({"prompt": reference, "file": str(path), "description": description, "error": error})
    if as_json:
        common.print_json({"prompts": rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("prompt", no_wrap=True)
    table.add_column("description", ratio=1)
    for row in rows:
        table.add_row(row["prompt"], row["description"] if row["error"] is None else f"cannot be used: {row['error']}")
    common.show(table)


@app.command()
def show(reference: Reference, config: ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """Show the file of a prompt."""
    prompt = _load(reference, config)
    if as_json:
        common.print_json(_record(prompt))
    else:
        common.print_message(f"{prompt.path} (sha256 {prompt.hash})")
        typer.echo(prompt.text, nl=not prompt.text.endswith("\n"))


@app.command()
def render(
    at: Annotated[
        str | None,
        typer.Option("--at", help="The first decision from then on, UTC: 2024-07-02T13:00Z.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show the messages that a model is sent at an instant, with a flat account."""
    from agent_bt.backtest.preview import render_prompt
    from agent_bt.config.load import load_config
    from agent_bt.core.clock import time_us
    from agent_bt.core.errors import UsageError

    if at is not None:
        try:
            time_us(at)
        except ValueError as error:
            raise UsageError(f"--at: {error}") from None
    messages = render_prompt(load_config(config, overrides or ()), at, config_path=config)
    if as_json:
        common.print_json({"messages": messages})
        return
    for message in messages:
        typer.secho(f"{message['role']}:", bold=True)
        typer.echo(message["content"] + "\n")


@app.command()
def diff(old: Reference, new: Reference, config: ConfigOption = None) -> None:
    """Show what changed from one prompt to another, as a unified diff."""
    from difflib import unified_diff

    before, after = _load(old, config), _load(new, config)
    lines = unified_diff(
        before.text.splitlines(), after.text.splitlines(), str(before.path), str(after.path), lineterm=""
    )
    text = "\n".join(lines)
    if text:
        typer.echo(text)
    else:
        common.print_message(f"{old} and {new} are the same text")


@app.command()
def lock(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME/VERSION]...", help="Default: all of your own.", show_default=False),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Lock nothing; only compare the files with the lock.")] = False,
    config: ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Lock versions: a locked version whose text changes is an error that says to make a new version.

    The lock is prompts/lock.json, to be committed beside the prompts.
    """
    from agent_bt.agents.prompt import available_prompts, load_prompt, prompt_roots
    from agent_bt.agents.prompt_lock import read_lock, write_lock
    from agent_bt.core.errors import PromptError

    roots = prompt_roots(config, shipped=False)
    locks = {root: read_lock(root) for root in roots}
    before = {reference for entries in locks.values() for reference in entries}
    wanted = references or sorted(before if check else available_prompts(roots))
    if check and (never := [reference for reference in wanted if reference not in before]):
        raise PromptError(f"not locked: {', '.join(never)}; lock it with `agent-bt prompts lock {never[0]}`")
    prompts: list[Prompt] = []
    faults: list[str] = []
    for reference in wanted:
        try:
            prompts.append(load_prompt(reference, roots))
        except PromptError as fault:
            faults.append(str(fault))
    if faults:
        raise PromptError("\n".join(faults))
    if not check:
        for prompt in prompts:
            root = prompt.path.parent.parent
            if root not in locks:
                raise PromptError(
                    f"{prompt.path} lies outside of {', '.join(map(str, roots))}; copy it there to lock it"
                )
            locks[root][prompt.reference] = prompt.hash
        for root, entries in locks.items():
            if entries != read_lock(root):
                write_lock(root, entries)
    if as_json:
        common.print_json({"locked": {prompt.reference: prompt.hash for prompt in prompts}})
        return
    for prompt in prompts:
        typer.echo(f"{prompt.reference}  {'unchanged' if prompt.reference in before else 'locked'}  {prompt.hash}")
    if not prompts:
        common.print_message("nothing is locked" if check else f"no prompts in {', '.join(map(str, roots))}")


def _load(reference: str, config: Path | None) -> Prompt:
    from agent_bt.agents.prompt import load_prompt, prompt_roots

    return load_prompt(reference, prompt_roots(config))


def _record(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt": prompt.reference,
        "file": str(prompt.path),
        "sha256": prompt.hash,
        "description": prompt.description,
        "inputs": dict(prompt.inputs),
        "uses": sorted(prompt.uses()),
        "model": prompt.model.model_dump(exclude_none=True),
        "output": dict(prompt.output),
        "text": prompt.text,
    }
