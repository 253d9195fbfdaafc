"""Check the parameters that strategies are made with; each error is a ConfigError that names the parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent_bt.core.errors import ConfigError
from agent_bt.core.suggest import did_you_mean


def whole(name: str, value: Any, least: int) -> int:
    """Return the value, if it is an integer of at least `least`.

    >>> whole("period", 14, 1)
    14

    Args:
        name: name of the parameter in the message, such as `period`.
        value: what was given, of any type.
        least: the smallest value allowed.

    Raises:
        ConfigError: the value is not an integer (true and false are not), or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")
    return value


def number(name: str, value: Any) -> float:
    """Return the value as a float, if it is a finite number.

    Args:
        name: name of the parameter in the message, such as `period`.
        value: what was given, of any type.

    Raises:
        ConfigError: the value is not a number (true and false are not), infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return the value as a float, if it is a finite number above 0.

    Args:
        name: name of the parameter in the message, such as `period`.
        value: what was given, of any type.

    Raises:
        ConfigError: the value is not a finite number, or not above 0.
    """
    if number(name, value) <= 0:
        raise ConfigError(f"{name} must be more than 0, got {value!r}")
    return float(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Return the value, if it is one of the allowed words.

    Args:
        name: name of the parameter in the message, such as `period`.
        value: what was given, of any type.
        allowed: the words to choose from, in the order in which the message lists them.

    Raises:
        ConfigError: the value is another; the message names the nearest word.
    """
    words = list(allowed)
    if not isinstance(value, str) or value not in words:
        raise ConfigError(f"{name} must be one of {', '.join(words)}, got {value!r}{did_you_mean(value, words)}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return the value, if it is true or false.

    Args:
        name: name of the parameter in the message, such as `period`.
        value: what was given, of any type.

    Raises:
        ConfigError: the value is of another type; 0 and 1 are.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    return value


def text(name: str, value: Any) -> str:
    """Return the value, if it is text that is not empty, such as the name of a column.

    Args:
        name: name of the parameter in the message, such as `period`.
        value: what was given, of any type.

    Raises:
        ConfigError: the value is not text, or empty.
    """
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} must be a name, got {value!r}")
    return value


def names(name: str, value: Any) -> tuple[str, ...]:
    """Return the value as a tuple, if it is a list of different names, such as symbols.

    Args:
        name: name of the parameter in the message, such as `period`.
        value: what was given, of any type.

    Raises:
        ConfigError: the value is not a list, an element is not a name, or a name is repeated.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{name} must be a list such as [BTCUSDT, ETHUSDT], got {value!r}")
    for at, each in enumerate(value):
        text(f"{name}[{at}]", each)
    if len(set(value)) != len(value):
        raise ConfigError(f"{name} must not repeat a name, got {list(value)!r}")
    return tuple(value)


def keys(name: str, given: Mapping[str, Any], *, needed: Iterable[str] = (), allowed: Iterable[str]) -> None:
    """Check the keys of a mapping.

    Args:
        name: name of the mapping in the message, such as `members[0]`.
        given: the mapping; its values are not looked at.
        needed: keys that must be there; default: none.
        allowed: all keys that may be there, the needed ones among them.

    Raises:
        ConfigError: a key is not allowed (the message names the nearest), or a needed one is missing.
    """
    words = list(allowed)
    for key in given:
        if key not in words:
            raise ConfigError(f"{name}: unknown key {key!r}{did_you_mean(key, words)} (keys: {', '.join(words)})")
    if missing := [key for key in needed if key not in given]:
        raise ConfigError(f"{name} must have {', '.join(missing)}")
