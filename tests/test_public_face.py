"""The public face of the package: what `import agent_bt` gives, and that it costs nothing until it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import agent_bt

FACE = {
    *("Decision", "FeatureSpec", "MarketView", "Portfolio", "Strategy"),
    *("compare", "load_config", "load_run", "replay", "run"),
    *("FactorConfig", "FactorSignalGenerator", "RankSignalGenerator", "RuleCondition", "RuleSignalGenerator"),
    *("TechnicalRuleGenerator", "EnsembleSignalGenerator", "SignalStrategy", "create_strategy"),
    *("create_backtest_engine", "create_momentum_backtest", "create_mean_reversion_backtest"),
}


def test_the_names_of_the_package() -> None:
    assert set(agent_bt.__all__) == FACE
    assert list(agent_bt.__all__) == sorted(agent_bt.__all__)


@pytest.mark.parametrize("name", agent_bt.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    found = getattr(agent_bt, name)
    assert found.__name__ == name
    assert inspect.getdoc(found)


def test_no_module_hides_behind_a_name_once_it_is_imported() -> None:
    names = {path.stem for path in Path(agent_bt.__file__).parent.iterdir()}
    assert names & FACE == set()


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'engines'"):
        agent_bt.engines  # noqa: B018
    assert not hasattr(agent_bt, "_anything")


def test_the_signatures_that_users_call() -> None:
    assert list(inspect.signature(agent_bt.load_config).parameters)[:2] == ["path", "overrides"]
    parameters = inspect.signature(agent_bt.run).parameters
    assert next(iter(parameters)) == "config"
    assert {"config_path", "limit", "fresh", "progress"} <= set(parameters)
    assert all(one.kind is one.KEYWORD_ONLY for name, one in parameters.items() if name != "config")
    assert list(inspect.signature(agent_bt.load_run).parameters) == ["path"]
    assert list(inspect.signature(agent_bt.Strategy.decide).parameters) == ["self", "view", "portfolio"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "numpy polars numba talib openai plotly pydantic rich typer httpx"
    code = f"import sys, agent_bt; print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == []
