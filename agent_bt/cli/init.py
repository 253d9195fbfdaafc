"""`agent-bt init`: a new project folder with a commented config and a prompt."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from agent_bt.cli.common import print_message
from agent_bt.core.errors import UsageError

_PROVIDERS = "configs/providers"
"""Folder of the shipped configs, one for each provider to choose from."""

_PROMPT_NOTE = """\
# The prompt of the model. Edit the text below; names in double braces are replaced by their values.
# To compare two versions, copy this file to v2.prompty and set strategy.prompt to my_trader/v2.
"""
_IGNORED = ".env\nruns/\ndata/\n"


def init(
    folder: Annotated[Path, typer.Argument(help="The folder; created if missing.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Use the defaults, without questions.")] = False,
) -> None:
    """Create a commented config and a prompt to start from; asks at most three questions."""
    provider, model, source = ("stand_in", provider_models()["stand_in"], "sample") if yes else _ask()
    files = starter_files(provider, model, source)
    if (folder / ".gitignore").exists():
        del files[".gitignore"]
    there = [str(folder / name) for name in files if (folder / name).exists()]
    if there:
        raise UsageError(f"{', '.join(there)} would be overwritten; choose another folder: agent-bt init my-agent")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print_message(f"wrote {path}")
    _print_next_steps(folder, files)


def provider_models() -> dict[str, str]:
    """Return the default model of each provider: that of the shipped configs, which are one file for each provider."""
    configs = {"stand_in": "configs/backtest.yaml"}
    configs |= {path.stem: f"{_PROVIDERS}/{path.name}" for path in sorted(_find_shipped(_PROVIDERS).glob("*.yaml"))}
    models = {name: re.search(r"(?m)^  model: (\S+)", _shipped(config)) for name, config in configs.items()}
    return {name: model[1] for name, model in models.items() if model}


def _ask() -> tuple[str, str, str]:
    models = provider_models()
    provider = _choose("Which model? stand_in is part of the package, free and offline", [*models])
    model = models[provider]
    if provider != "stand_in":
        model = typer.prompt("Name of the model at the endpoint", default=model, err=True).strip()
    source = _choose("Which market data? sample is generated, store is real data to fetch", ["sample", "store"])
    return provider, model, source


def _choose(question: str, choices: list[str]) -> str:
    while True:
        answer = str(typer.prompt(f"{question} ({', '.join(choices)})", default=choices[0], err=True)).strip().lower()
        if answer in choices:
            return answer
        print_message(f"{answer!r} is not one of {', '.join(choices)}")


def starter_files(provider: str, model: str, source: str) -> dict[str, str]:
    """Build the files of a new folder from the shipped ones, by their relative path.

    Args:
        provider: one of `provider_models()`.
        model: its name at the endpoint.
        source: `sample` or `store`.
    """
    config = _shipped("configs/backtest.yaml")
    config = config[config.index("\nname:") + 1 :].replace("name: btcusdt-agent", "name: my-agent")
    config = config.replace(
        "prompt: btcusdt_trader/v1 # prompts/btcusdt_trader/v1",
        "prompt: my_trader/v1      # prompts/my_trader/v1.prompty",
    )
    config = re.sub(r"(?m)^(  source: )\w+ +#", rf"\g<1>{source:18}#", config)
    files = {}
    if provider != "stand_in":
        shipped = _shipped(f"{_PROVIDERS}/{provider}.yaml")
        llm = re.sub(r"(?m)^  model: \S+", lambda _: f"  model: {_scalar(model)}", _block(shipped, "llm"))
        config = config.replace(_block(config, "llm").strip(), llm.strip())
        for section in ("features", "prefetch", "budget"):
            block, old = _block(shipped, section).strip(), _block(config, section).strip()
            config = config.replace(old, block) if block and old else f"{config}\n{block}\n" if block else config
        variable = re.search(r"(?m)^  api_key_env: (\w+)", shipped)
        if variable and "127.0.0.1" not in llm:
            files[".env.example"] = f"# Copy to .env; it is read and never recorded.\n{variable[1]}=\n"
    head = (
        "# yaml-language-server: $schema=schema.json\n#\n"
        "# Run:              agent-bt run backtest.yaml\n"
        "# Check:            agent-bt validate backtest.yaml\n"
        "# Change one value: agent-bt run backtest.yaml --set strategy.every=4h\n\n"
    )
    prompt = _shipped("prompts/btcusdt_trader/v1.prompty").replace("name: btcusdt_trader", "name: my_trader", 1)
    return files | {
        "backtest.yaml": head + config,
        "schema.json": _shipped("configs/schema.json"),
        "prompts/my_trader/v1.prompty": prompt.replace("---\n", "---\n" + _PROMPT_NOTE, 1),
        ".gitignore": _IGNORED,
    }


def _print_next_steps(folder: Path, files: dict[str, str]) -> None:
    print_message("\nNext:")
    if folder != Path():
        print_message(f"  cd {folder}")
    if ".env.example" in files:
        print_message("  cp .env.example .env        # then add the key")
    if "provider: openai" in files["backtest.yaml"]:
        print_message("  agent-bt doctor backtest.yaml --probe")
    if "source: store" in files["backtest.yaml"]:
        print_message("  agent-bt data backfill --symbol BTCUSDT --start 2024-07-01 --end 2024-10-01")
    print_message("  agent-bt run backtest.yaml")


def _shipped(name: str) -> str:
    """Read a shipped file."""
    return _find_shipped(name).read_text(encoding="utf-8")


def _find_shipped(name: str) -> Path:
    """Find a shipped file or folder: inside the installed package, next to it in a checkout."""
    package = Path(__file__).parents[1]
    for root in (package / "_shipped", package.parent):
        if (root / name).exists():
            return root / name
    raise UsageError(f"{name} is missing from this installation; install agent-bt again")


def _block(text: str, section: str) -> str:
    """Return the lines of a top-level section, including the blank line after it; empty if there is none."""
    found = re.search(rf"(?m)^{section}:.*\n(?:[ \t]+.*\n)*\n?", text)
    return found[0] if found else ""


def _scalar(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z][\w./:-]*\w", text) else json.dumps(text)
