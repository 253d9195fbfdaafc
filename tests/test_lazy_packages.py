"""Packages that offer public names load them when they are asked for, and nothing before."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = ["agent_bt.backtest", "agent_bt.bars", "agent_bt.config"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_does_not_exist_is_an_attribute_error(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_importing_the_packages_loads_nothing_heavy() -> None:
    heavy = ["numpy", "polars", "numba", "pydantic"]
    code = f"import sys, {', '.join(PACKAGES)}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_the_names_that_users_import_from_a_package_are_those_of_agent_bt() -> None:
    import agent_bt
    from agent_bt.backtest import create_backtest_engine, create_momentum_backtest, create_strategy
    from agent_bt.config import Config

    assert create_backtest_engine is agent_bt.create_backtest_engine
    assert create_momentum_backtest is agent_bt.create_momentum_backtest
    assert create_strategy is agent_bt.create_strategy
    assert isinstance(agent_bt.load_config(None, env={}), Config)
