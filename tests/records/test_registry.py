"""What counts as a new trial, and what only repeats one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent_bt.core.errors import RecordError
from agent_bt.records.registry import Registry, identify_trial


def identity(**changes: Any) -> dict[str, Any]:
    """A run's identity; changes by dotted path, `__` for the dot."""
    plain: dict[str, Any] = {
        "market": {"kind": "spot", "symbol": "BTCUSDT", "interval": "1m", "source": "store", "start": "2024-07-01",
                   "end": "2024-10-01", "warmup": "0d", "gaps": "forward_fill"},
        "strategy": {"kind": "agent", "prompt": "btcusdt_trader/v1", "params": {}},
        "llm": {"model": "baseline", "temperature": 0, "replicate": 0},
        "prompt": "abc", "data": "d0", "seed": 7, "limit": None,
    }  # fmt: skip
    for path, value in changes.items():
        *above, last = path.split("__")
        into = plain
        for part in above:
            into = into[part]
        into[last] = value
    return plain


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "runs")


def counted(registry: Registry, *identities: dict[str, Any]) -> int:
    for at, each in enumerate(identities):
        registry.add(each, name="x", run_id=f"run-{at}")
    trial = identify_trial(identities[0])
    return registry.count(trial.series, trial.start, trial.end)


@pytest.mark.parametrize(
    "repeated",
    [
        {},
        {"llm__replicate": 3},
        {"market__start": "2024-07-15", "market__end": "2024-08-01", "data": "d1"},
        {"market__warmup": "1d", "data": "d2"},
        {"limit": 100},
        {"seed": 8},
    ],
)
def test_a_repetition_is_not_a_new_trial(registry: Registry, repeated: dict[str, Any]) -> None:
    assert counted(registry, identity(), identity(**repeated)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "def"},
        {"llm__temperature": 1},
        {"llm__model": "larger"},
        {"strategy__kind": "sma_cross"},
        {"market__interval": "1h"},
    ],
)
def test_a_variant_is_a_new_trial(registry: Registry, other: dict[str, Any]) -> None:
    assert counted(registry, identity(), identity(**other)) == 2


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"market__start": "2024-10-01", "market__end": "2025-01-01"},
        {"market__symbol": "ETHUSDT"},
        {"market__source": "sample"},
    ],
)
def test_trials_on_other_data_are_not_counted(registry: Registry, elsewhere: dict[str, Any]) -> None:
    assert counted(registry, identity(), identity(prompt="def", **elsewhere)) == 1


def test_the_sample_markets_of_two_seeds_are_different_data(registry: Registry) -> None:
    sample = {"market__source": "sample"}
    assert counted(registry, identity(**sample), identity(prompt="def", seed=8, **sample)) == 1
    assert counted(registry, identity(**sample), identity(prompt="def", **sample)) == 2


def test_without_a_registry_there_are_no_trials_and_a_damaged_one_is_reported(registry: Registry) -> None:
    assert registry.count("spot/BTCUSDT/store", 0, 1) == 0
    registry.path.parent.mkdir()
    registry.path.write_text("not a database, but long enough to look like a damaged one" * 20)
    with pytest.raises(RecordError, match="move it away"):
        registry.count("spot/BTCUSDT/store", 0, 1)
