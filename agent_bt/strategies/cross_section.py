"""Cross-sectional strategies: momentum, mean reversion, equal weight, long-short by factors, inverse volatility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent_bt.core.params import choice, positive, text, whole
from agent_bt.strategies.factors import NORMALISE, FactorConfig, factors_of, score, within
from agent_bt.strategies.ranks import RankedLegs, RankSignalGenerator
from agent_bt.strategies.registration import register_strategy
from agent_bt.strategies.section import equal_legs, inverse_weights, legs
from agent_bt.strategies.signals import Columns, SignalStrategy

_HIGH_RETURN_LOW_VOLATILITY = (FactorConfig("return_20", 1.0), FactorConfig("volatility_20", -1.0))


@register_strategy("momentum", cross_sectional=True)
class Momentum(RankSignalGenerator):
    """Long the symbols that rose most, short those that rose least (see `RankedLegs`)."""

    name = "momentum"
    _ascending = False

    def __init__(
        self,
        *,
        lookback_col: str = "return_20",
        top_n_long: int = 10,
        top_n_short: int = 0,
        gross: float = 1.0,
        allow_short: bool | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
    ) -> None:
        """Set what is ranked, and how many are held.

        Args:
            lookback_col: the return that symbols are ranked by; default `return_20`.
            top_n_long: symbols in the long leg; default 10.
            top_n_short: symbols in the short leg; default 0.
            gross: sum of all absolute weights (of equity); default 1.
            allow_short: false: there must be no short leg. Default: not checked.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.
            warm_up: bars before the first decision, beyond those the columns need; default 0.

        Raises:
            ConfigError: a parameter is not valid.

        >>> Momentum(lookback_col="return_24", top_n_long=3).features[0].column
        'return_24'
        """
        super().__init__(
            text("lookback_col", lookback_col),
            whole("top_n_long", top_n_long, 0),
            whole("top_n_short", top_n_short, 0),
            ascending=self._ascending,
            gross=gross,
            allow_short=allow_short,
            include=include,
            exclude=exclude,
            warm_up=warm_up,
        )


@register_strategy("mean_reversion", cross_sectional=True)
class MeanReversion(Momentum):
    """Long the symbols that fell most, short those that fell least: `Momentum` the other way round."""

    name = "mean_reversion"
    _ascending = True


@register_strategy("long_short", cross_sectional=True)
class LongShort(RankedLegs):
    """Long the best and short the worst by a weighted sum of factors, each normalised across the section."""

    name = "long_short"

    def __init__(
        self,
        *,
        factors: Any = _HIGH_RETURN_LOW_VOLATILITY,
        top_n: int = 10,
        normalise: str = "zscore",
        gross: float = 1.0,
        allow_short: bool | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
    ) -> None:
        """Set the factors; the default prefers rising prices with low volatility.

        Args:
            factors: as in `factors_of`; usually two.
            top_n: symbols in each leg.
            normalise: zscore, rank or none.
            gross: sum of all absolute weights (of equity).
            allow_short: must not be false.
            include: the only symbols to trade; empty: all.
            exclude: symbols not to trade.
            warm_up: bars before the first decision, beyond those the columns need.

        Raises:
            ConfigError: a parameter is not valid.
        """
        self.factors = factors_of(factors)
        self.normalise = choice("normalise", normalise, NORMALISE)
        super().__init__(
            columns=[factor.column for factor in self.factors],
            top=whole("top_n", top_n, 1),
            bottom=top_n,
            gross=gross,
            allow_short=allow_short,
            include=include,
            exclude=exclude,
            warm_up=warm_up,
        )

    def scores(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the weighted sum of the normalised factors; `columns` and `eligible` as in `targets`."""
        return score(self.factors, columns, eligible, self.normalise)


@register_strategy("equal_weight", cross_sectional=True)
class EqualWeight(SignalStrategy):
    """The same weight in every eligible symbol, rebalanced at every decision."""

    name = "equal_weight"

    def __init__(
        self, *, gross: float = 1.0, include: Sequence[str] = (), exclude: Sequence[str] = (), warm_up: int = 0
    ) -> None:
        """Set how much is held.

        Args:
            gross: sum of all weights (of equity); default 1.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.
            warm_up: bars before the first decision; default 0.

        Raises:
            ConfigError: a parameter is not valid.
        """
        super().__init__(warm_up=warm_up, include=include, exclude=exclude)
        self.gross = positive("gross", gross)

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return equal weights of the eligible symbols with a price; NaN in rows without any; float64 (R, N).

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """
        chosen = legs(within(columns("close"), eligible), eligible.shape[1], 0)
        return np.where(eligible, equal_legs(chosen, self.gross, 0.0), 0.0)


@register_strategy("inverse_volatility", cross_sectional=True)
class InverseVolatility(SignalStrategy):
    """Weights in proportion to 1 / volatility, of all symbols or the least volatile; rebalanced at every decision."""

    name = "inverse_volatility"

    def __init__(
        self,
        *,
        vol_col: str = "volatility_20",
        top_n: int | None = None,
        gross: float = 1.0,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        warm_up: int = 0,
    ) -> None:
        """Set what is weighted, and by which volatility.

        Args:
            vol_col: the column of the volatility; default `volatility_20`.
            top_n: hold this many symbols of the lowest volatility; default: all.
            gross: sum of all weights (of equity); default 1.
            include: the only symbols to trade; default: all.
            exclude: symbols not to trade; default: none.
            warm_up: bars before the first decision, beyond those the column needs; default 0.

        Raises:
            ConfigError: a parameter is not valid.
        """
        self.vol_col = text("vol_col", vol_col)
        super().__init__(columns=[vol_col], warm_up=warm_up, include=include, exclude=exclude)
        self.top_n = None if top_n is None else whole("top_n", top_n, 1)
        self.gross = positive("gross", gross)

    def targets(self, columns: Columns, eligible: np.ndarray) -> np.ndarray:
        """Return the weights; 0 for symbols without a volatility, NaN in rows without any volatility; float64 (R, N).

        Args:
            columns: columns by name, float64 (R, N).
            eligible: bool (R, N), what may be traded.
        """
        volatility = columns(self.vol_col)
        volatility = within(volatility, eligible & (volatility > 0.0))
        chosen = legs(-volatility, eligible.shape[1] if self.top_n is None else self.top_n, 0)
        return np.where(eligible, inverse_weights(chosen, volatility, self.gross), 0.0)
