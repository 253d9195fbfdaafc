"""The look-ahead audit: cheats of every kind are caught with the field that gave them away, honest ones pass."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agent_bt.backtest import prepare
from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.prepare import prepare_market
from agent_bt.backtest.run import run_config
from agent_bt.cli import main as cli
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.errors import StrategyError
from agent_bt.core.protocols import Strategy as Decider
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import Decision, FeatureSpec, Portfolio
from agent_bt.core.view import HIDDEN, MarketView
from agent_bt.engine.market import Market
from agent_bt.evaluation.audit import Audit, Subject, audit, random_future
from agent_bt.experiments.audit import audit_config, audit_run
from agent_bt.records.decision_record import build_content
from agent_bt.strategies.base import Strategy
from agent_bt.strategies.simple import BuyAndHold

CONFIG = load_config(
    None, ["market.start=2024-07-01", "market.end=2024-07-04", "strategy.every=1h", "strategy.kind=stay_out"], env={}
)
BARS = load_bars(CONFIG).bars


def audited(make: type[Decider], *, config: Config = CONFIG, leak: bool = False, seed: int = 1) -> Audit:
    """Audit a strategy over three days of the sample market; `leak`: the market's own feature knows the next bar."""
    setup = build_execution(config)

    def prepare(bars: pl.DataFrame, strategy: Decider) -> tuple[Market, np.ndarray]:
        staged = prepare_market(config, bars, strategy)
        if leak:
            close = bars["close"].to_numpy()
            ahead = np.append(close[1:], close[-1])
            staged.market._data[:, 0, -1 - HIDDEN] = ahead
        return staged.market, staged.schedule.bars

    subject = Subject(strategy=make, prepare=prepare, setup=setup, content=build_content)
    return audit(subject, BARS, seed=seed)


class Momentum(Strategy):
    """Honest: buys what has risen over its window, sells what has fallen."""

    name = "momentum"
    lookback = 30
    features = (FeatureSpec(column="ema", kind="ema", params=(("period", 5),)),)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        close = view.column("close")
        return Decision.to({view.symbols[0]: 1.0 if close[-1] > close[0] else 0.0})


class Peeker(Momentum):
    """Reaches for the market behind the engine's back."""

    name = "peeker"

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        engine = sys._getframe(1).f_locals
        close = engine["market"].close[:, 0]
        later = min(engine["bar"] + 60, len(close) - 1)
        return Decision.to({view.symbols[0]: 1.0 if close[later] > close[engine["bar"]] else 0.0})


class Reckless(Momentum):
    """Knows how long the market is, and reaches beyond where it ends now."""

    name = "reckless"

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        engine = sys._getframe(1).f_locals
        later = min(engine["bar"] + 1, len(BARS) - 1)
        return Decision.hold() if engine["market"].close[later, 0] > 0 else Decision.buy(view.symbols[0])


class Vectorised(Momentum):
    """Decides honestly bar by bar, and for all bars at once with the next price at some of them."""

    name = "vectorised"

    on_change = False

    def decide_all(self, market: Market, bars: np.ndarray) -> np.ndarray:
        close = market.close[:, 0]
        honest = close > np.roll(close, self.lookback - 1)
        sees = np.append(close[1:], close[-1]) > close
        rows = np.arange(len(close))
        return np.where(rows % 29 == 5, sees, honest).astype(float)[bars].reshape(-1, 1)


class Contradicting(Vectorised):
    """Has two answers to every bar."""

    def decide_all(self, market: Market, bars: np.ndarray) -> np.ndarray:
        return np.full((len(bars), 1), 0.5)


class Remembering(Momentum):
    """Counts its calls over all runs."""

    name = "remembering"
    calls = 0

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        Remembering.calls += 1
        return Decision.hold(note=str(Remembering.calls))


@pytest.mark.parametrize("honest", [Momentum, BuyAndHold])
def test_honest_strategies_pass(honest: type[Decider]) -> None:
    found = audited(honest)
    assert found.leak is None
    assert found.compared > found.decisions > 60


@pytest.mark.parametrize("seed", range(5))
def test_a_peek_at_the_next_hour_is_caught_in_the_decision(seed: int) -> None:
    leak = audited(Peeker, seed=seed).leak
    assert leak is not None
    assert leak.kind in ("truncation", "future")
    assert leak.time <= leak.cut
    assert leak.field.startswith(("targets", "account", "positions", "orders"))


def test_a_peek_beyond_the_end_is_caught_as_a_failure() -> None:
    leak = audited(Reckless).leak
    assert leak is not None
    assert (leak.kind, leak.field) == ("truncation", "decision")
    assert "IndexError" in leak.changed


def test_a_feature_that_knows_the_next_bar_is_named() -> None:
    leak = audited(Momentum, leak=True).leak
    assert leak is not None
    assert (leak.kind, leak.field, leak.time) == ("truncation", "window.ema[29]", leak.cut)


def test_an_answer_for_all_bars_at_once_is_audited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # What slips through the questions asked before a run.
    monkeypatch.setattr(prepare, "AGREEMENTS", 3)
    leak = audited(Vectorised).leak
    assert leak is not None
    assert "decide_all" in f"{leak.field} {leak.changed}"


def test_two_answers_to_one_bar_are_refused_before_anything_runs() -> None:
    with pytest.raises(StrategyError, match="decide and decide_all differ at 2024"):
        audited(Contradicting)


def test_what_is_no_function_of_its_view_is_told_from_look_ahead() -> None:
    leak = audited(Remembering).leak
    assert leak is not None
    assert (leak.kind, leak.index, leak.field) == ("repetition", 0, "note")


def test_a_random_future_keeps_the_past_and_the_contract_of_bars() -> None:
    changed = random_future(BARS, 100, np.random.default_rng(3))
    assert changed.schema == BAR_SCHEMA
    assert changed.head(100).equals(BARS.head(100))
    rest = changed.slice(100)
    assert not (rest["close"] == BARS.slice(100)["close"]).any()
    assert rest.select((pl.col("high") >= pl.max_horizontal("open", "close")).all()).item()
    assert rest.select((pl.col("low") <= pl.min_horizontal("open", "close")).all()).item()
    assert rest["open_time"].equals(BARS.slice(100)["open_time"])


@pytest.mark.parametrize("prompt", ["v1", "v2"])
def test_the_shipped_agents_pass_whatever_their_account(prompt: str) -> None:
    changes = ["strategy.kind=agent", f"strategy.prompt=btcusdt_trader/{prompt}", "strategy.every=4h"]
    config = load_config(None, [*changes, "market.start=2024-07-01", "market.end=2024-07-04"], env={})
    found = audit_config(config, cuts=4)
    assert found.leak is None
    assert found.decisions == 18  # 04:00 of the first day to the end of the third


def test_config_and_run_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cheat.py").write_text(
        "import sys\nfrom agent_bt import Decision, Strategy\n\nclass Cheat(Strategy):\n"
        "    def decide(self, view, portfolio):\n        engine = sys._getframe(1).f_locals\n"
        "        rises = engine['market'].close[-1, 0] > view.prices[view.symbols[0]]\n"
        "        return Decision.to({view.symbols[0]: float(rises)})\n"
    )
    (tmp_path / "cheat.yaml").write_text(
        "market: {start: 2024-07-01, end: 2024-07-03}\nstrategy: {kind: 'cheat:Cheat', every: 4h}\n"
    )
    monkeypatch.setattr(sys, "argv", ["agent-bt", "audit", "cheat.yaml", "--json"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    found = json.loads(capsys.readouterr().out)
    assert (caught.value.code, found["clean"], found["strategy"]) == (1, False, "Cheat")
    honest = load_config(None, ["market.start=2024-07-01", "market.end=2024-07-03", "strategy.every=4h"], env={})
    run = run_config(honest, report=False)
    assert audit_run(run.run_dir, cuts=3).leak is None
    monkeypatch.setattr(sys, "argv", ["agent-bt", "audit", run.run_dir.name, "--cuts", "2"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert (caught.value.code, "no look-ahead" in capsys.readouterr().out) == (0, True)
