"""Read configuration: `--set` over environment and `.env` over YAML over defaults, errors with file and line.

1. `read_layer`, `_environment_layer`, `_set_layer` each read one source into a `Layer`: data, and the origin of
   every value in it.
2. `_merge` puts them on top of each other: a later source wins, and brings its origin along.
3. Pydantic validates the result; `agent_bt.config.explain` explains each error, with the origin of the value.
"""

from __future__ import annotations

import io
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from agent_bt.config.explain import Complaint, Origins, explain, field_at, is_section, raise_all, unknown_key
from agent_bt.config.model import Config, Section
from agent_bt.config.secrets import ADVICE_ON_KEYS, names_secret
from agent_bt.config.yaml import dump_yaml, parse_yaml
from agent_bt.core.errors import ConfigError
from agent_bt.core.suggest import nearest

PREFIX = "AGENT_BT_"
OTHER_VARIABLES = (
    "AGENT_BT_DEBUG",
    "AGENT_BT_LOG",
    "AGENT_BT_MARKET_DATA",
    "AGENT_BT_REQUIRE_ALL",
    "AGENT_BT_PEERS",
)
"""Environment variables of that prefix that are not settings: tracebacks, logging, two for the tests of a checkout, and
where its benchmarks find other engines."""

_DOTENV = ".env"


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Settings that are written in another file than the config.

    Attributes:
        values: by dotted path.
        origins: where each of them was written, by dotted path.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    *,
    over_file: Values | None = None,
    over_all: Values | None = None,
) -> Config:
    """Read and validate the configuration of a run.

    >>> config = load_config(overrides=["strategy.kind=rsi", "market.interval=1h"], env={})
    >>> config.strategy.kind, config.market.symbol, config.account.cash
    ('rsi', 'BTCUSDT', 10000.0)
    >>> load_config(overrides=["llm.retries=-1"], env={})
    Traceback (most recent call last):
        ...
    agent_bt.core.errors.ConfigError: --set llm.retries: llm.retries must be at least 0, got -1

    Args:
        path: a YAML file; None: defaults only.
        overrides: `--set` values, each `dotted.path=value`; the value is read as YAML.
        env: used instead of the process environment and `.env`. None: both are read, and what `.env` holds that is not
            a setting (an API key, for example) is put into the process environment unless it is set there already.
        over_file: settings of another file that take precedence over those of `path`.
        over_all: settings of another file that take precedence over everything else.

    Raises:
        ConfigError: something is wrong in one of the sources; the message lists every error with its place.
    """
    layers = [] if path is None else [read_layer(Path(path))]
    layers += [_values_layer(over_file), _environment_layer(env), _set_layer(overrides), _values_layer(over_all)]
    complaints = [complaint for layer in layers for complaint in layer.complaints]
    data: dict[str, Any] = {}
    origins: Origins = {}
    for layer in layers:
        _forget_other_params(data, layer.data)
        _merge(data, origins, layer.data, layer.origins)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        complaints += explain(error, origins)
    raise_all(complaints)
    return config


def _forget_other_params(data: dict[str, Any], later: Mapping[str, Any]) -> None:
    """Drop the parameters of a strategy where a later source names another kind: they belong to the kind."""
    before, after = data.get("strategy"), later.get("strategy")
    if (
        isinstance(before, dict)
        and isinstance(after, Mapping)
        and after.get("kind", before.get("kind")) != before.get("kind")
    ):
        before.pop("params", None)


def config_to_yaml(config: Config) -> str:
    """Write a configuration as YAML with every value; `load_config` reads the same configuration back."""
    return dump_yaml(config.model_dump(mode="json"))


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a config file, for editors."""
    schema = Config.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "agent-bt config",
        "description": "A run of agent-bt.",
    }


@dataclass(slots=True, kw_only=True)
class Layer:
    """One source of configuration.

    Attributes:
        data: its values, nested as in the configuration.
        origins: where each of them was written, by path.
        complaints: what is wrong with it.
    """

    data: dict[str, Any] = field(default_factory=dict)
    origins: Origins = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)

    def put(self, path: tuple[str, ...], value: Any, origin: str) -> None:
        """Set one value, or complain if its path leads through something that is not a section.

        Args:
            path: keys from the top.
            value: plain data.
            origin: where it was written.
        """
        into = self.data
        for at, part in enumerate(path[:-1]):
            inner = into.get(part)
            if inner is None:
                # Missing, or null: a section that is switched off gets its first key.
                inner = into[part] = {}
            if not isinstance(inner, dict):
                self.complain(origin, f"{'.'.join(path[: at + 1])} is a value here, not a section of keys")
                return
            self.origins.setdefault(path[: at + 1], origin)
            into = inner
        into[path[-1]] = value
        self.origins[path] = origin

    def complain(self, origin: str, message: str) -> None:
        """Add a complaint.

        Args:
            origin: where it was written.
            message: what is wrong.
        """
        self.complaints.append(Complaint(origin=origin, message=message))


def read_layer(path: Path) -> Layer:
    """Read a YAML file; what is wrong with it as YAML is in the layer's complaints.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(_not_found(path)) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name a YAML file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    document = parse_yaml(text)
    layer = Layer(origins={at: f"{path}, line {line}" for at, line in document.lines.items()})
    for problem in document.problems:
        layer.complain(f"{path}, line {problem.line}", problem.message)
    if isinstance(document.data, dict):
        layer.data = _without_empty_sections(document.data)
    elif document.data is not None:
        layer.complain(f"{path}, line 1", "a config must be a mapping of sections (`market:`, `llm:`, ...)")
    return layer


def _without_empty_sections(data: dict[str, Any], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Leave out sections that read as null because all of their keys are commented out: they have their defaults."""
    kept = {}
    for key, value in data.items():
        if is_section((*above, key)):
            if isinstance(value, dict):
                kept[key] = _without_empty_sections(value, (*above, key))
            elif value is not None:
                kept[key] = value
        else:
            kept[key] = value
    return kept


def _not_found(path: Path) -> str:
    folder = path.parent
    there = {found.stem: str(found) for found in sorted(folder.glob("*.y*ml"))} if folder.is_dir() else {}
    guess = nearest(path.stem, there)
    listed = f"there is {', '.join(there.values())}" if there else "see `agent-bt init`"
    hint = f"did you mean {there[guess]}?" if guess else listed
    return f"there is no config file {path}; {hint}"


def _environment_layer(env: Mapping[str, str] | None) -> Layer:
    layer = Layer()
    variables = _process_environment(layer) if env is None else {name: (env[name], "environment") for name in env}
    known = {_variable_of(path): path for path in _paths(Config)}
    for name, (text, source) in sorted(variables.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        origin = f"{source} {name}"
        if name in known or _inside_free_form(path):
            _put_text(layer, path, text, origin)
        elif names_secret(path[-1]):
            layer.complain(origin, f"is not a setting: {ADVICE_ON_KEYS}")
        else:
            # Compared without the prefix, which would make every name look alike.
            guess = nearest(
                name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in (*known, *OTHER_VARIABLES)]
            )
            hint = f"did you mean {PREFIX}{guess}?" if guess else f"write {PREFIX}LLM__MODEL for llm.model, and so on"
            layer.complain(origin, f"is not a setting; {hint}")
    return layer


def _process_environment(layer: Layer) -> dict[str, tuple[str, str]]:
    """Read all variables with their source, and export what `.env` holds beside settings; the environment wins."""
    variables: dict[str, tuple[str, str]] = {}
    if Path(_DOTENV).is_file():
        text = Path(_DOTENV).read_text(encoding="utf-8-sig")
        lines: dict[str, int] = {}
        for binding in parse_stream(io.StringIO(text)):
            if binding.error:
                layer.complain(f"{_DOTENV}, line {binding.original.line}", "must be NAME=value")
            elif binding.key is not None:
                # The original text of a binding begins with the blank lines before it.
                skipped = binding.original.string[: -len(binding.original.string.lstrip())].count("\n")
                lines[binding.key] = binding.original.line + skipped
        if not layer.complaints:
            for name, value in dotenv_values(stream=io.StringIO(text)).items():
                if value is None:
                    layer.complain(f"{_DOTENV}, line {lines[name]}", f"{name} has no value; write {name}=value")
                elif name.startswith(PREFIX) and name not in OTHER_VARIABLES:
                    variables[name] = (value, f"{_DOTENV}, line {lines[name]}:")
                else:
                    os.environ.setdefault(name, value)
    return variables | {name: (value, "environment") for name, value in os.environ.items()}


def _set_layer(overrides: Sequence[str]) -> Layer:
    layer = Layer()
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            layer.complain("--set", "must be dotted.path=value, for example --set llm.model=gpt-5-mini")
            continue
        origin = f"--set {key.strip()}"
        problem = None if _inside_free_form(path) else unknown_key(path)
        if problem:
            layer.complain(origin, problem)
        else:
            _put_text(layer, path, text.strip(), origin)
    return layer


def _values_layer(given: Values | None) -> Layer:
    layer = Layer()
    if given is None:
        return layer
    for key, value in given.values.items():
        path = tuple(key.split("."))
        problem = None if _inside_free_form(path) else unknown_key(path)
        if problem:
            layer.complain(given.origins[key], problem)
        else:
            layer.put(path, value, given.origins[key])
    return layer


def _put_text(layer: Layer, path: tuple[str, ...], text: str, origin: str) -> None:
    """Put a value given as text: unchanged where the setting is text (unless quoted), else read as YAML."""
    info = field_at(path)
    wanted, optional = _text_wanted(info)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    if wanted and not quoted and not (optional and text in ("", "~", "null")):
        layer.put(path, text, origin)
        return
    document = parse_yaml(text)
    if document.problems:
        layer.complain(origin, f"the value cannot be read: {document.problems[0].message}")
    else:
        layer.put(path, document.data, origin)


def _text_wanted(info: FieldInfo | None) -> tuple[bool, bool]:
    """Return whether a setting is text and nothing else, and whether it may be null too."""
    if info is None:
        return False, False
    kinds = set(_kinds(info.annotation))
    return kinds - {type(None)} == {str}, type(None) in kinds


def _kinds(annotation: Any) -> Iterator[type]:
    """Yield the plain types that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Literal:
        yield from (type(value) for value in get_args(annotation))
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif hasattr(annotation, "__metadata__"):
        yield from _kinds(get_args(annotation)[0])
    else:
        yield origin or annotation


def _paths(model: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every section and setting under `model`."""
    for name, info in model.model_fields.items():
        path = (*above, name)
        yield path
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from _paths(info.annotation, path)


def _variable_of(path: tuple[str, ...]) -> str:
    return PREFIX + "__".join(path).upper()


def _inside_free_form(path: tuple[str, ...]) -> bool:
    """Return whether a path leads into a setting whose keys are the user's own (`llm.params.top_p`)."""
    for length in range(1, len(path)):
        info = field_at(path[:length])
        if info is not None and dict in set(_kinds(info.annotation)):
            return all(path)
    return False


def _merge(data: dict[str, Any], origins: Origins, over: dict[str, Any], over_origins: Origins) -> None:
    """Merge `over` into `data`, mapping by mapping; anything else is replaced whole."""

    def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
        for key, value in other.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    merge(data, over)
    origins.update(over_origins)
