"""The classic technical rules, ready made: RSI, moving-average cross, Bollinger bands, momentum, MACD."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from agent_bt.core.errors import ConfigError
from agent_bt.core.params import choice, flag, keys, number, whole
from agent_bt.strategies.registration import register_strategy
from agent_bt.strategies.rules import RuleCondition, RuleSignalGenerator

Rules = Mapping[str, Sequence[RuleCondition]]
"""Conditions of `RuleSignalGenerator` by their part: long, exit, short, cover."""


def rsi(*, period: int = 14, low: float = 30, high: float = 70, allow_short: bool = False) -> Rules:
    """Below `low` long; above `high` flat, or short; in between left alone. Reads rsi_<period>."""
    column = f"rsi_{whole('period', period, 1)}"
    if number("low", low) >= number("high", high):
        raise ConfigError(f"low: {low} must be below high, {high}")
    above = [RuleCondition(column, ">", high)]
    return {"long": [RuleCondition(column, "<", low)], "short" if allow_short else "exit": above}


def ma_cross(*, fast: int = 12, slow: int = 26, kind: str = "sma", allow_short: bool = False) -> Rules:
    """Fast average above the slow one: long; below: flat, or short; equal: flat. Reads <kind>_<fast>, <kind>_<slow>.

    `kind` is sma or ema. It is a state, not an event: every bar says what it is to be, and targets act on change.
    """
    kind = choice("kind", kind, ("sma", "ema"))
    if whole("fast", fast, 1) >= whole("slow", slow, 1):
        raise ConfigError(f"fast: {fast} must be below slow, {slow}")
    return _sides(f"{kind}_{fast}", f"{kind}_{slow}", allow_short)


def bollinger(*, period: int = 20, deviations: int = 2, allow_short: bool = False) -> Rules:
    """Close below the lower band: long; back at the middle or above: flat; in between left alone.

    With shorts it turns at the opposite band instead: above the upper one short, below the lower one long. Reads
    bollinger_lower_<period>_<deviations>, and bollinger_mid_<period> or bollinger_upper_<period>_<deviations>.
    """
    band = f"{whole('period', period, 2)}_{whole('deviations', deviations, 1)}"
    long = [RuleCondition("close", "<", f"bollinger_lower_{band}")]
    if allow_short:
        return {"long": long, "short": [RuleCondition("close", ">", f"bollinger_upper_{band}")]}
    return {"long": long, "exit": [RuleCondition("close", ">=", f"bollinger_mid_{period}")]}


def momentum(*, lookback: int = 60, threshold: float = 0.0, allow_short: bool = False) -> Rules:
    """Return over `lookback` bars above `threshold`: long; else flat, or short below -threshold. Reads return_<n>."""
    column = f"return_{whole('lookback', lookback, 1)}"
    if number("threshold", threshold) < 0:
        raise ConfigError(f"threshold: {threshold} is too small; at least 0")
    return _sides(column, threshold, allow_short, low=-threshold)


def macd(*, fast: int = 12, slow: int = 26, signal: int = 9, allow_short: bool = False) -> Rules:
    """MACD above its signal line: long; below: flat, or short; equal: flat. Reads macd_hist_<fast>_<slow>_<signal>."""
    if whole("fast", fast, 1) >= whole("slow", slow, 1):
        raise ConfigError(f"fast: {fast} must be below slow, {slow}")
    return _sides(f"macd_hist_{fast}_{slow}_{whole('signal', signal, 1)}", 0.0, allow_short)


def _sides(column: str, high: float | str, allow_short: bool, low: float | str | None = None) -> Rules:
    """Above `high` long, below `low` (default: the same) short if allowed, flat in between; nothing is left alone."""
    low = high if low is None else low
    long, exit = [RuleCondition(column, ">", high)], [RuleCondition(column, "<=", high)]
    if not allow_short:
        return {"long": long, "exit": exit}
    return {"long": long, "exit": exit, "short": [RuleCondition(column, "<", low)]}


PRESETS: dict[str, Callable[..., Rules]] = {
    "rsi": rsi,
    "ma_cross": ma_cross,
    "bollinger": bollinger,
    "momentum": momentum,
    "macd": macd,
}
"""The presets by name; each documents its rule, its parameters and the columns it reads."""


@register_strategy("technical")
class TechnicalRuleGenerator(RuleSignalGenerator):
    """A preset as a strategy: `TechnicalRuleGenerator("rsi", period=14, low=30, high=70)`.

    The rules are those of the functions in this module, under the precedence of `RuleSignalGenerator`.
    """

    name = "technical"

    def __init__(
        self,
        preset: str,
        *,
        size: float | None = None,
        allow_short: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
        **params: Any,
    ) -> None:
        """`params` are those of the preset's function; the rest is as for `RuleSignalGenerator`.

        Raises:
            ConfigError: there is no such preset, or a parameter doesn't fit it.
        """
        rules = PRESETS[choice("preset", preset, PRESETS)]
        keys(f"parameters of {preset}", params, allowed=params_of(preset))
        parts = rules(allow_short=flag("allow_short", allow_short), **params)
        super().__init__(
            long=parts.get("long"),
            exit=parts.get("exit"),
            short=parts.get("short"),
            size=size,
            include=include,
            exclude=exclude,
            warm_up=warm_up,
        )
        # The cross-sectional strategy has the plain name.
        self.name = "momentum_rule" if preset == "momentum" else preset


@cache
def params_of(preset: str) -> tuple[str, ...]:
    """Names of the parameters that a preset takes: its own, then those of all."""
    # A sweep makes thousands; a signature costs more than the rest of a strategy.
    own = [name for name in inspect.signature(PRESETS[preset]).parameters if name != "allow_short"]
    return (*own, "size", "allow_short", "include", "exclude", "warm_up")


for _name, _preset in {"rsi": "rsi", "ma_cross": "ma_cross", "bollinger": "bollinger", "momentum_rule": "momentum",
                       "macd": "macd"}.items():  # fmt: skip
    register_strategy(_name)(partial(TechnicalRuleGenerator, _preset))
