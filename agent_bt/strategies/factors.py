"""Factors: a weighted sum of columns as a score, and the signal that acts on its thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from agent_bt.core.errors import ConfigError
from agent_bt.core.params import choice, flag, keys, number, positive, text
from agent_bt.strategies.registration import register_strategy
from agent_bt.strategies.section import places, zscores
from agent_bt.strategies.signals import Columns, SignalStrategy
from agent_bt.strategies.states import weight_table

NORMALISE = {"none": None, "zscore": zscores, "rank": places}
"""Cross-sectional normalisation of a factor before it is weighted (see `section`)."""


@dataclass(frozen=True, slots=True)
class FactorConfig:
    """One factor: a column and its weight in the score; a negative weight prefers low values.

    Raises:
        ConfigError: the column is not a name, or the weight is not a finite number.
    """

    column: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        text("column of a factor", self.column)
        number(f"weight of the factor {self.column}", self.weight)


def factors_of(written: Any, where: str = "factors") -> tuple[FactorConfig, ...]:
    """Parse factors as written in YAML: a list of {column, weight}, or of names (weight 1).

    Args:
        written: the list; its items may be `FactorConfig`s as well.
        where: name of the parameter in error messages; default `factors`.

    Raises:
        ConfigError: the value is not such a list.
    """
    if not isinstance(written, Sequence) or isinstance(written, str) or not written:
        raise ConfigError(f"{where} must be a list of {{column, weight}}, got {written!r}")
    found = []
    for at, each in enumerate(written):
        if isinstance(each, Mapping):
            keys(f"{where}[{at}]", each, needed=("column",), allowed=("column", "weight"))
            each = FactorConfig(**each)
        found.append(each if isinstance(each, FactorConfig) else FactorConfig(each))
    return tuple(found)


def score(factors: Sequence[FactorConfig], columns: Columns, eligible: np.ndarray, normalise: str) -> np.ndarray:
    """Return the weighted sum of the factors; float64 (R, N), NaN where not finite or not eligible.

    Args:
        factors: columns and their weights, summed in this order.
        columns: columns by name, float64 (R, N).
        eligible: bool (R, N), what may be traded.
        normalise: none, zscore or rank (see `NORMALISE`).
    """
    total = np.where(eligible, 0.0, np.nan)
    across = NORMALISE[normalise]
    for factor in factors:
        values = within(columns(factor.column), eligible)
        total = total + factor.weight * (values if across is None else across(values))
    return total


def within(values: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Return the values that are finite and eligible, NaN for the others; float64 (R, N), C order.

    Args:
        values: float64 (R, N).
        eligible: bool (R, N), what may be traded.
    """
    kept = np.full(values.shape, np.nan)
    np.copyto(kept, values, where=eligible & np.isfinite(values))
    return kept


@register_strategy("factor")
class FactorSignalGenerator(SignalStrategy):
    """Long where a weighted sum of columns is above a threshold, short where it is below another, else flat.

    A symbol whose score is undefined keeps its position; symbols that are not eligible get 0. Targets are traded when
    they change.
    """

    name = "factor"
    on_change = True

    def __init__(
        self,
        factors: Any,
        *,
        long_threshold: float = 0.0,
        short_threshold: float | None = None,
        normalise: str = "none",
        size: float | None = None,
        allow_short: bool | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
    ) -> None:
        """Set the factors and their thresholds.

        Args:
            factors: `FactorConfig`s, or as in `factors_of`.
            long_threshold: a score above it is long; default 0.
            short_threshold: a score below it is short; default None: no shorts.
            normalise: cross-sectional normalisation of each factor: none (default), zscore or rank.
            size: weight of a position (of equity); default: 1 / number of symbols.
            allow_short: false: below `short_threshold` is flat; default: shorts are allowed if it is given.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.
            warm_up: bars before the first decision, beyond those the columns need; default 0.

        Raises:
            ConfigError: a parameter is not valid.
        """
        self.factors = factors_of(factors)
        super().__init__(
            columns=[factor.column for factor in self.factors], warm_up=warm_up, include=include, exclude=exclude
        )
        self.long_threshold = number("long_threshold", long_threshold)
        self.short_threshold = None if short_threshold is None else number("short_threshold", short_threshold)
        if self.short_threshold is not None and self.short_threshold > self.long_threshold:
            raise ConfigError(
                f"short_threshold must be at most long_threshold ({long_threshold}), got {short_threshold}"
            )
        self.normalise = choice("normalise", normalise, NORMALISE)
        self.size = None if size is None else positive("size", size)
        self.allow_short = True if allow_short is None else flag("allow_short", allow_short)

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return +size, -size, 0, or NaN to keep a position; float64 (R, N). See the class.

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """
        scores = score(self.factors, columns, eligible, self.normalise)
        size = 1.0 / eligible.shape[1] if self.size is None else self.size
        short = self.short_threshold is not None and self.allow_short
        down = scores < cast("float", self.short_threshold) if short else False
        return weight_table(scores > self.long_threshold, down, np.isfinite(scores) | ~eligible, size)
