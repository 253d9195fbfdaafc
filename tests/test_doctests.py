"""The examples in the docstrings of the package do what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import agent_bt

ROOT = Path(agent_bt.__file__).parent
MODULES = sorted(
    ".".join(("agent_bt", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
EXAMPLES = ("Decision", "FeatureSpec", "MarketView", "Portfolio")


@pytest.mark.parametrize("module", MODULES)
def test_examples_of(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever an example writes goes to a folder of its own.
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_value_type_that_strategies_use_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(agent_bt, name)) or "")
