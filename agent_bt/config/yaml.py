"""Read YAML into plain data with the line of every value, by the core schema of YAML 1.2.

PyYAML composes the nodes; its YAML 1.1 rules are replaced, so that `1e-4` is a number, while `no`, `12:30` and
`2024-07-01` stay text. Keys are always text. Problems are collected, so that all of them are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

Path = tuple[str | int, ...]
"""Place of a value: keys and list positions from the top."""

_TAG = "tag:yaml.org,2002:"
_STR, _NULL, _BOOL, _INT, _FLOAT, _MERGE = (_TAG + kind for kind in ("str", "null", "bool", "int", "float", "merge"))
_SEQ, _MAP = _TAG + "seq", _TAG + "map"
_PLAIN = (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    (_FLOAT, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    (_MERGE, r"<<", ["<"]),
)
_SCALARS: dict[str, Callable[[str], Any]] = {
    _STR: str,
    _NULL: lambda _: None,
    _BOOL: lambda text: {"true": True, "false": False}[text.lower()],
    _INT: lambda text: int(text, 0),
    _FLOAT: lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}
_MOST_NODES = 50_000


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to hold them


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or our own rules would read as something else."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Only double quotes can hold the line breaks of Unicode as they are.
        unusual = not {"\x85", "\u2028", "\u2029"}.isdisjoint(data)
        return self.represent_scalar(_STR, data, style='"' if unusual else None)


_Dumper.add_representer(str, _Dumper.represent_str)
for _tag, _pattern, _first in _PLAIN:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error in a YAML text.

    Attributes:
        line: where, from 1.
        message: what.
    """

    line: int
    message: str


@dataclass(slots=True, kw_only=True)
class Document:
    """The data of a YAML text, with the line of each value.

    Attributes:
        data: plain data.
        lines: line of every value, from 1.
        problems: what is wrong with the text.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def parse_yaml(text: str) -> Document:
    """Read one YAML document; the data of an empty one are None. Bad YAML is not raised: see `problems`."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            document.data = _Converter(document).value(node, ())
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append(Problem(line=line, message="a character that YAML does not allow"))
    except _TooMuch:
        message = f"more than {_MOST_NODES:,} values, aliases counted each time they are used: too many for a config"
        document.problems.append(Problem(line=1, message=message))
    except RecursionError:
        document.problems.append(Problem(line=1, message="nested too deeply"))
    return document


def dump_yaml(data: Any) -> str:
    """Write plain data as YAML, in its order; `parse_yaml` reads the same data back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    message = error.problem or error.context or "not YAML"
    if "quoted scalar" in (error.context or "") and "end of stream" in message:
        mark, message = error.context_mark, "a quote that is not closed"
    elif "\\t" in message:
        message = "a tab; YAML is indented with spaces"
    elif "mapping values are not allowed" in message:
        message = "a second `: ` where a value was expected; check the indentation, or quote the value"
    elif "alias" in message or "anchor" in message:
        message = f"{message}; an anchor (&name) must come before its alias (*name)"
    elif "expected a single document" in (error.context or ""):
        message = "a second document starts here; a config is one document"
    return Problem(line=mark.line + 1 if mark else 1, message=message)


class _TooMuch(Exception):
    """The document is too large to be a config: aliases can expand a small file."""


class _Converter:
    """Converts nodes to data and keeps their lines; an alias is converted like the value it stands for."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.open: set[int] = set()
        self.count = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.document.lines.setdefault(path, _line(node))
        self.step()
        if id(node) in self.open:
            self.problem(node, "an alias that contains itself")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if node.tag not in (_SEQ, _MAP):
            self.problem(node, f"the tag {node.tag} does not fit here; leave it out")
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, at)) for at, item in enumerate(node.value)]
            return self.mapping(cast(yaml.MappingNode, node), path)
        finally:
            self.open.discard(id(node))

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        try:
            return _SCALARS[node.tag](text)
        except KeyError:
            self.problem(node, f"the tag {node.tag} does not fit here; leave it out")
        except ValueError:
            self.problem(node, "a number that cannot be read")
        return None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self.step()
        found: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value_node in self.own_pairs(node):
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, "a key must be plain text")
                continue
            key: str = key_node.value
            if key in seen:
                self.problem(key_node, f"the key {dotted((*path, key))!r} is given twice, first in line {seen[key]}")
                continue
            seen[key] = _line(key_node)
            self.document.lines.setdefault((*path, key), _line(key_node))
            found[key] = self.value(value_node, (*path, key))
        for merged in self.merged_mappings(node):
            for key, value in self.mapping(merged, path).items() if id(merged) not in self.open else ():
                found.setdefault(key, value)
        return found

    def own_pairs(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        return (pair for pair in node.value if pair[0].tag != _MERGE)

    def merged_mappings(self, node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            candidates = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for candidate in candidates:
                if isinstance(candidate, yaml.MappingNode):
                    yield candidate
                else:
                    self.problem(candidate, "`<<` takes a mapping, or a list of mappings")

    def step(self) -> None:
        self.count += 1
        if self.count > _MOST_NODES:
            raise _TooMuch

    def problem(self, node: yaml.Node, message: str) -> None:
        self.document.problems.append(Problem(line=_line(node), message=message))


def dotted(path: Path) -> str:
    """Write a path as on the command line: `llm.params.top_p`, `pool.include[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
