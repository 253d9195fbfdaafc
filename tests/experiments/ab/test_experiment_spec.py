"""An experiment's file: what it may say, and how every mistake in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_bt.core.errors import AgentBtError, ConfigError, UsageError
from agent_bt.experiments.ab.cells import cells_of
from agent_bt.experiments.ab.spec import load_experiment

GOOD = """\
base: base.yaml
arms:
  v1: {strategy.prompt: btcusdt_trader/v1}
  v2: {strategy.prompt: btcusdt_trader/v2}
baseline: v1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("market: {start: 2024-07-01, end: 2024-07-31}\nllm: {temperature: 0.5}\n")
    return tmp_path


def load(folder: Path, text: str, *overrides: str):
    (folder / "ab.yaml").write_text(text)
    return load_experiment(Path("ab.yaml"), overrides)


def test_the_layers_base_set_environment_override_arm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_BT_LLM__MODEL", "from-environment")
    monkeypatch.setenv("AGENT_BT_SEED", "11")
    text = GOOD.replace("v2}", "v2, llm.model: from-arm}").replace("arms:", "set: {seed: 9, llm.max_tokens: 99}\narms:")
    experiment = load(folder, text, "llm.max_tokens=123")
    v1, v2 = experiment.arms["v1"], experiment.arms["v2"]
    assert (v1.llm.temperature, v1.seed, v1.llm.max_tokens) == (0.5, 11, 123)
    assert (v1.llm.model, v2.llm.model) == ("from-environment", "from-arm")


def test_cells_are_arms_by_replicates_by_windows(folder: Path) -> None:
    experiment = load(folder, GOOD + "replicates: 2\nwindows: {every: 14d}\n")
    cells = cells_of(experiment)
    assert len(cells) == len({cell.relative_path for cell in cells}) == 2 * 2 * 3
    spans = [(c.config.market.start, c.config.market.end) for c in cells if (c.arm, c.replicate) == ("v1", 0)]
    assert spans == [("2024-07-01", "2024-07-15"), ("2024-07-15", "2024-07-29"), ("2024-07-29", "2024-07-31")]
    assert {c.config.llm.replicate for c in cells} == {0, 1}


def test_keys_of_the_experiment_can_be_set_on_the_command_line(folder: Path) -> None:
    declared = load(folder, GOOD, "replicates=5", "windows.every=7d", "metric=sharpe").declared
    assert (declared.replicates, declared.windows.every, declared.metric) == (5, "7d", "sharpe")
    switched_off = load(folder, GOOD + "windows: null\n", "windows.every=7d").declared
    assert switched_off.windows.every == "7d"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("strategy.prompt: btcusdt_trader/v2", "strategy.promt: x"), "ab.yaml, line 4, arm v2: strategy.promt is no"),
        (("strategy.prompt: btcusdt_trader/v2", "llm.max_tokens: lots"), "ab.yaml, line 4, arm v2: llm.max_tokens"),
        (("baseline: v1", "baseline: v3"), "ab.yaml, line 5: baseline: 'v3' is not one of v1, v2"),
        (
            ("baseline: v1", "baseline: v1\nmetrik: sharpe"),
            "metrik is not a key of an experiment; did you mean",
        ),
        (("baseline: v1", "baseline: v1\nmetric: sharp"), "line 6: metric: 'sharp' is not one of"),
        (("baseline: v1", "baseline: v1\nreplicates: 0"), "line 6: replicates"),
        (("baseline: v1", "baseline: v1\nwindows: {evry: 7d}"), "did you mean windows.every"),
        (("baseline: v1", "baseline: v1\nwindows: {every: 90m}"), "windows.every (90m) must be a multiple of"),
        (("  v2: {strategy.prompt: btcusdt_trader/v2}\n", ""), "arms: give two or more"),
        (("  v2:", "  v 2:"), "may hold letters"),
        (
            ("btcusdt_trader/v2", "btcusdt_trader/v2, market.symbol: ETHUSDT"),
            "market.symbol is ETHUSDT, but BTCUSDT in arm v1",
        ),
        (("btcusdt_trader/v2", "btcusdt_trader/v2, budget.calls: 5"), "arm v2: budget is"),
        (("base: base.yaml", "base: bse.yaml"), "did you mean base.yaml"),
        (("baseline: v1", "baseline: v1\nbaseline: v2"), "'baseline' is given twice"),
    ],
)
def test_a_mistake_is_told_with_its_place(folder: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, GOOD.replace(*change))
    assert told in str(caught.value)


def test_what_the_arms_differ_in_cannot_be_set_for_all(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"arm v1 sets strategy\.prompt itself"):
        load(folder, GOOD, "strategy.prompt=btcusdt_trader/v2")


def test_a_missing_prompt_is_told_with_its_arm_before_anything_runs(folder: Path) -> None:
    from agent_bt.core.progress import SilentProgress
    from agent_bt.experiments.ab.run import run_experiment

    experiment = load(folder, GOOD.replace("trader/v2", "trader/v9"))
    with pytest.raises(AgentBtError, match="arm v2: there is no prompt"):
        run_experiment(experiment, progress=SilentProgress())
    assert not (folder / "runs").exists()
