"""Shared columns are those a market has of its own, and compiled rules say what `decide_all` says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt import load_config
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.prepare import build_market
from agent_bt.config.model import Config
from agent_bt.core.clock import HOUR, time_us
from agent_bt.core.targets import changed_rows
from agent_bt.engine.market import Market
from agent_bt.experiments.sweep.columns import SharedColumns
from agent_bt.experiments.sweep.evaluate import _Inputs
from agent_bt.experiments.sweep.rules import program_of, run_programs
from agent_bt.features.names import spec_of
from agent_bt.strategies.rules import OPERATORS, RuleSignalGenerator
from agent_bt.strategies.signals import SignalStrategy
from agent_bt.strategies.simple import BuyAndHold

FEATURES = ("sma_5", "ema_8", "rsi_6", "return_3", "cmf_4", "zscore_5")
HOURS = 240
START = time_us("2024-07-01")


def hours(symbol: str, first: int, last: int, seed: int) -> pl.DataFrame:
    """Hours of a random walk with a gap; steps of one price and none at all, so that columns meet."""
    draw = np.random.default_rng(seed)
    rows = np.array([row for row in range(first, last) if row not in range(first + 20, first + 23)])
    close = 100.0 + np.cumsum(draw.integers(-1, 2, len(rows)))
    return pl.DataFrame(
        {
            "symbol": symbol, "open_time": START + rows * HOUR, "open": close, "high": close + 1, "low": close - 1,
            "close": close, "volume": draw.integers(0, 4, len(rows)).astype(float),
        }
    )  # fmt: skip


class Shared:
    """Columns that are shared, over one symbol or over three that come late, stay, and go early."""

    def __init__(self, folder: Path, symbols: int) -> None:
        lives = [(0, HOURS), (40, HOURS), (0, HOURS - 50)][:symbols]
        parts = [hours(f"S{at}USDT", *life, seed=at) for at, life in enumerate(lives)]
        path = folder / f"{symbols}.parquet"
        pl.concat(parts).write_parquet(path)
        names = [f"S{at}USDT" for at in range(symbols)]
        chosen = f"market.symbol={names[0]}" if symbols == 1 else f"market.symbols=[{', '.join(names)}]"
        over = [f"market.source={path}", "market.interval=1h", "market.end=2024-07-11", "strategy.every=1h", chosen]
        self.config: Config = load_config(None, over, env={})
        self.bars = load_bars(self.config).bars
        self.market: Market = build_market(self.config, self.bars, BuyAndHold())
        self.columns = SharedColumns(self.market)
        with ThreadPoolExecutor(2) as workers:
            self.columns.load([spec for name in FEATURES if (spec := spec_of(name))], workers)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Shared]]:
    folder = tmp_path_factory.mktemp("shared")
    yield {symbols: Shared(folder, symbols) for symbols in (1, 3)}


class Looking(SignalStrategy):
    """Looks at columns and wants nothing."""

    def __init__(self, *columns: str, warm_up: int = 0) -> None:
        super().__init__(columns=columns, warm_up=warm_up)

    def targets(self, columns: Any, eligible: np.ndarray) -> np.ndarray:
        return np.full(eligible.shape, np.nan)


@pytest.mark.parametrize("symbols", [1, 3])
def test_shared_columns_are_those_of_a_market(both: dict[int, Shared], symbols: int) -> None:
    shared = both[symbols]
    own = build_market(shared.config, shared.bars, Looking(*FEATURES))
    for name in ("close", "filled", *FEATURES):
        assert np.array_equal(shared.columns.column(name), own.column(name), equal_nan=True), name
        assert np.array_equal(shared.columns.market().column(name), own.column(name), equal_nan=True), name


@pytest.mark.parametrize("symbols", [1, 3])
@pytest.mark.parametrize("columns", [(), ("sma_5",), ("sma_5", "ema_8"), ("zscore_5", "cmf_4", "rsi_6")])
def test_decisions_begin_where_those_of_a_run_do(
    both: dict[int, Shared], symbols: int, columns: tuple[str, ...]
) -> None:
    shared = both[symbols]
    for warm_up in (0, 30, HOURS):
        strategy = Looking(*columns, warm_up=warm_up)
        own = build_market(shared.config, shared.bars, strategy)
        assert min(shared.columns.ready(strategy.features, strategy.lookback), len(own)) == min(own.ready, len(own))


def conditions() -> st.SearchStrategy[Any]:
    named = st.sampled_from(("close", "volume", *FEATURES))
    numbers = st.sampled_from([-0.01, 0.0, 0.5, 2.0, 50.0, 100.0])
    plain = st.builds(
        lambda column, operator, value: {"column": column, "operator": operator, "value": value},
        named, st.sampled_from(OPERATORS), named | numbers,
    )  # fmt: skip
    return st.recursive(
        plain,
        lambda inner: st.builds(
            lambda word, parts: {word: parts}, st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)
        ),
        max_leaves=5,
    )


def rules() -> st.SearchStrategy[RuleSignalGenerator]:
    side = st.none() | conditions()
    return st.builds(
        lambda parts, size, allow: RuleSignalGenerator(
            **{name: each for name, each in parts.items() if each is not None}, size=size, allow_short=allow
        ),
        st.fixed_dictionaries({"long": side, "exit": side, "short": side, "cover": side}).filter(
            lambda parts: parts["long"] is not None or parts["short"] is not None
        ),
        st.sampled_from([None, 0.4]),
        st.sampled_from([None, True, False]),
    )


@given(
    made=st.lists(rules(), min_size=1, max_size=4),
    symbols=st.sampled_from([1, 3]),
    every=st.sampled_from([1, 1, 3]),
    first=st.sampled_from([0, 1, 33]),
)
@settings(max_examples=50)
def test_compiled_rules_say_what_decide_all_says(
    both: dict[int, Shared], made: list[RuleSignalGenerator], symbols: int, every: int, first: int
) -> None:
    shared = both[symbols]
    due = np.arange(first, len(shared.market), every)
    programs = [program for rule in made if (program := program_of(rule))]
    seen = _Inputs(shared.columns, due, [key for program in programs for key in program.keys])
    ready = np.array([shared.columns.ready(rule.features, rule.lookback) for rule in made])
    begins = np.searchsorted(due, ready)
    said = run_programs(programs, columns=seen.columns, eligible=seen.eligible, rows=due, begins=begins)
    for at, rule in enumerate(made):
        bars = due[begins[at] :]
        targets = rule.decide_all(shared.columns.market(), bars)
        changed = changed_rows(targets, rule.on_change)
        own = slice(said.starts[at], said.starts[at + 1])
        assert said.rows[own].tolist() == bars[changed].tolist()
        assert said.targets[own].tobytes() == targets[changed].tobytes()


def test_a_rule_over_some_symbols_or_of_ones_own_is_asked_itself() -> None:
    class Mine(RuleSignalGenerator):
        name = "mine"

    assert program_of(RuleSignalGenerator(long="close > 1")) is not None
    assert program_of(RuleSignalGenerator(long="close > 1", include=["S0USDT"])) is None
    assert program_of(Mine(long="close > 1")) is None
    assert program_of(BuyAndHold()) is None
