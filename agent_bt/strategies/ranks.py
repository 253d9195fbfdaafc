"""Rank symbols: long the best and short the worst of the cross-section, with equal weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from agent_bt.core.errors import ConfigError
from agent_bt.core.params import flag, positive, text, whole
from agent_bt.strategies.factors import within
from agent_bt.strategies.registration import register_strategy
from agent_bt.strategies.section import equal_legs, legs
from agent_bt.strategies.signals import Columns, SignalStrategy


class RankedLegs(SignalStrategy):
    """Base of strategies that rank symbols: long the best, short the worst; define `scores`.

    With both legs, half of the gross weight is long and half short, equal within a leg; a single leg has all of it.
    Where fewer symbols can be ranked than requested, the leg holds those; the weight of an empty leg stays in cash. A
    symbol is in one leg only; the long leg is filled first. Equal scores are taken in the order of the symbols.
    Symbols that are not chosen, or no longer eligible, get 0; where no symbol can be ranked, positions are kept. The
    portfolio is rebalanced to its weights at every decision.
    """

    def __init__(
        self,
        *,
        columns: Sequence[str],
        top: int,
        bottom: int,
        gross: float,
        allow_short: bool | None,
        include: Sequence[str],
        exclude: Sequence[str],
        warm_up: int,
    ) -> None:
        """Set what is ranked, and how many are held.

        Args:
            columns: names of the columns that `scores` reads.
            top: symbols in the long leg.
            bottom: symbols in the short leg.
            gross: sum of all absolute weights (of equity).
            allow_short: false: `bottom` must be 0; None: not checked.
            include: the only symbols to trade; empty: all.
            exclude: symbols not to trade.
            warm_up: bars before the first decision, beyond those the columns need.

        Raises:
            ConfigError: a parameter is not valid.
        """
        super().__init__(columns=columns, warm_up=warm_up, include=include, exclude=exclude)
        if top + bottom == 0:
            raise ConfigError(
                "the number of long and short symbols must not both be 0: no position would ever be opened"
            )
        if bottom and allow_short is not None and not flag("allow_short", allow_short):
            raise ConfigError(f"the number of short symbols must be 0 when allow_short is false, got {bottom}")
        self.top, self.bottom = top, bottom
        self.gross = positive("gross", gross)

    @abstractmethod
    def scores(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the scores of symbols, the best highest; float64 (R, N), NaN where a symbol cannot be ranked.

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the weights of both legs, 0 for all others, NaN in rows without scores; float64 (R, N).

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """
        leg = 0.5 if self.top and self.bottom else 1.0
        weights = equal_legs(
            legs(self.scores(columns, eligible), self.top, self.bottom), leg * self.gross, leg * self.gross
        )
        return np.where(eligible, weights, 0.0)


@register_strategy("rank", cross_sectional=True)
class RankSignalGenerator(RankedLegs):
    """Long the `top_n` symbols with the highest values of a column, short the `bottom_n` with the lowest."""

    name = "rank"

    def __init__(
        self,
        column: str,
        top_n: int,
        bottom_n: int = 0,
        *,
        ascending: bool = False,
        gross: float = 1.0,
        allow_short: bool | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
    ) -> None:
        """Set what is ranked, and how many are held.

        Args:
            column: the column that symbols are ranked by.
            top_n: symbols in the long leg.
            bottom_n: symbols in the short leg; default 0.
            ascending: rank the lowest value first: long the lowest, short the highest; default False.
            gross: sum of all absolute weights (of equity); default 1.
            allow_short: false: `bottom_n` must be 0.
            include: the only symbols to trade; empty: all.
            exclude: symbols not to trade.
            warm_up: bars before the first decision, beyond those the column needs.

        Raises:
            ConfigError: a parameter is not valid.

        >>> RankSignalGenerator("return_20", top_n=2, bottom_n=1).bottom
        1
        """
        self.column = text("column", column)
        self.ascending = flag("ascending", ascending)
        super().__init__(
            columns=[column],
            top=whole("top_n", top_n, 0),
            bottom=whole("bottom_n", bottom_n, 0),
            gross=gross,
            allow_short=allow_short,
            include=include,
            exclude=exclude,
            warm_up=warm_up,
        )

    def scores(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the column, or its negative if ascending; float64 (R, N), NaN where not eligible.

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """
        values = within(columns(self.column), eligible)
        return -values if self.ascending else values
