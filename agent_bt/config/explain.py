"""Explain what is wrong with a configuration: where it was written, the key, what is allowed, what is nearest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from agent_bt.config.model import Config, Section
from agent_bt.config.secrets import ADVICE_ON_KEYS, holds_secret, names_secret
from agent_bt.config.yaml import Path, dotted
from agent_bt.core.errors import ConfigError
from agent_bt.core.suggest import nearest

Origins = dict[Path, str]
"""Where each value was written: `configs/a.yaml, line 3`, `--set llm.model`, `environment AGENT_BT_LLM__MODEL`."""

_MOST_SHOWN = 10
_WORDS_FOR_BOOL = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_NUMBER = re.compile(r"\s*([-+]?[\d_,]*\.?\d+)\s*(.*?)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One error in a configuration.

    Attributes:
        origin: where it was written; empty where that is not known.
        message: what is wrong.
    """

    origin: str
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}" if self.origin else self.message


def raise_all(complaints: Sequence[Complaint]) -> None:
    """Raise one `ConfigError` with all complaints (the first ten), if there are any."""
    if not complaints:
        return
    lines = list(dict.fromkeys(map(str, complaints)))
    more = len(lines) - _MOST_SHOWN
    raise ConfigError("\n".join(lines[:_MOST_SHOWN] + ([f"... and {more} more"] if more > 0 else [])))


def field_at(path: Path) -> FieldInfo | None:
    """Return the setting or section at a path, if there is one."""
    model: Any = Config
    info: FieldInfo | None = None
    for part in path:
        if not (isinstance(model, type) and issubclass(model, Section)) or not isinstance(part, str):
            return None
        info = model.model_fields.get(part)
        if info is None:
            return None
        model = info.annotation
    return info


def is_section(path: Path) -> bool:
    """Return whether a path leads to a section."""
    return _section(path) is not None


def unknown_key(path: Path) -> str | None:
    """Explain what is wrong with a path that is not a setting, naming the nearest; None if it is one."""
    if field_at(path) is not None:
        return None
    *above, last = path
    if names_secret(str(last)):
        return f"{dotted(path)} must not be in a config: {ADVICE_ON_KEYS}"
    model = _section(tuple(above))
    if model is None:
        return unknown_key(tuple(above)) or f"{dotted(tuple(above))} has no keys of its own"
    name = dotted(tuple(above))
    where = f"keys of {name}" if name else "keys"
    allowed = f"{where}: {', '.join(model.model_fields)}"
    guess = _nearest_key(str(last), tuple(above), model)
    hint = f"; did you mean {guess}?" if guess else ""
    return f"{dotted(path)} is not a setting{hint} ({allowed})"


def explain(error: ValidationError, origins: Origins) -> list[Complaint]:
    """Explain every error of a validation, in the order of the sections.

    Args:
        error: as raised by pydantic.
        origins: where each value was written.
    """
    return [_explain_one(details, origins) for details in error.errors(include_url=False)]


def _explain_one(details: ErrorDetails, origins: Origins) -> Complaint:
    path: Path = tuple(details["loc"])
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        return Complaint(origin=_origin(path, origins), message=unknown_key(path) or details["msg"])
    if kind == "value_error":
        reason = str(details["ctx"]["error"])
        named = _named(path, reason)
        return Complaint(origin=_origin_of_mentioned(path, reason, origins), message=named)
    return Complaint(origin=_origin(path, origins), message=_named(path, _wrong_value(kind, value, path, details)))


def _named(path: Path, reason: str) -> str:
    """Put the key before what is wrong with it: `llm.seed must be an integer`, `llm.seed: anything else`."""
    return f"{dotted(path)}{' ' if reason.startswith('must ') else ': '}{reason}" if path else reason


def _wrong_value(kind: str, value: Any, path: Path, details: ErrorDetails) -> str:
    limits = details.get("ctx", {})
    shown = _show(value)
    if value is None and isinstance(path[-1], int):
        return "must not be empty"
    if value is None:
        return f"must not be empty; leave the key out for the default ({_default(path)})"
    match kind:
        case "literal_error" | "none_required":
            return _not_allowed(value, path)
        case "bool_type":
            word = _WORDS_FOR_BOOL.get(str(value).lower())
            hint = f"; write {word}, `{value}` is text in YAML 1.2" if word else ""
            return f"must be true or false, got {shown}{hint}"
        case "int_type" | "int_from_float":
            return f"must be an integer, got {shown}{_unit_hint(value, path)}"
        case "float_type" | "finite_number":
            return f"must be a finite number, got {shown}{_unit_hint(value, path)}"
        case "string_type":
            return "must be text" if isinstance(value, dict | list) else f"must be text, got {shown}; put it in quotes"
        case "string_pattern_mismatch":
            return f"must be 1 to 64 letters, digits, `.`, `_`, `-`, the first a letter or digit, got {shown}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a section of keys, got {shown}"
        case "tuple_type" | "list_type":
            example = "[0.25, 0.5, 1]" if path[-1] == "sizes" else "[BTCUSDT, ETHUSDT]"
            return f"must be a list such as {example}, got {shown}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}, got {shown}"
        case "greater_than":
            return f"must be more than {limits['gt']:g}, got {shown}"
        case "less_than_equal":
            return f"must be at most {limits['le']:g}, got {shown}{_percent_hint(value, limits['le'])}"
        case "less_than":
            return f"must be less than {limits['lt']:g}, got {shown}{_percent_hint(value, limits['lt'])}"
    return f"{shown}: {details['msg']}"


def _not_allowed(value: Any, path: Path) -> str:
    info = field_at(path)
    allowed = [_plain(choice) for choice in _choices(info.annotation)] if info else []
    if allowed in (["null"], ["false"], ["true"]):
        reason = f": {info.description}" if info and info.description else ""
        return f"must be {allowed[0]}, got {_show(value)}{reason}"
    guess = nearest(str(value), allowed) if isinstance(value, str) else None
    hint = f"; did you mean {guess}?" if guess else ""
    return f"must be one of {', '.join(allowed)}, got {_show(value)}{hint}"


def _choices(annotation: Any) -> list[Any]:
    if annotation is None or annotation is type(None):
        return [None]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _unit_hint(value: Any, path: Path) -> str:
    """Suggest what to write instead of a number with a unit, a thousands separator, or quotes."""
    if not isinstance(value, str):
        return ""
    match = _NUMBER.fullmatch(value)
    if match is None:
        return ""
    digits, unit = match.group(1).replace("_", "").replace(",", ""), match.group(2)
    name = str(path[-1])
    if unit == "%":
        if name.endswith("_bps"):
            return f"; write basis points: {float(digits) * 100:g}"
        return f"; write a fraction: {float(digits) / 100:g}"
    if unit:
        return f"; write it without the unit: {digits}"
    return f"; write it without quotes or separators: {digits.lstrip('0') or '0'}"


def _percent_hint(value: Any, limit: float) -> str:
    return f" (as a fraction: {value:g} % is {value / 100:g})" if limit <= 1 and value <= 100 else ""


def _origin(path: Path, origins: Origins) -> str:
    """Return where the value at `path` was written, or else the nearest section around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return ""


def _origin_of_mentioned(path: Path, reason: str, origins: Origins) -> str:
    """Return where the first setting that `reason` names was written; else as `_origin`."""
    for word in re.findall(r"[a-z][a-z_]*(?:\.[a-z_]+)*", reason):
        mentioned = (*path, *word.split("."))
        if mentioned in origins and field_at(mentioned) is not None:
            return origins[mentioned]
    return _origin(path, origins)


def _section(path: Path) -> type[Section] | None:
    if not path:
        return Config
    info = field_at(path)
    annotation = info.annotation if info else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _nearest_key(word: str, above: Path, model: type[Section]) -> str | None:
    """Return the setting that was most likely meant: a similar key here, or the same or a similar one elsewhere."""
    if word in Config.model_fields:
        return word
    here = nearest(word, model.model_fields)
    elsewhere = {key: name for name in Config.model_fields for key in getattr(_section((name,)), "model_fields", ())}
    there = word if word in elsewhere else None if here else nearest(word, elsewhere)
    if there is not None:
        return f"{elsewhere[there]}.{there}"
    return dotted((*above, here)) if here is not None else None


def _default(path: Path) -> str:
    info = field_at(path)
    if info is None or isinstance(info.default, Section):
        return "all defaults"
    return _plain(info.get_default(call_default_factory=True))


def _plain(value: Any) -> str:
    """Write a scalar as in YAML."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:g}"
    return str(value)


def _show(value: Any) -> str:
    """Show a value in an error message: short, and never one that may be a key."""
    if isinstance(value, dict):
        return "a section of keys"
    text = repr(value) if isinstance(value, str | list) else _plain(value)
    if holds_secret(text):
        return "the value (not shown: it looks like a key)"
    return text if len(text) <= 60 else text[:57] + "..."
