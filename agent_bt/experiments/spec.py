"""Read the YAML of an experiment or a sweep: its own keys, `--set`, and errors with file and line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from agent_bt.config.explain import Complaint, Origins, raise_all
from agent_bt.config.load import Layer
from agent_bt.config.model import Section
from agent_bt.config.yaml import dotted, parse_yaml
from agent_bt.core.suggest import nearest

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that can be part of a folder's."""

SpecT = TypeVar("SpecT", bound=Section)
Message = Callable[[ErrorDetails, tuple[Any, ...], str], str | None]
"""(Pydantic's error, path of the key, the same with dots) -> the message; None: as for any specification."""


def key_of(override: str) -> tuple[str, ...]:
    """Return the path of the key that a `--set` value names: `market.end=2024-08-01` -> (market, end)."""
    return tuple(override.partition("=")[0].strip().split("."))


def split_overrides(overrides: Sequence[str], model: type[Section]) -> tuple[list[str], list[str]]:
    """Return the `--set` values of the specification's own keys, and those of the configs behind it.

    Args:
        overrides: `key=value` each.
        model: the class of the specification.
    """
    own = [text for text in overrides if key_of(text)[0] in model.model_fields]
    return own, [text for text in overrides if text not in own]


def apply_override(layer: Layer, override: str, *, by_dotted_path: Collection[str] = ()) -> None:
    """Put a `--set` value into the specification; what cannot be read becomes one of its complaints.

    Args:
        layer: the specification as read from its file.
        override: `replicates=5`.
        by_dotted_path: keys whose own keys are dotted paths: with `params`, `params.strategy.params.fast=[5, 10]` sets
            the key `strategy.params.fast` of `params`.
    """
    key = key_of(override)
    path = (key[0], ".".join(key[1:])) if key[0] in by_dotted_path and len(key) > 1 else key
    origin = f"--set {'.'.join(key)}"
    document = parse_yaml(override.partition("=")[2].strip())
    if document.problems:
        layer.complain(origin, f"the value cannot be read: {document.problems[0].message}")
    else:
        layer.put(path, document.data, origin)


def validate_spec(
    layer: Layer,
    path: Path,
    model: type[SpecT],
    *,
    what: str,
    sections: Mapping[str, type[Section]],
    message: Message,
    check: Callable[[SpecT], list[Complaint]],
) -> SpecT:
    """Return the validated specification.

    Args:
        layer: the specification as read from its file, with `--set`.
        path: the file, for errors of which no line is known.
        model: the class that it must fit.
        what: what it is called in messages: "an experiment".
        sections: key -> class, of keys that have keys of their own.
        message: words an error its own way.
        check: what is wrong with a specification that fits the class.

    Raises:
        ConfigError: something is wrong; the message lists every error with file and line.
    """
    complaints = list(layer.complaints)
    declared = None
    try:
        declared = model.model_validate(layer.data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            where = tuple(part for part in details["loc"] if part != "[key]")
            text = message(details, where, dotted(where)) or _message(details, where, what, model, sections)
            complaints.append(Complaint(origin=origin_of(layer.origins, where, str(path)), message=text))
    if declared is not None:
        complaints += check(declared)
    raise_all(complaints)
    assert declared is not None
    return declared


def origin_of(origins: Origins, path: tuple[Any, ...], default: str = "") -> str:
    """Return the file and line of a key, or of the nearest key above it of which they are known.

    Args:
        origins: file and line by path.
        path: of the key.
        default: returned where none is known.
    """
    return next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), default)


def not_one_of(key: str, value: str, allowed: Collection[str], origins: Origins, path: Path) -> Complaint:
    """Return the complaint that a value is not one of those allowed, with the nearest of them.

    Args:
        key: whose value it is.
        value: as given.
        allowed: the values that are possible.
        origins: file and line of each key.
        path: of the specification's file.
    """
    guess = nearest(value, allowed)
    hint = f"; did you mean {guess}?" if guess else ""
    message = f"{key}: {value!r} is not one of {', '.join(allowed)}{hint}"
    return Complaint(origin=origin_of(origins, (key,), str(path)), message=message)


def schema_of(model: type[Section], *, title: str, description: str, metric: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a specification's file, for editors.

    Args:
        model: the class of the specification; it has a key `metric`.
        title: title of the schema.
        description: description of the schema, one sentence.
        metric: what the schema says of `metric` in addition.
    """
    schema = model.model_json_schema()
    schema["properties"]["metric"] |= metric
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**draft, **schema, "title": title, "description": description}


def _message(
    details: ErrorDetails,
    where: tuple[Any, ...],
    what: str,
    model: type[Section],
    sections: Mapping[str, type[Section]],
) -> str:
    name = dotted(where)
    match details["type"]:
        case "extra_forbidden":
            fields = sections.get(where[0], model).model_fields
            guess = nearest(str(where[-1]), fields)
            hint = f"; did you mean {dotted((*where[:-1], guess))}?" if guess else ""
            return f"{name} is not a key of {what}{hint} (keys: {', '.join(fields)})"
        case "value_error":
            return f"{name}: {details['ctx']['error']}"
        case _:
            return f"{name}: {details['msg']}"
