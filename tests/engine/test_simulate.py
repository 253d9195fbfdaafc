"""`simulate`: which driver it takes, equal results of both, and nothing lost when it is interrupted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from agent_bt import load_config
from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.prepare import PreparedMarket, prepare_market
from agent_bt.core.step import NullJournal, Step
from agent_bt.core.types import Decision, FeatureSpec, Fill, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.engine.simulate import simulate
from agent_bt.strategies.registry import create_strategy

CONFIG = load_config(
    None, ["market.end=2024-07-08", "strategy.every=1h", "features.window=2", "strategy.kind=rsi"], env={}
)
SETUP = build_execution(CONFIG)
RULE = create_strategy("rsi")


class Alternating:
    """Invests in everything at one decision and leaves the market at the next; counts its decisions."""

    name = "alternating"
    lookback = 1
    features: Sequence[FeatureSpec] = ()
    summary = None

    def __init__(self, fail_at: int | None = None) -> None:
        self.decisions = 0
        self._fail_at = fail_at

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        if self.decisions == self._fail_at:
            raise KeyboardInterrupt
        self.decisions += 1
        return Decision.to({view.symbols[0]: 0.0 if portfolio.positions else 1.0})


class Steps(list[Step]):
    """A journal in memory."""


@pytest.fixture(scope="module")
def prepared() -> PreparedMarket:
    return prepare_market(CONFIG, load_bars(CONFIG).bars, RULE)


def test_both_drivers_give_the_same_bits(prepared: PreparedMarket) -> None:
    market, bars = prepared.market, prepared.schedule.due
    compiled = simulate(market=market, bars=bars, strategy=RULE, setup=SETUP)
    given = simulate(market=market, bars=bars, strategy=RULE, setup=SETUP, targets=prepared.targets)
    single = simulate(market=market, bars=bars, strategy=RULE, setup=SETUP, journal=NullJournal())
    assert len(single.fills) > 10
    assert compiled.fills == given.fills == single.fills
    for array in ("equity", "exposure"):
        expected = getattr(single.broker, array).tobytes()
        assert getattr(compiled.broker, array).tobytes() == expected
        assert getattr(given.broker, array).tobytes() == expected


def test_the_compiled_driver_is_taken_only_where_no_step_is_wanted(prepared: PreparedMarket) -> None:
    """Told apart by targets that are not the strategy's: the loop over single decisions never looks at them."""
    market, bars = prepared.market, prepared.schedule.due
    cash = np.zeros((len(bars), 1))
    assert not simulate(market=market, bars=bars, strategy=RULE, setup=SETUP, targets=cash).fills
    steps = Steps()
    recorded = simulate(market=market, bars=bars, strategy=RULE, setup=SETUP, targets=cash, journal=steps)
    assert recorded.fills
    assert [step.bar for step in steps] == bars.tolist()

    def decide(index: int, view: MarketView, portfolio: Portfolio) -> Decision:
        return RULE.decide(view, portfolio)

    prefetched = simulate(market=market, bars=bars, strategy=RULE, setup=SETUP, targets=cash, decide=decide)
    assert prefetched.fills == recorded.fills


def test_a_strategy_that_only_decides_needs_no_journal(prepared: PreparedMarket) -> None:
    strategy, bars = Alternating(), prepared.schedule.due[:20]
    simulation = simulate(market=prepared.market, bars=bars, strategy=strategy, setup=SETUP)
    assert strategy.decisions == len(simulation.fills) == 20
    assert np.isfinite(simulation.broker.equity[prepared.market.first :]).all()
    assert simulation.funding == 0.0


def test_an_interruption_loses_no_fill(prepared: PreparedMarket) -> None:
    fills: list[Fill] = []
    broker = SETUP.broker(prepared.market)
    with pytest.raises(KeyboardInterrupt):
        simulate(
            market=prepared.market, bars=prepared.schedule.due, strategy=Alternating(fail_at=3), setup=SETUP,
            broker=broker, fills=fills,
        )  # fmt: skip
    assert [fill.quantity > 0 for fill in fills] == [True, False, True]
    assert broker.portfolio().positions
