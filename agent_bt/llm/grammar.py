"""Turn a JSON Schema into a GBNF grammar, the form in which llama.cpp restricts what a model may write.

A grammar leaves less room than the schema of a `response_format`: keys in their order, one space after each colon and
comma and no other white space, enumerated numbers, and texts that end after `MAX_TEXT_CHARS` characters. So a model
that repeats itself ends its reply, instead of filling `max_tokens` and leaving half an object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

MAX_TEXT_CHARS: Final = 200
"""Longest text that a grammar lets a model write; a note of a few words is shorter, and llama.cpp refuses thousands."""

_RULES: Final = {
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "number": r'"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})?',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "boolean": '"true" | "false"',
}
"""Rules that others refer to, by name; a rule that none refers to is left out."""

_NAMES: Final = re.compile(r'"(?:\\.|[^"\\])*"|([a-z]+)')
"""Names of rules in an expression; what stands inside a literal is none."""


def gbnf(schema: Mapping[str, Any]) -> str:
    r"""Return the grammar of a JSON Schema, in llama.cpp's GBNF.

    Args:
        schema: of types object (its properties are all required, in their order), array, string, number, integer and
            boolean, or with `enum` or `const`. Limits of numbers are not held, as llama.cpp's own converter.

    Returns:
        The grammar; its start rule is `root`.

    Raises:
        ValueError: the schema uses something else.

    >>> print(gbnf({"type": "object", "properties": {"size": {"type": "number", "enum": [0.5, 1]}}}))
    root ::= "{\"size\": " ("0.5" | "1") "}"
    """
    root = _expression(schema)
    used = [name for name in _RULES if name in _NAMES.findall(root)]
    return "\n".join([f"root ::= {root}", *(f"{name} ::= {_RULES[name]}" for name in used)])


def _expression(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return _literal(json.dumps(schema["const"]))
    if "enum" in schema:
        return "(" + " | ".join(_literal(json.dumps(value)) for value in schema["enum"]) + ")"
    match schema.get("type"):
        case "object":
            return _object(schema["properties"])
        case "array":
            item = _expression(schema["items"])
            return f'"[" ({item} (", " {item})*)? "]"'
        case "string":
            longest = min(schema.get("maxLength", MAX_TEXT_CHARS), MAX_TEXT_CHARS)
            return rf'"\"" char{{0,{longest}}} "\""'
        case "number" | "integer" | "boolean" as name:
            return str(name)
    raise ValueError(f"no grammar for the schema {json.dumps(schema)}")


def _object(properties: Mapping[str, Any]) -> str:
    parts: list[str] = []
    text = "{"
    for at, (name, member) in enumerate(properties.items()):
        text += f"{', ' if at else ''}{json.dumps(name)}: "
        parts += [_literal(text), _expression(member)]
        text = ""
    return " ".join([*parts, _literal(text + "}")])


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
