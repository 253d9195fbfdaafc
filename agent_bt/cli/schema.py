"""`agent-bt schema`: the JSON Schema of a config, an experiment or a sweep, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    ab: Annotated[bool, typer.Option("--ab", help="The schema of an experiment (`agent-bt ab run`) instead.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="The schema of a sweep (`agent-bt sweep`) instead.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default: stdout.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of a config, for completion in editors; the first line of a config refers to it."""
    text = experiment_schema_text() if ab else sweep_schema_text() if sweep else schema_text()
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {output}", err=True)


def schema_text() -> str:
    """Return the schema that is kept in `configs/schema.json`."""
    import json

    from agent_bt.config.load import config_schema

    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def experiment_schema_text() -> str:
    """Return the schema that is kept in `configs/ab-schema.json`."""
    import json

    from agent_bt.experiments.ab.spec import experiment_schema

    return json.dumps(experiment_schema(), indent=2, ensure_ascii=False) + "\n"


def sweep_schema_text() -> str:
    """Return the schema that is kept in `configs/sweep-schema.json`."""
    import json

    from agent_bt.experiments.sweep.spec import sweep_schema

    return json.dumps(sweep_schema(), indent=2, ensure_ascii=False) + "\n"
