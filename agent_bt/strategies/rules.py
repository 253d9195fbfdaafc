"""Define rules: conditions on columns that make a symbol long, short or flat."""

from __future__ import annotations

import math
import operator as op
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent_bt.core.errors import ConfigError
from agent_bt.core.params import choice, flag, keys, positive
from agent_bt.core.types import Decision, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.strategies.registration import register_strategy
from agent_bt.strategies.signals import HOLD, Columns, SignalStrategy, one_target
from agent_bt.strategies.states import weight_of, weight_table

Values = Callable[[str], Any]
"""A column by name, as an array or as a single number; conditions work on both."""

OPERATORS = ("<", "<=", ">", ">=", "==", "!=", "crosses_above", "crosses_below")

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": op.lt,
    "<=": op.le,
    ">": op.gt,
    ">=": op.ge,
    "==": op.eq,
    # NaN is unequal to everything, but a condition on an undefined value must not hold.
    "!=": lambda left, right: (left < right) | (left > right),
}
_WRITTEN = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|<|>|crosses_above\b|crosses_below\b)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """Compares a column with a number or with another column; where either is undefined it does not hold.

    `crosses_above`: now above, and in the row before at or below; `crosses_below` is its mirror image.

    Raises:
        ConfigError: the operator is unknown, or the value is neither a finite number nor a name.
    """

    column: str
    operator: str
    value: float | str
    _compare: Callable[[Any, Any], Any] | None = field(init=False, repr=False, compare=False)
    _named: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compare", _COMPARE.get(self.operator))
        object.__setattr__(self, "_named", isinstance(self.value, str))
        if not isinstance(self.column, str) or not self.column:
            raise ConfigError(f"the column of a condition must be a name, got {self.column!r}")
        choice(f"operator of the condition on {self.column}", self.operator, OPERATORS)
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool) and math.isfinite(self.value)
        if not number and (not isinstance(self.value, str) or not self.value):
            raise ConfigError(
                f"the value of the condition {self.column} {self.operator} must be a finite number or a column,"
                f" got {self.value!r}"
            )

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {self.value}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that it reads."""
        return (self.column, self.value) if isinstance(self.value, str) else (self.column,)

    @property
    def reach(self) -> int:
        """Return the number of rows that it reads: 2 for a cross."""
        return 2 if self.operator.startswith("crosses") else 1

    def holds(self, now: Values, before: Values) -> Any:
        """Return where it holds; `now` gives the values of a row, `before` those of the previous row."""
        left, right = now(self.column), now(self.value) if self._named else self.value  # type: ignore[arg-type]
        if self._compare is not None:
            return self._compare(left, right)
        was, limit = before(self.column), before(self.value) if self._named else self.value  # type: ignore[arg-type]
        if self.operator == "crosses_above":
            return (left > right) & (was <= limit)
        return (left < right) & (was >= limit)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds where every one of its conditions does."""

    conditions: tuple[Condition, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that the conditions read."""
        return tuple(name for condition in self.conditions for name in condition.columns)

    @property
    def reach(self) -> int:
        """Return the number of rows that the conditions read."""
        return max(condition.reach for condition in self.conditions)

    def holds(self, now: Values, before: Values) -> Any:
        """Return where all conditions hold; `now` gives the values of a row, `before` those of the previous row."""
        held = self.conditions[0].holds(now, before)
        for condition in self.conditions[1:]:
            held = held & condition.holds(now, before)
        return held


@dataclass(frozen=True, slots=True)
class AnyOf(AllOf):
    """Holds where at least one of its conditions does."""

    def holds(self, now: Values, before: Values) -> Any:
        """Return where one condition holds; `now` gives the values of a row, `before` those of the previous row."""
        held = self.conditions[0].holds(now, before)
        for condition in self.conditions[1:]:
            held = held | condition.holds(now, before)
        return held


Condition = RuleCondition | AllOf | AnyOf

_BOOLS = (False, True)
_WEIGHTS = {(up, down, flat): weight_of(up, down, flat, 1.0) for up in _BOOLS for down in _BOOLS for flat in _BOOLS}
"""`weight_of` for a size of 1, for every combination of signals."""


def condition_of(written: Any, where: str = "condition") -> Condition:
    """Parse a condition as written in YAML.

    `rsi_14 < 30` or `{column: rsi_14, operator: "<", value: 30}`; a list, or `{all: [...]}`, holds where all of them
    do, `{any: [...]}` where one does.

    Args:
        written: the condition; a `RuleCondition`, `AllOf` or `AnyOf` is returned as it is.
        where: name of the parameter in error messages; default `condition`.

    Raises:
        ConfigError: the value is not a condition.
    """
    if isinstance(written, RuleCondition | AllOf):
        return written
    if isinstance(written, str):
        match = _WRITTEN.fullmatch(written)
        if match is None:
            raise ConfigError(
                f"{where} must be a condition such as `rsi_14 < 30` or `ema_12 crosses_above ema_26`, got {written!r}"
                f" (operators: {', '.join(OPERATORS)})"
            )
        return RuleCondition(match[1], match[2], _number_or_name(match[3]))
    if isinstance(written, Mapping):
        if len(written) == 1 and (word := next(iter(written))) in ("all", "any"):
            return (AllOf if word == "all" else AnyOf)(_conditions(written[word], f"{where}.{word}"))
        fields = ("column", "operator", "value")
        keys(where, written, needed=fields, allowed=fields)
        return RuleCondition(**written)
    if isinstance(written, Sequence):
        inside = _conditions(written, where)
        return inside[0] if len(inside) == 1 else AllOf(inside)
    raise ConfigError(f"{where} must be a condition such as `rsi_14 < 30`, got {written!r}")


def _conditions(written: Any, where: str) -> tuple[Condition, ...]:
    if isinstance(written, str) or not isinstance(written, Sequence) or not written:
        raise ConfigError(f"{where} must be a list of conditions, got {written!r}")
    return tuple(condition_of(each, f"{where}[{at}]") for at, each in enumerate(written))


def _number_or_name(written: str) -> float | str:
    try:
        return float(written)
    except ValueError:
        return written


@register_strategy("rule")
class RuleSignalGenerator(SignalStrategy):
    """Long, short or flat by conditions, symbol by symbol; its targets are traded when they change.

    Where `long` holds and `exit` does not: +size. Where `short` holds and `cover` does not: -size. Both: 0, because
    they contradict each other. Neither, but `exit` or `cover` holds: 0. No condition holds: the position is kept. An
    exit therefore has precedence over an entry of the same side. A rule does not know the position: `exit` and `cover`
    both close long and short positions. Symbols that are not eligible get 0.
    """

    name = "rule"
    on_change = True

    def __init__(
        self,
        *,
        long: Any = (),
        exit: Any = (),
        short: Any = (),
        cover: Any = (),
        size: float | None = None,
        allow_short: bool | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
    ) -> None:
        """Set the conditions, written as for `condition_of`.

        Args:
            long: when to be long; a list holds where all its conditions do; default: never.
            exit: when to close a position; default: never.
            short: when to be short; default: never.
            cover: when to close a position, as `exit`, for shorts by convention; default: never.
            size: weight of a position (of equity); default: 1 / number of symbols.
            allow_short: false: where `short` holds the target is 0; default: shorts are allowed if `short` is given.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.
            warm_up: bars before the first decision, beyond those the conditions need; default 0.

        Raises:
            ConfigError: neither `long` nor `short` is given, or a parameter is not valid.
        """
        written = {"long": long, "exit": exit, "short": short, "cover": cover}
        rules = {name: condition_of(each, name) for name, each in written.items() if each not in (None, (), [])}
        if not {"long", "short"} & set(rules):
            raise ConfigError(
                "a rule must have conditions in long or in short, such as long: [rsi_14 < 30], got neither"
            )
        columns = [name for rule in rules.values() for name in rule.columns]
        reach = max(rule.reach for rule in rules.values())
        super().__init__(columns=columns, reach=reach, warm_up=warm_up, include=include, exclude=exclude)
        self.size = None if size is None else positive("size", size)
        self.rules = rules
        self.allow_short = "short" in rules if allow_short is None else flag("allow_short", allow_short)

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return +size, -size, 0, or NaN to keep a position; float64 (R, N). See the class.

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """
        size = 1.0 / eligible.shape[1] if self.size is None else self.size
        return weight_table(*self._signals(columns, lambda name: _row_before(columns(name)), eligible), size)

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Return the decision for the last row of `view`; a single symbol is computed with plain numbers, for speed.

        Args:
            view: bars and features up to the decision bar.
            portfolio: snapshot of the account.
        """
        if len(view.symbols) > 1 or self.include or self.exclude:
            return super().decide(view, portfolio)
        if len(view) < self.lookback:
            return HOLD
        signals = self._signals(view.latest, lambda name: view.column(name)[-2], view.may_trade())
        weight = _WEIGHTS[signals]
        if weight != weight:
            return HOLD
        return one_target(view.symbols[0], weight * (1.0 if self.size is None else self.size), self.on_change)

    def _signals(self, now: Values, before: Values, eligible: Any) -> tuple[Any, Any, Any]:
        """Return where to be long, short and flat: bool arrays, or single values."""
        # `^ True` is "not" for arrays and for single values alike.
        rules = self.rules
        long = rules["long"].holds(now, before) & eligible if "long" in rules else False
        short = rules["short"].holds(now, before) & eligible if "short" in rules else False
        leave = rules["exit"].holds(now, before) if "exit" in rules else False
        cover = rules["cover"].holds(now, before) if "cover" in rules else False
        up, down, flat = long & (leave ^ True), short & (cover ^ True), leave | cover | (eligible ^ True)
        return (up, down, flat) if self.allow_short else (up & (down ^ True), False, flat | down)


def _row_before(column: np.ndarray) -> np.ndarray:
    before = np.empty_like(column)
    before[0] = np.nan
    before[1:] = column[:-1]
    return before
