"""What a feature is: its kind, its periods, how far it looks back; and the table of all kinds there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agent_bt.config.model import FeaturesConfig
from agent_bt.core.errors import StrategyError
from agent_bt.core.suggest import did_you_mean
from agent_bt.core.types import FeatureSpec


class Columns(Protocol):
    """Bars by column name: a table in `BAR_SCHEMA`, or a mapping of arrays of equal length."""

    def __getitem__(self, name: str, /) -> Any:
        """The column, oldest bar first."""
        ...


Compute = Callable[..., np.ndarray]
Demand = Callable[..., str | None]


def any_period(*periods: int) -> None:
    """The demand of a kind that asks for nothing more of its periods."""


def two_or_more(period: int) -> str | None:
    """The demand of a kind that is nothing over a single bar."""
    return None if period >= 2 else "the period is at least 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One computation.

    `inputs`: the bar columns it reads; `params`: the names of its periods, whole numbers of at least 1;
    `demand(*periods)`: what they lack beyond that ("fast is below slow"), or None; `lookback(*periods)`: see
    `lookback`; `compute(*inputs, *periods)`: float64 (T,) arrays in, float64 (T,) out, NaN where undefined, and no
    value may depend on a later bar.
    """

    name: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    lookback: Callable[..., int]
    compute: Compute
    demand: Demand


KINDS: dict[str, Kind] = {}
"""Every kind by name."""


def register(
    name: str,
    *,
    inputs: tuple[str, ...],
    params: tuple[str, ...],
    lookback: Callable[..., int],
    demand: Demand = any_period,
) -> Callable[[Compute], Compute]:
    """Decorator: make a function the computation of a new kind of feature (see `Kind`).

    Raises:
        StrategyError: the name is taken.
    """

    def add(compute: Compute) -> Compute:
        if name in KINDS:
            raise StrategyError(f"feature kind {name!r} exists already; register yours under another name")
        KINDS[name] = Kind(name=name, inputs=inputs, params=params, lookback=lookback, compute=compute, demand=demand)
        return compute

    return add


def feature_specs(config: FeaturesConfig) -> tuple[FeatureSpec, ...]:
    """The columns every run has beside its bars, in their fixed order, with the periods of the configuration."""
    macd = (("fast", config.macd_fast), ("slow", config.macd_slow), ("signal", config.macd_signal))
    return (
        FeatureSpec(column="ema_fast", kind="ema", params=(("period", config.ema_fast),)),
        FeatureSpec(column="ema_slow", kind="ema", params=(("period", config.ema_slow),)),
        FeatureSpec(column="rsi", kind="rsi", params=(("period", config.rsi),)),
        FeatureSpec(column="cmf", kind="cmf", params=(("period", config.cmf),)),
        FeatureSpec(column="macd", kind="macd", params=macd),
        FeatureSpec(column="macd_signal", kind="macd_signal", params=macd),
        FeatureSpec(column="macd_hist", kind="macd_hist", params=macd),
        FeatureSpec(column="atr", kind="atr", params=(("period", config.atr),)),
    )


def resolve(spec: FeatureSpec) -> tuple[Kind, tuple[int, ...]]:
    """The kind a spec names and its periods in the kind's order.

    Raises:
        StrategyError: the kind is unknown, the periods are not the ones it takes, or break its rules.
    """
    kind = KINDS.get(spec.kind)
    if kind is None:
        hint = did_you_mean(spec.kind, KINDS) or "."
        raise StrategyError(f"feature {spec.column!r}: no kind {spec.kind!r}{hint} Known: {', '.join(sorted(KINDS))}")
    given = dict(spec.params)
    if sorted(given) != sorted(kind.params) or len(given) != len(spec.params):
        raise StrategyError(
            f"feature {spec.column!r}: kind {spec.kind!r} takes {', '.join(kind.params) or 'no parameters'},"
            f" got {', '.join(name for name, _ in spec.params) or 'none'}"
        )
    periods = tuple(given[name] for name in kind.params)
    zero = any(period < 1 for period in periods)
    if broken := "every number is at least 1" if zero else kind.demand(*periods):
        raise StrategyError(f"feature {spec.column!r}: {broken}")
    return kind, periods


def lookback(spec: FeatureSpec) -> int:
    """Bars needed for the first defined value, the bar of that value included: `lookback` = 1 + its row.

    A recursive kind (EMA, RSI, MACD, ATR) also remembers what came before, with weights that fall off
    geometrically: its value belongs to a series that starts at the first bar loaded.

    Raises:
        StrategyError: the kind is unknown, the periods are not the ones it takes, or break its rules.
    """
    kind, periods = resolve(spec)
    return kind.lookback(*periods)
