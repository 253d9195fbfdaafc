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
        raise ConfigError(f"strategy.params do not fit {kind}: {error}") from None
    missing = [name for name in ("name", "lookback", "features", "summary", "decide") if not hasattr(strategy, name)]
    if missing:
        raise ConfigError(f"{kind} is no strategy: it lacks {', '.join(missing)}; derive it from agent_bt.Strategy")
    return strategy


def _imported(path: str) -> Callable[..., Strategy]:
    module_name, _, class_name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Callable[..., Strategy] = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"strategy.kind {path}: {error}; the module must be importable from {here}") from None
    except AttributeError:
        raise ConfigError(f"strategy.kind {path}: module {module_name} has no {class_name}") from None
    return found
