"""Define features (kind, periods, lookback) and register their kinds."""

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
        """Return the column, oldest bar first."""
        ...


Compute = Callable[..., np.ndarray]
Demand = Callable[..., str | None]


def any_period(*periods: int) -> None:
    """Accept all periods: the requirement of a kind that sets no limits beyond 1."""


def two_or_more(period: int) -> str | None:
    """Return an error message for a period below 2: the requirement of a kind that is undefined over a single bar."""
    return None if period >= 2 else "the period must be at least 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of feature.

    Attributes:
        name: the kind, as `FeatureSpec.kind` gives it.
        inputs: the bar columns it reads.
        params: names of its periods, integers of at least 1.
        lookback: function of the periods; returns the bars needed for the first defined value (see `lookback`).
        compute: function of the inputs, then the periods: float64 (T,) arrays in, float64 (T,) out, NaN where
            undefined. No value may depend on a later bar.
        demand: function of the periods; returns an error message where they break a requirement ("fast must be below
            slow"), else None.
    """

    name: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    lookback: Callable[..., int]
    compute: Compute
    demand: Demand


KINDS: dict[str, Kind] = {}
"""Kinds by name."""


def register(
    name: str,
    *,
    inputs: tuple[str, ...],
    params: tuple[str, ...],
    lookback: Callable[..., int],
    demand: Demand = any_period,
) -> Callable[[Compute], Compute]:
    """Return a decorator that registers a function as the computation of a new kind of feature (see `Kind`).

    Args:
        name: the kind, as `FeatureSpec.kind` and column names give it: `sma`.
        inputs: the bar columns that the function takes first, in this order.
        params: names of the periods that it takes after them, integers of at least 1.
        lookback: function of the periods; returns the bars needed for the first defined value.
        demand: function of the periods; returns an error message where they break a requirement, else None. Default:
            no requirement.

    Raises:
        StrategyError: the name is taken.
    """

    def add(compute: Compute) -> Compute:
        if name in KINDS:
            raise StrategyError(f"feature kind {name!r} already exists; register yours under another name")
        KINDS[name] = Kind(name=name, inputs=inputs, params=params, lookback=lookback, compute=compute, demand=demand)
        return compute

    return add


def feature_specs(config: FeaturesConfig) -> tuple[FeatureSpec, ...]:
    """Return the feature columns that every run has, in their fixed order, with the periods of the configuration."""
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
    """Return the kind of a spec, and its periods in the order of `Kind.params`.

    Raises:
        StrategyError: the kind is unknown, its periods are not those of the kind, or they break a requirement.
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
    if broken := "every period must be at least 1" if zero else kind.demand(*periods):
        raise StrategyError(f"feature {spec.column!r}: {broken}")
    return kind, periods


def lookback(spec: FeatureSpec) -> int:
    """Return the number of bars needed for the first defined value, its own bar included: 1 + its row.

    A recursive kind (EMA, RSI, MACD, ATR) also depends on earlier bars, with geometrically decreasing weights: its
    values are those of a series that starts at the first bar loaded.

    Raises:
        StrategyError: the kind is unknown, its periods are not those of the kind, or they break a requirement.
    """
    kind, periods = resolve(spec)
    return kind.lookback(*periods)
