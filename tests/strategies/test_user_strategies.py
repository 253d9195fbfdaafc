"""A user's own strategy by `module:Class`: what it may be, and the error for each mistake in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from whole_runs import START, config_over, minutes, run_over

from agent_bt.backtest.run import Result
from agent_bt.core.errors import ConfigError, StrategyError
from agent_bt.core.types import Decision
from agent_bt.strategies.registry import make_strategy
from agent_bt.strategies.simple import BuyAndHold

HEAD = "from agent_bt import Decision, FeatureSpec, Strategy\nimport numpy as np\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Write a module into the working directory; returns its name, which no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"own_{abs(hash(request.node.nodeid))}"

    def module(body: str) -> str:
        (tmp_path / f"{name}.py").write_text(HEAD + body)
        return name

    return module


def run_rule(folder: Path, kind: str, *settings: str, limit: int = 6) -> Result:
    minutes(1440, holes=False).write_parquet(folder / "market.parquet")
    end = START + timedelta(days=1)
    config = config_over(folder / "market.parquet", f"strategy.kind={kind}", *settings, folder=folder, end=end)
    return run_over(config, limit=limit, fresh=True)


def deciding(decision: str) -> str:
    return f"class Mine(Strategy):\n    def decide(self, view, portfolio):\n        return {decision}\n"


def test_a_strategy_of_ones_own_gets_its_params_features_and_rows(write: Callable[[str], str], tmp_path: Path) -> None:
    kind = write(
        "class Cross(Strategy):\n"
        "    lookback = 3\n"
        "    def __init__(self, fast, slow=9):\n"
        "        self.features = (FeatureSpec(column='f', kind='ema', params=(('period', fast),)),\n"
        "                         FeatureSpec(column='s', kind='ema', params=(('period', slow),)))\n"
        "    def decide(self, view, portfolio):\n"
        "        assert len(view) == 3\n"
        "        up = view.latest('f') > view.latest('s')\n"
        "        return Decision.to({view.symbols[0]: 1.0 if up else 0.0}, note=f'{portfolio.cash:.0f}')\n"
    )
    result = run_rule(tmp_path, f"{kind}:Cross", "strategy.params={fast: 4}", limit=20)
    assert (result.status, result.summary["decisions"]["model"]) == ("done", 20)
    frame = pl.read_parquet(result.run_dir / "decisions.parquet")
    assert frame["action"].unique().to_list() == ["TARGETS"]
    window = frame["window"].struct.unnest()
    fast, slow = window["f"].list.last(), window["s"].list.last()
    wanted = frame["targets"].list.first().struct.field("share")
    assert wanted.to_list() == (fast > slow).cast(pl.Float64).to_list()


def test_a_factory_will_do_and_a_class_without_a_name_has_its_own(write: Callable[[str], str], tmp_path: Path) -> None:
    kind = write(deciding("Decision.hold()") + "def build(): return Mine()\n")
    assert make_strategy(f"{kind}:build", {}).name == "Mine"
    assert make_strategy("buy_and_hold", {}).name == BuyAndHold.name == "buy_and_hold"


NONSENSE = {
    "None": "decide must return a Decision, got None",
    "'BUY'": "decide must return a Decision, got 'BUY'",
    "Decision.to({'BTCUSDT': float('nan')})": "got nan for BTCUSDT",
    "Decision.to({'BTCUSDT': float('inf')})": "got inf for BTCUSDT",
    "Decision.to({'BTCUSDT': 'a lot'})": "got 'a lot' for BTCUSDT",
    "Decision.buy('ETHUSDT')": "names 'ETHUSDT'; this run trades BTCUSDT",
    "Decision.buy('BTCUSDT', 1.01)": "must be finite numbers in [-1, 1], got 1.01",
    "Decision.buy('BTCUSDT', sizing='all')": "sizing must be one of available, equity",
    "Decision(action='banana')": "action must be one of BUY, SELL, HOLD, TARGETS",
    "Decision(targets={'BTCUSDT': 1.0})": "make it with Decision.to",
    "Decision(trades={'BTCUSDT': 1.0})": "make it with Decision.buy or Decision.sell",
    "Decision(targets={}, trades={}, action='TARGETS')": "make it with Decision.to",
    "Decision.hold(note=5)": "note must be text, got 5",
    "view.column('close').sort()": "ValueError",
    "view.prices.update(BTCUSDT=1.0)": "AttributeError",
    "view.latest('ema')": "no column 'ema' in view",
    "[][0]": "IndexError",
    "exit(0)": "SystemExit",
}


@pytest.mark.parametrize("decision", NONSENSE)
def test_nonsense_is_an_error_that_names_strategy_decision_and_bar(
    write: Callable[[str], str], tmp_path: Path, decision: str
) -> None:
    kind = write(deciding(decision))
    with pytest.raises(StrategyError) as caught:
        run_rule(tmp_path, f"{kind}:Mine")
    assert str(caught.value).startswith("strategy Mine, decision 0 at 2024-07-01T01:00Z: ")
    assert NONSENSE[decision] in str(caught.value)
    assert caught.value.exit_code == 1


WRONG = {
    "lookback = 0": "lookback must be an integer of at least 1",
    "lookback = 2.5": "lookback must be an integer of at least 1",
    "lookback = '5'": "lookback must be an integer of at least 1",
    "summary = 'weekly'": "summary must be None, 'calendar' or 'rolling'",
    "features = ('ema',)": "features must be a sequence of agent_bt.FeatureSpec",
    "features = (FeatureSpec(column='close', kind='rsi', params=(('period', 3),)),)": "unique, got close twice",
    "features = 2 * (FeatureSpec(column='x', kind='rsi', params=(('period', 3),)),)": "unique, got x twice",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_strategy_that_asks_for_what_cannot_be_is_refused(write: Callable[[str], str], line: str) -> None:
    kind = write(deciding("Decision.hold()").replace("    def", f"    {line}\n    def"))
    with pytest.raises(ConfigError, match=f"{kind}:Mine") as caught:
        make_strategy(f"{kind}:Mine", {})
    assert WRONG[line] in str(caught.value)


@pytest.mark.parametrize("spec", ["kind='nope'", "kind='ema'", "kind='ema', params=(('period', 0),)"])
def test_a_feature_that_cannot_be_computed_is_named(write: Callable[[str], str], tmp_path: Path, spec: str) -> None:
    line = f"features = (FeatureSpec(column='mine', {spec}),)"
    kind = write(deciding("Decision.hold()").replace("    def", f"    {line}\n    def"))
    with pytest.raises(StrategyError, match="feature 'mine'"):
        run_rule(tmp_path, f"{kind}:Mine")


SIGNALS = {
    "columns('return_24')": "no column 'return_24' in market.*name it in super",
    "1 / 0 * columns('close')": r"targets failed: ZeroDivisionError: division by zero \(.*line \d+\)",
    "np.ones(3)": "targets must return an array of the shape of eligible",
}


@pytest.mark.parametrize("answer", SIGNALS)
def test_a_mistake_in_targets_is_told_as_the_strategys(
    write: Callable[[str], str], tmp_path: Path, answer: str
) -> None:
    kind = write(
        "from agent_bt import SignalStrategy\n"
        "class Mine(SignalStrategy):\n"
        "    name = 'mine'\n"
        "    def __init__(self):\n        super().__init__(columns=['close'])\n"
        f"    def targets(self, columns, eligible):\n        return {answer}\n"
    )
    with pytest.raises(StrategyError, match=SIGNALS[answer]):
        run_rule(tmp_path, f"{kind}:Mine")


def test_targets_that_look_ahead_are_refused_on_a_short_run(write: Callable[[str], str], tmp_path: Path) -> None:
    kind = write(
        "from agent_bt import SignalStrategy\n"
        "class Mine(SignalStrategy):\n"
        "    name = 'mine'\n"
        "    def __init__(self):\n        super().__init__(columns=['close'])\n"
        "    def targets(self, columns, eligible):\n"
        "        close = columns('close')\n"
        "        return np.where(np.vstack([close[1:], close[-1:]]) > close, 1.0, 0.0)\n"
    )
    with pytest.raises(StrategyError, match="on nothing later"):
        run_rule(tmp_path, f"{kind}:Mine", "strategy.every=5m", limit=200)


IMPORTS = {
    "def f(:": "SyntaxError",
    "import nosuchlibrary": "No module named 'nosuchlibrary'",
    "from agent_bt import Nope": "cannot import name 'Nope'",
    "raise RuntimeError('at import')": "RuntimeError: at import",
    "np.nothing": "AttributeError",
    "Mine = 5": "must name a class or function, got 5",
    "class Other: pass": "has no class Mine",
    "class Mine: pass": "it lacks name, lookback, features, summary, decide",
    "class Mine(Strategy): pass": "abstract",
    "class Mine(BaseException): pass": "it lacks",
}


@pytest.mark.parametrize("body", IMPORTS)
def test_a_module_that_cannot_be_used_is_a_config_error(write: Callable[[str], str], body: str) -> None:
    kind = write(body + "\n")
    with pytest.raises(ConfigError) as caught:
        make_strategy(f"{kind}:Mine", {})
    assert IMPORTS[body] in str(caught.value)
    assert kind in str(caught.value)


@pytest.mark.parametrize("params", [{"a": 1, "b": 2}, {}, {"a": 0}])
def test_params_that_do_not_fit_are_told(write: Callable[[str], str], params: dict[str, Any]) -> None:
    init = "    def __init__(self, a):\n        if not a: raise ValueError('a must not be 0')\n"
    kind = write(deciding("Decision.hold()").replace("(Strategy):\n", "(Strategy):\n" + init))
    with pytest.raises(ConfigError, match=rf"(strategy\.params do not fit {kind}:Mine|a must not be 0)"):
        make_strategy(f"{kind}:Mine", params)


@pytest.mark.parametrize("kind", [":Mine", "module:", "..module:Mine", "a b:Mine", "module:Mine:More", "module:a.b"])
def test_a_path_that_is_none_says_how_it_is_written(kind: str) -> None:
    with pytest.raises(ConfigError, match="write it as module:Class"):
        make_strategy(kind, {})


def test_a_module_that_is_not_there_is_named_with_where_it_was_looked_for(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"no module nosuchmodule in {tmp_path}"):
        make_strategy("nosuchmodule:Mine", {})
    with pytest.raises(ConfigError, match="did you mean buy_and_hold"):
        make_strategy("buy_and_holt", {})


def test_a_changed_source_is_another_run(write: Callable[[str], str], tmp_path: Path) -> None:
    class Stop:
        def start(self, *_: Any) -> None: ...
        def note(self, *_: Any) -> None: ...
        def stop(self) -> None: ...
        def update(self, done: int, **_: Any) -> None:
            if done == 2:
                raise KeyboardInterrupt

    kind = write(deciding("Decision.buy('BTCUSDT', 0.1)"))
    minutes(1440, holes=False).write_parquet(tmp_path / "market.parquet")
    end = START + timedelta(days=1)
    config = config_over(tmp_path / "market.parquet", f"strategy.kind={kind}:Mine", folder=tmp_path, end=end)
    stopped = run_over(config, limit=6, progress=Stop())
    assert stopped.status == "interrupted"
    write(deciding("Decision.buy('BTCUSDT', 0.1)") + "# changed\n")
    assert run_over(config, limit=6).run_dir != stopped.run_dir
    write(deciding("Decision.buy('BTCUSDT', 0.1)"))
    assert run_over(config, limit=6).run_dir == stopped.run_dir


def test_buy_and_hold_and_stay_out_through_a_whole_run(tmp_path: Path) -> None:
    held = run_rule(tmp_path, "buy_and_hold", limit=12).summary
    assert (held["decisions"]["buy"], held["decisions"]["hold"], held["performance"]["trades"]) == (1, 11, 0)
    out = run_rule(tmp_path, "stay_out", limit=12).summary
    assert (out["decisions"]["hold"], out["performance"]["final_equity"]) == (12, 10_000.0)
    assert out["baselines"]["random"]["final_equity"] == 10_000.0


def test_a_decision_is_made_by_its_own_words() -> None:
    assert Decision.to({"A": 0.5}).action == "TARGETS"
    assert (Decision.buy("A", 0.3).trades, Decision.sell("A").trades) == ({"A": 0.3}, {"A": -1.0})
    assert Decision.hold("why").note == "why"


@pytest.mark.parametrize("shape", ["3", "eligible.shape[1]", "(eligible.shape[0], 2)", "()"])
def test_targets_of_another_shape_are_told(write: Callable[[str], str], tmp_path: Path, shape: str) -> None:
    kind = write(
        "from agent_bt import SignalStrategy\n"
        "class Mine(SignalStrategy):\n"
        "    name = 'mine'\n"
        "    def __init__(self):\n"
        "        super().__init__(columns=['close'])\n"
        "    def targets(self, columns, eligible):\n"
        f"        return np.zeros({shape})\n"
    )
    with pytest.raises(
        StrategyError,
        match=r"strategy mine: targets must return an array of the shape of eligible, \(rows, symbols\) = ",
    ):
        run_rule(tmp_path, f"{kind}:Mine")
