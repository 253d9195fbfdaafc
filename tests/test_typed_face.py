"""A user's program is type-checked against the installed package: nothing it imports is Any."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
from typing import Any, assert_type

import polars as pl

from agent_bt import (
    Decision, EnsembleSignalGenerator, FactorConfig, FactorSignalGenerator, FeatureSpec, MarketView, Portfolio,
    RankSignalGenerator, RuleCondition, RuleSignalGenerator, SignalStrategy, Strategy, TechnicalRuleGenerator, compare,
    create_backtest_engine, create_mean_reversion_backtest, create_momentum_backtest, create_strategy, load_config,
    load_run, replay, run,
)


class Dip(Strategy):
    features = (FeatureSpec(column="rsi", kind="rsi", params=(("period", 14),)),)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        symbol = view.symbols[0]
        assert_type(symbol, str)
        assert_type(view.latest("rsi"), float)
        assert_type(portfolio.equity(view.prices), float)
        if view.latest("rsi") < 25 and symbol not in portfolio.positions:
            return Decision.buy(symbol, 0.5, note="low")
        return Decision.hold()


config = load_config("configs/backtest.yaml", ["strategy.every=4h"])
assert_type(config.account.cash, float)
result = run(config, limit=200)
assert_type(result.decisions, pl.DataFrame)
assert_type(result.equity, pl.DataFrame)
assert_type(result.summary, dict[str, Any])
assert_type(load_run("latest").fills, pl.DataFrame)
assert_type(replay("latest").identical, bool)
assert_type(compare(result, result, metric="sharpe"), dict[str, Any])

engine = create_backtest_engine({"account": {"cash": 1000}}, Dip())
assert_type(engine.run().nav, pl.DataFrame)
assert_type(engine.run().performance.sharpe, float | None)
for make in (create_momentum_backtest, create_mean_reversion_backtest):
    assert_type(make(None, top_n_long=3).run().trades, pl.DataFrame)

rule = RuleSignalGenerator(long=RuleCondition(column="close", operator=">", value=1.0))
signals: list[SignalStrategy] = [
    rule, TechnicalRuleGenerator("ma_cross"), RankSignalGenerator("return_24", top_n=3),
    FactorSignalGenerator([FactorConfig(column="return_24", weight=1.0)]),
]
create_backtest_engine("configs/backtest.yaml", EnsembleSignalGenerator(signals))
create_backtest_engine(None, create_strategy("ma_cross", fast=5, slow=20))
"""
"""Without an error."""

MISTAKES = """
from agent_bt import Decision, load_config, run
from agent_bt import Strateggy  # attr-defined
run("configs/backtest.yaml", limit="many")  # arg-type
run(load_config("configs/backtest.yaml")).decision  # attr-defined
Decision.buy("BTCUSDT", "half")  # arg-type
"""
"""One error on each of these lines."""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], str]:
    """What mypy says, by file and line, about programs in a folder of their own that import the installed package.

    The environment is one that has the package installed as `pip install --editable` does. Settings and cache are those
    of `make lint`, so that only the programs themselves are left to check.
    """
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "installed.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "mistakes.py").write_text(MISTAKES)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "program.py", "mistakes.py", "--no-error-summary"),
            *("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")),
            *("--python-executable", str(folder / "venv" / "bin" / "python")),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    said = [re.fullmatch(r"(\w+)\.py:(\d+): (.*)", line) for line in done.stdout.splitlines()]
    return {(found[1], int(found[2])): found[3] for found in said if found is not None}


def test_a_program_of_a_user_has_no_error_and_the_types_it_expects(checked: dict[tuple[str, int], str]) -> None:
    assert {line: words for (file, line), words in checked.items() if file == "program"} == {}


def test_mistakes_of_a_user_are_found(checked: dict[tuple[str, int], str]) -> None:
    lines = enumerate(MISTAKES.splitlines(), 1)
    expected = {number: line.partition("  # ")[2] for number, line in lines if "  # " in line}
    found = {line: words for (file, line), words in checked.items() if file == "mistakes"}
    assert {line: re.findall(r"\[([\w-]+)\]$", words) for line, words in found.items()} == {
        line: [code] for line, code in expected.items()
    }
