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
from agent_bt.strategies.states import share_table

NORMALISE = {"none": None, "zscore": zscores, "rank": places}
"""How a factor is made comparable across the section before it is weighted (see `section`)."""


@dataclass(frozen=True, slots=True)
class FactorConfig:
    """One factor: a column and its weight in the score; a negative weight prefers low values.

    Raises:
        ConfigError: the column is no name, or the weight no finite number.
    """

    column: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        text("column of a factor", self.column)
        number(f"weight of the factor {self.column}", self.weight)


def factors_of(written: Any, where: str = "factors") -> tuple[FactorConfig, ...]:
    """Factors as they may be written in YAML: a list of {column, weight}, or of names (weight 1).

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(written, Sequence) or isinstance(written, str) or not written:
        raise ConfigError(f"{where}: wants a list of {{column, weight}}, not {written!r}")
    found = []
    for at, each in enumerate(written):
        if isinstance(each, Mapping):
            keys(f"{where}[{at}]", each, needed=("column",), allowed=("column", "weight"))
            each = FactorConfig(**each)
        found.append(each if isinstance(each, FactorConfig) else FactorConfig(each))
    return tuple(found)


def score(factors: Sequence[FactorConfig], columns: Columns, eligible: np.ndarray, normalise: str) -> np.ndarray:
    """The weighted sum of the factors, in their order; float64 (R, N), NaN where one is not finite or not eligible."""
    total = np.where(eligible, 0.0, np.nan)
    across = NORMALISE[normalise]
    for factor in factors:
        values = within(columns(factor.column), eligible)
        total = total + factor.weight * (values if across is None else across(values))
    return total


def within(values: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """The values that are finite and eligible, NaN for the others; float64 (R, N), C order."""
    kept = np.full(values.shape, np.nan)
    np.copyto(kept, values, where=eligible & np.isfinite(values))
    return kept


@register_strategy("factor")
class FactorSignalGenerator(SignalStrategy):
    """Long where a weighted sum of columns is above a threshold, short where it is below another, else flat.

    A symbol whose score is undefined is left alone; what is not eligible gets 0. Targets act when they change.
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
            long_threshold: a score above it is long.
            short_threshold: a score below it is short; None: no shorts.
            normalise: none, zscore or rank: what is done to each factor across the section first.
            size: share of equity of a position; None: an equal share for every symbol.
            allow_short: false: below `short_threshold` is flat; None: shorts are allowed if it is given.
            include: the only symbols to trade; empty: all.
            exclude: symbols not to trade.
            warm_up: bars before the first decision, beyond those the columns need.

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
            raise ConfigError(f"short_threshold: {short_threshold} is above long_threshold, {long_threshold}")
        self.normalise = choice("normalise", normalise, NORMALISE)
        self.size = None if size is None else positive("size", size)
        self.allow_short = True if allow_short is None else flag("allow_short", allow_short)

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """+size, -size, 0 or NaN; see the class."""
        scores = score(self.factors, columns, eligible, self.normalise)
        size = 1.0 / eligible.shape[1] if self.size is None else self.size
        short = self.short_threshold is not None and self.allow_short
        down = scores < cast("float", self.short_threshold) if short else False
        return share_table(scores > self.long_threshold, down, np.isfinite(scores) | ~eligible, size)
