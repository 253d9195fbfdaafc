"""Checks of the parameters strategies are made with; whatever is wrong is a ConfigError that names the parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent_bt.core.errors import ConfigError
from agent_bt.core.suggest import did_you_mean


def whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}: {value!r} is no whole number")
    if value < least:
        raise ConfigError(f"{name}: {value} is too small; at least {least}")
    return value


def number(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name}: {value!r} is no finite number")
    return float(value)


def positive(name: str, value: Any) -> float:
    """A finite number above 0.

    Raises:
        ConfigError: it is none.
    """
    if number(name, value) <= 0:
        raise ConfigError(f"{name}: {value!r} is too small; more than 0")
    return float(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """One of the allowed words.

    Raises:
        ConfigError: it is none of them.
    """
    words = list(allowed)
    if not isinstance(value, str) or value not in words:
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(words)}{did_you_mean(value, words)}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or false.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: {value!r} is not true or false")
    return value


def text(name: str, value: Any) -> str:
    """A name of something: text that is not empty.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}: {value!r} is no name")
    return value


def names(name: str, value: Any) -> tuple[str, ...]:
    """A list of names, such as symbols.

    Raises:
        ConfigError: it is none, or one is in it twice.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{name}: {value!r} stands where a list is wanted: [BTCUSDT, ETHUSDT]")
    for each in value:
        text(name, each)
    if len(set(value)) != len(value):
        raise ConfigError(f"{name}: a name is in the list twice")
    return tuple(value)


def keys(name: str, given: Mapping[str, Any], *, needed: Iterable[str] = (), allowed: Iterable[str]) -> None:
    """Check the keys of a mapping.

    Raises:
        ConfigError: one is not allowed, or a needed one is missing.
    """
    words = list(allowed)
    for key in given:
        if key not in words:
            raise ConfigError(f"{name}: there is no {key!r}{did_you_mean(key, words)} (there is {', '.join(words)})")
    if missing := [key for key in needed if key not in given]:
        raise ConfigError(f"{name}: it lacks {', '.join(missing)}")
