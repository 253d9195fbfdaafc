"""Inputs of a ranker's prompt: the cross-section of the symbols now, and, separately, what the account holds.

The table shows the market alone; the held weights are in it only where a template uses `account`. A prompt that does
not use it is the same whatever was traded, so all of its requests can be sent at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, fsum, isfinite, log10
from typing import Any, Literal

import numpy as np

from agent_bt.agents.context import duration_text
from agent_bt.core.clock import to_datetime
from agent_bt.core.types import FeatureSpec, Portfolio
from agent_bt.core.view import MarketView

Unit = Literal["price", "difference", "amount", "share", "plain"]
PRICE_DIGITS = 5
RESERVED = ("symbol", "price", "weight")
"""Columns that every table has, or may have, beside the requested ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    unit: Unit
    decimals: int
    words: str


def _price(words: str) -> _Style:
    return _Style(unit="price", decimals=2, words=f"{words}, % from the price")


def _amount(words: str) -> _Style:
    return _Style(unit="amount", decimals=0, words=f"{words}, % of the mean of the table")


# The words of the legends are part of prompts, and so of the addresses of cached replies.
_OF_KIND: Mapping[str, _Style] = {
    "return": _Style(unit="share", decimals=2, words="change over {0} bars, %"),
    "volatility": _Style(unit="share", decimals=3, words="standard deviation of a bar's return over {0} bars, %"),
    "rsi": _Style(unit="plain", decimals=1, words="RSI of {0} bars, 0 to 100"),
    "cmf": _Style(unit="share", decimals=0, words="Chaikin money flow over {0} bars, -100 to 100"),
    "zscore": _Style(unit="plain", decimals=2, words="price against its mean over {0} bars, in standard deviations"),
    "atr": _Style(unit="difference", decimals=3, words="average true range of {0} bars, % of the price"),
    "macd": _Style(unit="difference", decimals=3, words="MACD of {0}, {1} and {2} bars, % of the price"),
    "macd_signal": _Style(unit="difference", decimals=3, words="signal line of that MACD, % of the price"),
    "macd_hist": _Style(unit="difference", decimals=3, words="MACD minus its signal line, % of the price"),
    "sma": _price("mean price of {0} bars"),
    "ema": _price("exponential mean price of {0} bars"),
    "bollinger_upper": _price("upper Bollinger band of {0} bars"),
    "bollinger_lower": _price("lower Bollinger band of {0} bars"),
    "highest": _price("highest price of {0} bars"),
    "lowest": _price("lowest price of {0} bars"),
    "quote_volume": _amount("mean turnover of a bar over {0} bars"),
}
_OF_BAR: Mapping[str, _Style] = {
    **{name: _price(f"{name} of the last bar") for name in ("open", "high", "low", "close")},
    **{
        name: _amount(f"{name} of the last bar")
        for name in ("volume", "quote_asset_volume", "trades", "taker_base", "taker_quote")
    },
    "filled": _Style(unit="plain", decimals=0, words="1 where the last bar had no trade"),
}


def style_of(column: str, spec: FeatureSpec | None) -> _Style:
    """Return the format of a column and its description.

    Args:
        column: its name.
        spec: its feature; None for a column of the bars.
    """
    if spec is None:
        return _OF_BAR[column]
    style = _OF_KIND.get(spec.kind, _Style(unit="plain", decimals=4, words=spec.kind))
    words = style.words.format(*(number for _, number in spec.params))
    return _Style(unit=style.unit, decimals=style.decimals, words=words)


def panel_context(
    view: MarketView,
    portfolio: Portfolio,
    *,
    shown: Sequence[str],
    columns: Mapping[str, FeatureSpec | None],
    frequency: str,
    allow_short: bool,
) -> dict[str, Any]:
    """Return the inputs of a ranker's prompt at `view.now`.

    Args:
        view: what may be seen.
        portfolio: the account before the decision.
        shown: the symbols of the table.
        columns: of the table: name -> its feature, None for a column of the bars.
        frequency: when decisions are made, in words.
        allow_short: whether weights may be negative.

    Returns:
        time: the decision's instant (UTC). interval, rhythm: text. allow_short: as given. panel: `PanelInput`.
        account: `HoldingsInput`.
    """
    return {
        "time": to_datetime(view.now),
        "interval": duration_text(view.interval),
        "rhythm": frequency,
        "allow_short": allow_short,
        "panel": PanelInput(view, shown, columns),
        "account": HoldingsInput(view, portfolio),
    }


class PanelInput:
    """The cross-section of the symbols that may be bought.

    Args:
        view: the market up to now.
        symbols: the symbols of the table.
        columns: name -> its feature, None for a column of the bars.

    Attributes:
        symbols: their names, in the order of the table.
        count: their number.
        legend: name -> meaning of the requested columns.
    """

    __slots__ = ("_columns", "_view", "count", "legend", "symbols")

    def __init__(self, view: MarketView, symbols: Sequence[str], columns: Mapping[str, FeatureSpec | None]) -> None:
        self._view, self._columns = view, columns
        self.symbols = tuple(symbols)
        self.count = len(symbols)
        self.legend = {name: style_of(name, spec).words for name, spec in columns.items()}

    def table(self, weights: Mapping[str, int] | None = None) -> str:
        """Return a header and one line per symbol: its name, its price, and the requested columns.

        Prices have five significant digits, the others fixed decimals, rounded half to even, never a negative zero, and
        `na` where undefined.

        Args:
            weights: held weights in whole per cent, by symbol; None: without that column.
        """
        rows = [self._view.symbols.index(symbol) for symbol in self.symbols]
        closes = self._view.cross_section("close")[rows]
        cells = [list(self.symbols), [_price_text(price) for price in closes.tolist()]]
        for name, spec in self._columns.items():
            style = style_of(name, spec)
            cells.append(
                _format_cells(_scaled(self._view.cross_section(name)[rows], style.unit, closes), style.decimals)
            )
        header = ["symbol", "price", *self._columns]
        if weights is not None:
            header.append("weight")
            cells.append([str(weights.get(symbol, 0)) for symbol in self.symbols])
        return "\n".join(",".join(line) for line in (header, *zip(*cells, strict=True)))


class HoldingsInput:
    """The positions of the account before the decision, coarse and scale-free, so that equal situations look equal.

    Args:
        view: the market up to now.
        portfolio: the account before the decision.

    Attributes:
        weights: symbol -> whole per cent of the equity, negative where short; only what is held.
        positions: number of symbols held. gross: sum of the absolute weights, whole per cent.
    """

    __slots__ = ("gross", "positions", "weights")

    def __init__(self, view: MarketView, portfolio: Portfolio) -> None:
        weights = {symbol: portfolio.share(symbol, view.prices) for symbol in sorted(portfolio.positions)}
        self.weights = {symbol: round(100.0 * weight) for symbol, weight in weights.items()}
        self.positions = len(weights)
        self.gross = round(100.0 * fsum(map(abs, weights.values())))


def _scaled(values: np.ndarray, unit: Unit, closes: np.ndarray) -> np.ndarray:
    scale: float | np.ndarray = 1.0 if unit == "plain" else 100.0
    if unit in ("price", "difference"):
        scale = 100.0 / closes
    elif unit == "amount":
        known = [value for value in values.tolist() if isfinite(value)]
        total = fsum(known)
        scale = 100.0 * len(known) / total if total else 1.0
    scaled: np.ndarray = values * scale - (100.0 if unit == "price" else 0.0)
    return scaled


def _format_cells(values: np.ndarray, decimals: int) -> list[str]:
    power = 10.0**decimals
    rounded = (np.rint(values * power) / power + 0.0).tolist()
    return [f"{value:.{decimals}f}" if isfinite(value) else "na" for value in rounded]


def _price_text(price: float) -> str:
    if not isfinite(price) or price <= 0.0:
        return "na"
    return f"{price:.{max(0, PRICE_DIGITS - 1 - floor(log10(price)))}f}"
