"""Register strategies under names for `strategy.kind`; each module of this package registers its own."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from agent_bt.core.errors import StrategyError
from agent_bt.core.protocols import Strategy

Build = Callable[..., Strategy]
BuildT = TypeVar("BuildT", bound=Build)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A named strategy.

    Attributes:
        build: makes the strategy from its parameters, given as keyword arguments.
        cross_sectional: whether it weighs symbols against each other, so that `agent-bt backtest` runs it over several.
    """

    build: Build
    cross_sectional: bool = False


_REGISTERED: dict[str, Registered] = {}


def register_strategy(name: str, *, cross_sectional: bool = False) -> Callable[[BuildT], BuildT]:
    """Return a decorator that makes a class or function available as a value of `strategy.kind`.

    Args:
        name: the value of `strategy.kind`, such as `momentum`.
        cross_sectional: see `Registered`; default False.

    Raises:
        StrategyError: the name is taken.
    """

    def register(build: BuildT) -> BuildT:
        if name in _REGISTERED and _REGISTERED[name].build is not build:
            raise StrategyError(f"a strategy {name!r} already exists; register yours under another name")
        _REGISTERED[name] = Registered(build=build, cross_sectional=cross_sectional)
        return build

    return register


def registered() -> Mapping[str, Registered]:
    """Return the named strategies, sorted by name; the first call imports the modules of this package."""
    _import_modules()
    return dict(sorted(_REGISTERED.items()))


@cache
def _import_modules() -> None:
    package = importlib.import_module("agent_bt.strategies")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"agent_bt.strategies.{module.name}")
