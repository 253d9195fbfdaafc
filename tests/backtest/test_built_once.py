"""The strategy of a run is built once: by the plan, before anything is loaded; its model is opened later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent_bt import load_config, replay
from agent_bt.agents.agent import PromptAgent
from agent_bt.backtest.model_reference import ModelReference
from agent_bt.backtest.plan import plan_run
from agent_bt.backtest.preview import render_prompt, validate
from agent_bt.backtest.run import run_config
from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError

COUNTED = """
from agent_bt import Decision, Strategy

built = []

class Counted(Strategy):
    def __init__(self, weight: float = 1.0) -> None:
        built.append(self)
        self.weight = weight

    def decide(self, view, portfolio):
        return Decision.to({view.symbols[0]: self.weight})
"""
RANGE = ["market.start=2024-07-01", "market.end=2024-07-03", "strategy.every=4h"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> list[PromptAgent]:
    """Every one-prompt agent that is built."""
    built: list[PromptAgent] = []
    init = PromptAgent.__init__

    def counted(self: PromptAgent, **parts: Any) -> None:
        built.append(self)
        init(self, **parts)

    monkeypatch.setattr(PromptAgent, "__init__", counted)
    return built


def agent_config(*settings: str) -> Config:
    return load_config(None, [*RANGE, *settings], env={})


def test_a_strategy_of_ones_own_is_built_once_a_run(folder: Path) -> None:
    (folder / "counted_once.py").write_text(COUNTED)
    config = load_config(None, [*RANGE, "strategy.kind=counted_once:Counted"], env={})
    result = run_config(config, report=False)
    import counted_once  # type: ignore[import-not-found]

    assert len(counted_once.built) == 1
    assert result.summary["decisions"]["total"] == 12  # every 4 h of 48 h
    assert validate(config)[0].level == "ok"
    assert len(counted_once.built) == 2
    assert replay(result.run_dir).identical
    assert len(counted_once.built) == 3


def test_an_agent_is_built_once_a_run(folder: Path, agents: list[PromptAgent]) -> None:
    result = run_config(agent_config(), report=False)
    assert len(agents) == 1
    assert result.summary["decisions"]["model"] == result.summary["decisions"]["total"] > 0
    assert replay(result.run_dir).identical
    assert len(agents) == 2
    validate(agent_config())
    render_prompt(agent_config())
    assert len(agents) == 4


def test_an_ensemble_builds_each_agent_once(folder: Path, agents: list[PromptAgent]) -> None:
    members = "strategy.params.members=[{kind: agent}, {kind: rsi, weight: 2}]"
    run_config(agent_config("strategy.kind=ensemble", members), report=False)
    assert len(agents) == 1


def test_what_is_wrong_with_a_strategy_is_found_before_a_market_is_loaded() -> None:
    def load(config: Config) -> Any:
        raise AssertionError("bars were loaded")

    for settings in (
        ["strategy.kind=rsi", "strategy.params.perid=14"],
        ["strategy.kind=agent", "strategy.params.window=5"],
        ["execution.lot_step=0.1000000000000000000001e-300"],
        ["prefetch.guess=rsii"],
    ):
        config = load_config(None, [*RANGE, *settings], env={})
        with pytest.raises(ConfigError):
            plan_run(config, load=load)


def test_an_agent_without_an_open_model_shows_its_requests_and_sends_none() -> None:
    plan = plan_run(agent_config())
    assert isinstance(plan.strategy, PromptAgent)
    assert isinstance(plan.strategy.llm, ModelReference)
    assert plan.strategy.llm is plan.model
    with pytest.raises(RuntimeError, match="not open"):
        plan.strategy.llm.complete(plan.model.form.request([{"role": "user", "content": "?"}]))
