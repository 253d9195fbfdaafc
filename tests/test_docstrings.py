"""What a public function takes is documented: each parameter, where there is more than one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "agent_bt"
# The parameters of commands are flags, which carry their help texts.
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "cli"]


def public_functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Public functions, and public methods of public classes; True: of a class that has bases.

    A method of a class with bases may have its parameters documented there.
    """
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield inner, bool(node.bases)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg, given.kwarg])]
    return [each.arg for each in every if each.arg not in ("self", "cls")]


def documented(docstring: str) -> set[str]:
    """Names at the beginning of the lines under `Args:`; `start, end: ...` documents both."""
    named: set[str] = set()
    for names in re.findall(r"(?m)^    (\w+(?:, \w+)*): \S", docstring.partition("Args:")[2]):
        named.update(names.split(", "))
    # A sentence may say it all: "Hold the target `weight` of `symbol`."
    return named | set(re.findall(r"`(\w+)`", docstring))


def missing(path: Path) -> list[str]:
    found = []
    for function, inherits in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        names, docstring = parameters(function), ast.get_docstring(function) or ""
        lacking = [name for name in names if name not in documented(docstring)]
        if len(names) > 1 and lacking and not (inherits and lacking == names):
            found.append(f"{path.name}:{function.lineno} {function.name}: {', '.join(lacking)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_parameter_of_a_public_function_is_documented(path: Path) -> None:
    assert missing(path) == []


def test_what_is_missing_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        'def f(a, *, b):\n    """Add.\n\n    Args:\n        a: the one.\n    """\n'
        'def g(a, b):\n    """Add.\n\n    Args:\n        a, b: the two.\n    """\n'
        'def h(a):\n    """Return it."""\ndef _i(a, b):\n    """Private."""\n'
        'class C:\n    def m(self, a, b):\n        """Add."""\n'
        'class D(C):\n    def m(self, a, b):\n        """Add otherwise."""\n'
    )
    assert missing(path) == ["module.py:1 f: b", "module.py:18 m: a, b"]
