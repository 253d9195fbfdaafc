"""Strategies by name, and a user's own by import path `module:Class`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent_bt.core.errors import ConfigError
from agent_bt.core.protocols import Strategy
from agent_bt.core.types import FeatureSpec
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.strategies.simple import BuyAndHold, StayOut

REGISTERED: dict[str, Callable[..., Strategy]] = {
    "buy_and_hold": BuyAndHold,
    "stay_out": StayOut,
}


def make_strategy(kind: str, params: Mapping[str, Any]) -> Strategy:
    """The strategy `kind`, constructed with `params` as keyword arguments.

    `kind` is a registered name, or `module:Class`, where the module is importable from the working directory.

    Raises:
        ConfigError: there is no such strategy, it cannot be imported, or its parameters don't fit.
    """
    build = _imported(kind) if ":" in kind else REGISTERED.get(kind)
    if build is None:
        names = ["agent", *REGISTERED]
        near = difflib.get_close_matches(kind, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"strategy.kind: there is no strategy {kind!r}{hint} (agent, {', '.join(REGISTERED)}, or module:Class)"
        )
    try:
        strategy = build(**params)
    except TypeError as error:
        raise ConfigError(f"strategy.params do not fit {kind}: {error}") from error
    except Exception as error:
        raise ConfigError(f"strategy {kind} cannot be made: {type(error).__name__}: {error}") from error
    _check_contract(kind, strategy)
    return strategy


def _check_contract(kind: str, strategy: Strategy) -> None:
    """Refuse what would fail in the middle of a run."""
    missing = [name for name in ("name", "lookback", "features", "summary", "decide") if not hasattr(strategy, name)]
    if missing:
        raise ConfigError(f"{kind} is no strategy: it lacks {', '.join(missing)}; derive it from agent_bt.Strategy")
    if not isinstance(strategy.lookback, int) or strategy.lookback < 1:
        raise ConfigError(f"{kind}: lookback is a whole number of bars, at least 1, not {strategy.lookback!r}")
    if strategy.summary not in (None, "calendar", "rolling"):
        raise ConfigError(f"{kind}: summary is None, 'calendar' or 'rolling', not {strategy.summary!r}")
    if not all(isinstance(spec, FeatureSpec) for spec in strategy.features):
        raise ConfigError(f"{kind}: features is a sequence of agent_bt.FeatureSpec, not {strategy.features!r}")
    columns = [*BAR_COLUMNS, *(spec.column for spec in strategy.features)]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ConfigError(f"{kind}: {', '.join(twice)} names two columns; bars have {', '.join(BAR_COLUMNS)} already")


def _imported(path: str) -> Callable[..., Strategy]:
    module_name, _, class_name = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ConfigError(f"strategy.kind {path}: write it as module:Class, as in my_strategies:Momentum")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"strategy.kind {path}: there is no module {error.name} in {here} or installed") from None
        raise ConfigError(
            f"strategy.kind {path}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(found := getattr(module, class_name, None)):
        raise ConfigError(f"strategy.kind {path}: module {module_name} has no class {class_name}")
    build: Callable[..., Strategy] = found
    return build
