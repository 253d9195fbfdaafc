"""What is generated from the config models and kept in the repository is up to date."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent_bt.cli.schema import experiment_schema_text, schema_text
from agent_bt.config.load import config_schema, config_to_yaml
from agent_bt.config.model import Config
from agent_bt.config.yaml import parse_yaml

ROOT = Path(__file__).parents[2]


def test_the_schema_file_is_up_to_date() -> None:
    kept = (ROOT / "configs" / "schema.json").read_text(encoding="utf-8")
    assert kept == schema_text(), "write it again: agent-bt schema -o configs/schema.json"


def test_the_schema_of_an_experiment_is_up_to_date_and_named_by_the_shipped_one() -> None:
    kept = (ROOT / "configs" / "ab-schema.json").read_text(encoding="utf-8")
    assert kept == experiment_schema_text(), "write it again: agent-bt schema --ab -o configs/ab-schema.json"
    shipped = (ROOT / "configs" / "ab.yaml").read_text(encoding="utf-8")
    assert shipped.startswith("# yaml-language-server: $schema=ab-schema.json\n")
    data = parse_yaml(shipped).data
    jsonschema.validate(data, json.loads(kept))
    for wrong in ({**data, "replicate": 3}, {**data, "metric": "luck"}, {**data, "alpha": 5}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json.loads(kept))


def test_the_config_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_config_reference", ROOT / "docs" / "make_config_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert kept == module.render(), "write it again: python docs/make_config_reference.py"


def test_the_reference_names_every_key() -> None:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")

    def keys(data: dict[str, Any], above: str = "") -> list[str]:
        found = []
        for key, value in data.items():
            is_section = isinstance(value, dict) and key not in ("params",)
            found += keys(value, f"{above}{key}.") if is_section else [above + key]
        return found

    for key in keys(Config().model_dump()):
        assert f"| `{key}` |" in text


def test_the_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())


RUN_CONFIGS = sorted(file for file in (ROOT / "configs").rglob("*.yaml") if not file.name.startswith(("ab", "sweep")))
"""Configs of a run; experiments and sweeps have their own form."""


@pytest.mark.parametrize("file", RUN_CONFIGS, ids=lambda file: file.name)
def test_the_schema_accepts_the_shipped_configs(file: Path) -> None:
    jsonschema.validate(parse_yaml(file.read_text(encoding="utf-8")).data, json.loads(schema_text()))


def test_the_schema_accepts_the_resolved_config_and_refuses_a_wrong_one() -> None:
    data = parse_yaml(config_to_yaml(Config())).data
    jsonschema.validate(data, config_schema())
    for section, key, value in (("llm", "provder", "x"), ("execution", "fill", "now"), ("risk", "max_position", 500)):
        wrong = {**data, section: {**data[section], key: value}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, config_schema())
