"""Presets of the standard technical rules: RSI, moving-average cross, Bollinger bands, momentum, MACD."""

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
    """Return the rules of the RSI (Wilder 1978): below `low` long; above `high` flat, or short; in between unchanged.

    Args:
        period: bars; default 14. Reads the column rsi_<period>.
        low: below it the symbol is oversold; default 30.
        high: above it the symbol is overbought; default 70.
        allow_short: short instead of flat; default False.
    """
    column = f"rsi_{whole('period', period, 1)}"
    if number("low", low) >= number("high", high):
        raise ConfigError(f"low must be below high ({high}), got {low}")
    above = [RuleCondition(column, ">", high)]
    return {"long": [RuleCondition(column, "<", low)], "short" if allow_short else "exit": above}


def ma_cross(*, fast: int = 12, slow: int = 26, kind: str = "sma", allow_short: bool = False) -> Rules:
    """Return the rules of two averages: fast above slow long; below flat, or short; equal flat.

    It is a state, not an event: every bar has a target, and targets act on change.

    Args:
        fast: bars of the fast average; default 12. Reads the column <kind>_<fast>.
        slow: bars of the slow average; default 26. Reads the column <kind>_<slow>.
        kind: `sma` (default) or `ema`.
        allow_short: short instead of flat; default False.
    """
    kind = choice("kind", kind, ("sma", "ema"))
    if whole("fast", fast, 1) >= whole("slow", slow, 1):
        raise ConfigError(f"fast must be below slow ({slow}), got {fast}")
    return _sides(f"{kind}_{fast}", f"{kind}_{slow}", allow_short)


def bollinger(*, period: int = 20, deviations: int = 2, allow_short: bool = False) -> Rules:
    """Return the rules of Bollinger bands: close below the lower one long; at the middle or above flat.

    Args:
        period: bars; default 20. Reads bollinger_lower_<period>_<deviations> and bollinger_mid_<period>.
        deviations: width of the bands in standard deviations; default 2.
        allow_short: turn at the opposite band instead: above the upper one short; reads
            bollinger_upper_<period>_<deviations>. Default False.
    """
    band = f"{whole('period', period, 2)}_{whole('deviations', deviations, 1)}"
    long = [RuleCondition("close", "<", f"bollinger_lower_{band}")]
    if allow_short:
        return {"long": long, "short": [RuleCondition("close", ">", f"bollinger_upper_{band}")]}
    return {"long": long, "exit": [RuleCondition("close", ">=", f"bollinger_mid_{period}")]}


def momentum(*, lookback: int = 60, threshold: float = 0.0, allow_short: bool = False) -> Rules:
    """Return the rules of momentum: a return above `threshold` long; else flat, or short below -threshold.

    Args:
        lookback: bars of the return; default 60. Reads return_<lookback>.
        threshold: as a fraction, at least 0; default 0.
        allow_short: short below -threshold; default False.
    """
    column = f"return_{whole('lookback', lookback, 1)}"
    if number("threshold", threshold) < 0:
        raise ConfigError(f"threshold must be at least 0, got {threshold}")
    return _sides(column, threshold, allow_short, low=-threshold)


def macd(*, fast: int = 12, slow: int = 26, signal: int = 9, allow_short: bool = False) -> Rules:
    """Return the rules of the MACD: above its signal line long; below flat, or short; equal flat.

    Args:
        fast: bars of the fast EMA; default 12. Reads macd_hist_<fast>_<slow>_<signal>.
        slow: bars of the slow EMA; default 26.
        signal: bars of the signal line; default 9.
        allow_short: short instead of flat; default False.
    """
    if whole("fast", fast, 1) >= whole("slow", slow, 1):
        raise ConfigError(f"fast must be below slow ({slow}), got {fast}")
    return _sides(f"macd_hist_{fast}_{slow}_{whole('signal', signal, 1)}", 0.0, allow_short)


def _sides(column: str, high: float | str, allow_short: bool, low: float | str | None = None) -> Rules:
    """Return rules: above `high` long, below `low` (default: the same) short if allowed, flat in between."""
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
        """Choose a preset.

        Args:
            preset: rsi, ma_cross, bollinger, momentum or macd.
            size: weight of a position (of equity); default: 1 / number of symbols.
            allow_short: short positions as well; default False.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.
            warm_up: bars before the first decision, beyond those the columns need; default 0.
            params: those of the preset's function in this module.

        Raises:
            ConfigError: the preset is unknown, or a parameter is not valid.

        >>> TechnicalRuleGenerator("rsi", period=7).features[0].column
        'rsi_7'
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
        # The name `momentum` belongs to the cross-sectional strategy.
        self.name = "momentum_rule" if preset == "momentum" else preset


@cache
def params_of(preset: str) -> tuple[str, ...]:
    """Return the names of the parameters of a preset: its own, then those of all presets."""
    # A sweep creates thousands of strategies; reading a signature costs more than the rest of creating one.
    own = [name for name in inspect.signature(PRESETS[preset]).parameters if name != "allow_short"]
    return (*own, "size", "allow_short", "include", "exclude", "warm_up")


for _name, _preset in {"rsi": "rsi", "ma_cross": "ma_cross", "bollinger": "bollinger", "momentum_rule": "momentum",
                       "macd": "macd"}.items():  # fmt: skip
    register_strategy(_name)(partial(TechnicalRuleGenerator, _preset))
