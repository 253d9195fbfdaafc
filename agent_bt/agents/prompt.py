"""Prompt files: `prompts/<name>/<version>.prompty`, YAML front matter and a Jinja2 body split by role.

1. Find the file below the search roots, or at a path                 `load_prompt`
2. Check that a locked version was not changed                        `check_lock`
3. Read and check the front matter                                    `_front_matter`
4. Split the body at the lines `system:`, `user:`, `assistant:`       `_split`
5. Compile each part on its own, and check its names                  `_Part`
6. Render the parts one by one, so that data can never open a role    `Prompt.render`
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_bt.agents.context import AccountInput, SummaryInput, WindowInput
from agent_bt.agents.prompt_lock import check_lock
from agent_bt.config.yaml import dotted, parse_yaml
from agent_bt.core.errors import PromptError
from agent_bt.core.suggest import did_you_mean

SUFFIX = ".prompty"
ROLES = ("system", "user", "assistant")

_FENCE = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(rf"^({'|'.join(ROLES)}):[ \t]*(?:\n|\Z)", re.MULTILINE)
_REFERENCE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class ModelDefaults(BaseModel):
    """Request parameters that the author of a prompt suggests; None: no suggestion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    description: str = ""
    inputs: dict[str, str]
    model: ModelDefaults = ModelDefaults()
    output: dict[str, Any]


class _Undefined(jinja2.StrictUndefined):
    """Undefined names are errors that name the nearest one there is."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint or not isinstance(self._undefined_name, str):
            return super()._undefined_message
        if self._undefined_obj is jinja2.utils.missing:
            return f"{self._undefined_name!r} is undefined"
        found = self._undefined_obj
        there = list(found) if isinstance(found, dict) else [name for name in dir(found) if not name.startswith("_")]
        return f"no {self._undefined_name!r} here{_hint(self._undefined_name, map(str, there))}"


_INPUTS = (WindowInput, SummaryInput, AccountInput, datetime)


class _Environment(ImmutableSandboxedEnvironment):
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # Jinja looks for functions, classes, frames and mutable collections; what a prompt is given is none of them,
        # so that the rule about underscores is the only one left to check.
        if type(obj) in _INPUTS:
            return not attr.startswith("_")
        return super().is_safe_attribute(obj, attr, value)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(undefined=_Undefined, trim_blocks=True, lstrip_blocks=True)
    # What is not the same every time has no place in a prompt.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


_ENVIRONMENT = _environment()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    role: str
    template: jinja2.Template
    first_line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt file, compiled.

    Attributes:
        name, version: as in `name/version`.
        description: its purpose.
        inputs: name -> description of everything that the body may use.
        model: request parameters that the author suggests.
        output: JSON Schema of the reply.
        path: the file. text: its text. hash: SHA-256 of the text, hexadecimal.
    """

    name: str
    version: str
    description: str
    inputs: Mapping[str, str]
    model: ModelDefaults
    output: Mapping[str, Any]
    path: Path
    text: str
    hash: str
    _parts: tuple[_Part, ...]
    _uses: frozenset[str]

    @property
    def reference(self) -> str:
        """Return `name/version`."""
        return f"{self.name}/{self.version}"

    def uses(self) -> frozenset[str]:
        """Return the inputs that the body refers to: `account.position`, or `account` where it uses all of it."""
        return self._uses

    def render(self, context: Mapping[str, Any]) -> list[dict[str, str]]:
        """Return the messages: `role` and `content` each.

        Args:
            context: a value for every input.

        Raises:
            PromptError: an input is missing, or the body cannot be rendered; names file, line and the nearest name.
        """
        for name in self.inputs:
            if name not in context:
                raise PromptError(f"{self.path}: the input {name!r} does not exist{_hint(name, context)}")
        return [{"role": part.role, "content": self._fill(part, context)} for part in self._parts]

    def _fill(self, part: _Part, context: Mapping[str, Any]) -> str:
        try:
            return part.template.render(context)
        except Exception as error:  # an error in a template surfaces as the exception of what it called
            line = part.first_line + _line_of(error) - 1
            raise PromptError(f"{self.path}, line {line}: {error}") from error


def load_prompt(reference: str | Path, roots: Sequence[Path]) -> Prompt:
    """Read and compile a prompt.

    Args:
        reference: `name/version`, looked up in the roots in their order, or the path of a `.prompty` file.
        roots: folders with `<name>/<version>.prompty`; see `prompt_roots`.

    Raises:
        PromptError: the prompt does not exist (lists existing ones), the file is not valid (names file and line), or
            it is locked and was changed.
    """
    path = _find(str(reference), roots)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from error
    text_hash = hashlib.sha256(text.encode()).hexdigest()
    check_lock(path, text_hash)
    front, body, first_line = _front_matter(path, text)
    if path.suffix == SUFFIX and not str(reference).endswith(SUFFIX) and front.name != path.parent.name:
        raise PromptError(
            f"{path}: the name is {front.name!r}, but the folder is {path.parent.name!r}; make them equal"
        )
    parts: list[_Part] = []
    uses: set[str] = set()
    for role, source, line in _split(path, body, first_line):
        try:
            template = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(f"{path}, line {line + error.lineno - 1}: {error.message}") from None
        uses |= _check_names(path, _ENVIRONMENT.parse(source), line, front.inputs)
        parts.append(_Part(role=role, template=template, first_line=line))
    return Prompt(
        name=front.name,
        version=path.stem,
        description=front.description.strip(),
        inputs=front.inputs,
        model=front.model,
        output=front.output,
        path=path,
        text=text,
        hash=text_hash,
        _parts=tuple(parts),
        _uses=frozenset(uses),
    )


def prompt_roots(config: Path | None = None, *, shipped: bool = True) -> tuple[Path, ...]:
    """Return the folders in which prompts are looked up: `./prompts`, `prompts` beside the config, the shipped ones.

    Args:
        config: the config file; None: there is none.
        shipped: whether the shipped prompts are found too.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "_shipped" / "prompts"
    candidates = [Path("prompts")]
    if config is not None:
        candidates.append(config.parent / "prompts")
    if shipped:
        candidates.append(installed if installed.is_dir() else package.parent / "prompts")
    found: dict[Path, Path] = {}
    for root in candidates:
        found.setdefault(root.resolve(), root)
    return tuple(found.values())


def available_prompts(roots: Sequence[Path]) -> dict[str, Path]:
    """Return every `name/version` below the roots with its file, sorted; the first root that has one wins."""
    found: dict[str, Path] = {}
    for root in roots:
        for path in root.glob(f"*/*{SUFFIX}"):
            found.setdefault(f"{path.parent.name}/{path.stem}", path)
    return dict(sorted(found.items()))


def _find(reference: str, roots: Sequence[Path]) -> Path:
    if reference.endswith(SUFFIX):
        places = [Path(reference)] if Path(reference).is_absolute() else [Path(), *(root.parent for root in roots)]
        for place in places:
            if (place / reference).is_file():
                return place / reference
        raise PromptError(f"there is no prompt file {reference}")
    there = available_prompts(roots)
    if reference in there and _REFERENCE.fullmatch(reference):
        return there[reference]
    name = reference.partition("/")[0]
    versions = [known.partition("/")[2] for known in there if known.startswith(f"{name}/")]
    if versions:
        raise PromptError(f"there is no prompt {reference!r}; versions of {name}: {', '.join(versions)}")
    searched = ", ".join(str(root) for root in roots)
    raise PromptError(f"there is no prompt {reference!r}{_hint(reference, there)} (searched: {searched})")


def _front_matter(path: Path, text: str) -> tuple[_FrontMatter, str, int]:
    """Return the front matter, the body, and the line of the file that the body starts in."""
    match = _FENCE.match(text)
    if match is None:
        raise PromptError(f"{path}, line 1: a prompt must start with YAML between two lines of three dashes (---)")
    document = parse_yaml("\n" + match.group(1))  # so that lines keep their numbers
    if document.problems:
        problem = document.problems[0]
        raise PromptError(f"{path}, line {problem.line}: {problem.message}")
    try:
        front = _FrontMatter.model_validate(document.data if document.data is not None else {}, strict=True)
        Draft202012Validator.check_schema(front.output)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        where = tuple(details["loc"])
        line = next((document.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in document.lines), 1)
        known = f" (keys: {', '.join(_FrontMatter.model_fields)})" if details["type"] == "extra_forbidden" else ""
        raise PromptError(f"{path}, line {line}: {dotted(where)}: {details['msg']}{known}") from None
    except SchemaError as error:
        line = document.lines.get(("output", *error.absolute_path), document.lines["output",])
        raise PromptError(f"{path}, line {line}: output is not a JSON Schema: {error.message}") from None
    return front, text[match.end() :], text.count("\n", 0, match.end()) + 1


def _split(path: Path, body: str, first_line: int) -> Iterator[tuple[str, str, int]]:
    """Yield the parts of a body: role, template without the blank lines around it, and the line it starts in."""
    marks = list(_ROLE.finditer(body))
    before = body[: marks[0].start()] if marks else body
    if before.strip() or not any(mark.group(1) == "user" for mark in marks):
        raise PromptError(
            f"{path}, line {first_line}: the body must consist of parts that begin with a line `system:`, `user:` or"
            " `assistant:`, with at least a user part and nothing before the first one"
        )
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        source = body[mark.end() : following.start() if following else len(body)]
        lead = len(source) - len(source.lstrip())
        line = first_line + body.count("\n", 0, mark.end() + lead)
        if not source.strip():
            raise PromptError(f"{path}, line {line}: the part `{mark.group(1)}:` is empty")
        yield mark.group(1), source.strip(), line


def _check_names(path: Path, tree: nodes.Template, first_line: int, inputs: Mapping[str, str]) -> set[str]:
    """Return what the template refers to; every name must be a declared input or one of Jinja's own."""
    names = meta.find_undeclared_variables(tree)
    for node in tree.find_all(nodes.Name):
        if node.name in names and node.name not in inputs and node.name not in _ENVIRONMENT.globals:
            line = first_line + node.lineno - 1
            raise PromptError(f"{path}, line {line}: {node.name!r} is undefined{_hint(node.name, inputs)}")
    return set(_references(tree, names & inputs.keys()))


def _references(node: nodes.Node, names: set[str]) -> Iterator[str]:
    """Yield dotted chains that start at one of `names`, as far as they are written out."""
    chain = _chain(node)
    if chain is not None:
        if chain[0] in names:
            yield ".".join(chain)
        return
    for child in node.iter_child_nodes():
        yield from _references(child, names)


def _chain(node: nodes.Node) -> tuple[str, ...] | None:
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        base, attribute = _chain(node.node), node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        base, attribute = _chain(node.node), node.arg.value
    else:
        return None
    return None if base is None else (*base, attribute)


def _line_of(error: BaseException) -> int:
    """Return the template line that an exception came from; Jinja marks its own frames."""
    line, trace = 1, error.__traceback__
    while trace is not None:
        if "__jinja_exception__" in trace.tb_frame.f_globals:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _hint(name: str, among: Iterable[str]) -> str:
    existing = sorted(among)
    return f" (there is {', '.join(existing) or 'none'}){did_you_mean(name, existing)}"
