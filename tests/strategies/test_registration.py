"""A strategy preset and a kind of feature are each one file that registers itself, as docs/extending.md shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent_bt.core.errors import StrategyError
from agent_bt.strategies.registration import register_strategy, registered

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
PRESET, KIND = (
    re.findall(rf"```python\n# agent_bt/{place}\n(.*?)```", PAGE, flags=re.DOTALL)[0]
    for place in ("strategies/donchian.py", "features/kinds/top_close.py")
)
USE = """
import agent_bt.features.kinds, agent_bt.strategies
agent_bt.features.kinds.__path__.append({kinds!r})
agent_bt.features.load_kinds()
agent_bt.strategies.__path__.append({presets!r})
from agent_bt import create_backtest_engine, create_strategy
config = {{"market": {{"interval": "1h", "end": "2024-07-20"}}, "strategy": {{"every": "1h"}}}}
result = create_backtest_engine(config, create_strategy("donchian", period=5)).run()
close, fills = result.market.close[:, 0], result.trades
held = [row["bar"] for row in fills.iter_rows(named=True) if row["quantity"] > 0]
assert len(held) > 3
assert all(close[bar] == max(close[max(bar - 4, 0) : bar + 1]) for bar in held)
from agent_bt.features.names import form, spec_of
assert form("top_close") == "top_close_<period>" and spec_of("top_close_5").kind == "top_close"
"""


def test_a_preset_and_a_feature_are_one_file_each(tmp_path: Path) -> None:
    for folder, text in (("presets", PRESET), ("kinds", KIND)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"own_{folder}.py").write_text(text)
    use = USE.format(kinds=str(tmp_path / "kinds"), presets=str(tmp_path / "presets"))
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", use], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_taken_is_refused() -> None:
    assert "momentum" in registered()
    with pytest.raises(StrategyError, match="'momentum' already exists; register yours under another name"):
        register_strategy("momentum")(lambda: registered()["rsi"].build())
    assert registered()["momentum"].cross_sectional
    assert not registered()["rsi"].cross_sectional
