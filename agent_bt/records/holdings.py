"""What an account of many symbols held and what each of them brought: told from its fills and the market alone.

1. positions follow from the fills, in whole lots, so that they are those of the account to the last bit      `_Trades`
2. symbol by symbol, held values and settlements are added up along the bars                      `compute_holdings`
3. a leg's PnL up to a bar is the value it holds there less what was paid for it: a fill that turns a position closes
   on one side and opens on the other; slippage is inside the prices, fees and funding stand apart
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from agent_bt.config.model import ExecutionConfig
from agent_bt.core.lots import lot_of
from agent_bt.core.schema import TIME
from agent_bt.engine.market import Market

CONVENTION = (
    "Over several symbols, exposure is net: long less short. PnL of a symbol is after all its costs; PnL of a leg is "
    "before fees and funding. The price beside the equity is an index of the eligible symbols, equal in weight at "
    "every bar, without costs."
)

_LEGS: dict[str, Any] = {
    "time": TIME,
    **dict.fromkeys(("long_pnl", "short_pnl", "fees", "funding", "gross", "long", "short"), pl.Float64),
}
LEGS_SCHEMA = pl.Schema(_LEGS)
"""Per bar: cumulative PnL of what was held long and short (quote units, before fees and funding), fees and funding
paid so far; value held in all, long (>= 0) and short (<= 0), shares of equity."""

_SNAPSHOT: dict[str, Any] = {
    "time": TIME,
    "bar": pl.Int64,
    "symbol": pl.String,
    **dict.fromkeys(("quantity", "price", "value", "share"), pl.Float64),
}
SNAPSHOT_SCHEMA = pl.Schema(_SNAPSHOT)
"""Per recorded decision and symbol held right after it: signed quantity, close, value (quote units), share of equity.

What fills later (at the next open, with latency) is not in it yet."""

_REBALANCE: dict[str, Any] = {
    "time": TIME,
    "bar": pl.Int64,
    **dict.fromkeys(("equity", "turnover", "gross", "net", "long", "short"), pl.Float64),
    "positions": pl.Int64,
    "fees": pl.Float64,
}
REBALANCE_SCHEMA = pl.Schema(_REBALANCE)
"""Per recorded decision: equity and what is held right after it (shares of equity, how many symbols); one-way turnover
(half of what its orders traded, a share of that equity) and fees of its orders, whenever they filled."""

_ATTRIBUTION: dict[str, Any] = {
    "symbol": pl.String,
    **dict.fromkeys(("pnl", "long_pnl", "short_pnl", "fees", "funding", "slippage"), pl.Float64),
    "trades": pl.Int64,
    **dict.fromkeys(("turnover", "share_of_time"), pl.Float64),
}
ATTRIBUTION_SCHEMA = pl.Schema(_ATTRIBUTION)
"""Per symbol: pnl = long_pnl + short_pnl - fees - funding (quote units; slippage is inside the prices), closed trades,
one-way turnover (half the traded notional over the equity at the time), share of the bars in which it was held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """The tables of a run over many symbols, in the schemas of this module; `positions` held per bar, int64 (T,)."""

    legs: pl.DataFrame
    snapshots: pl.DataFrame
    rebalances: pl.DataFrame
    attribution: pl.DataFrame
    positions: np.ndarray

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """Each table by the name of its file."""
        names = ("legs", "snapshots", "rebalances", "attribution")
        return {name: getattr(self, name) for name in names}


def compute_holdings(
    *, market: Market, fills: pl.DataFrame, equity: np.ndarray, decisions: np.ndarray, execution: ExecutionConfig
) -> Holdings:
    """Tell what was held from the fills of a run.

    Args:
        market: the market of the run, ended where the run ended; T bars from its `first` on.
        fills: in order, columns of `FILL_SCHEMA`.
        equity: marks at the closes of these T bars, float64 (T,), quote units.
        decisions: rows of the recorded decisions in the market, int64 (D,), ascending.
        execution: the config's; its lot step makes quantities exact, its way to fill says which decision a fill is of.

    Raises:
        ValueError: the lot step is no decimal number.
    """
    first, rows = market.first, len(market) - market.first
    trades = _Trades(market, fills, decisions, execution)
    long_value, short_value, funding = np.zeros(rows), np.zeros(rows), np.zeros(rows)
    positions = np.zeros(rows, np.int64)
    told, held_at = [], []
    for number, symbol in enumerate(market.symbols):
        mine = trades.of(number)
        spans = np.diff(np.concatenate([[0], mine.rows, [rows]]))
        held = np.repeat(np.concatenate([[0.0], mine.held]), spans)
        there = np.flatnonzero(held)
        value = held[there] * market.close[first:, number][there]
        long_value[there] += np.maximum(value, 0.0)
        short_value[there] += np.minimum(value, 0.0)
        positions[there] += 1
        paid = _settlements(market, number, mine)
        funding += paid
        marked = float(value[-1]) if held[-1] else 0.0
        told.append(_brought(symbol, mine, marked, float(paid.sum()), equity, len(there) / rows))
        then = held[decisions - first]
        holding = np.flatnonzero(then)
        held_at.append((holding, np.full(len(holding), number), then[holding]))
    with np.errstate(divide="ignore", invalid="ignore"):
        long, short = long_value / equity, short_value / equity
    legs = pl.DataFrame(
        {
            "time": market.times[first:],
            "long_pnl": trades.cumulative(trades.long_flow) + long_value,
            "short_pnl": trades.cumulative(trades.short_flow) + short_value,
            "fees": trades.cumulative(trades.fee),
            "funding": np.cumsum(funding),
            "gross": long - short,
            "long": long,
            "short": short,
        }
    ).cast(LEGS_SCHEMA)
    return Holdings(
        legs=legs,
        snapshots=_snapshots(market, equity, decisions, held_at),
        rebalances=_rebalances(legs, trades, equity, decisions, first, positions),
        attribution=pl.DataFrame(told, schema=ATTRIBUTION_SCHEMA),
        positions=positions,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """The fills of one symbol, arrays (F,) in order; `rows` from the first bar of the run, lots before and after."""

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    held: np.ndarray
    early: np.ndarray
    fee: np.ndarray
    slippage: np.ndarray
    notional: np.ndarray
    long_flow: np.ndarray
    short_flow: np.ndarray


class _Trades:
    """All fills as arrays (F,): where, how much, and what each paid (-) or brought (+) to its leg."""

    def __init__(self, market: Market, fills: pl.DataFrame, decisions: np.ndarray, execution: ExecutionConfig) -> None:
        self._multiple, self._scale = lot_of(execution.lot_step)
        self._bars = len(market) - market.first
        self.at_once = execution.fill == "close" and not execution.latency_bars
        numbers = {symbol: number for number, symbol in enumerate(market.symbols)}
        bars = fills["bar"].to_numpy()
        self.symbol = np.array([numbers[symbol] for symbol in fills["symbol"]], np.int64)
        self.rows = bars - market.first
        self.ordered = (fills["reason"] == "order").to_numpy()
        self.fee, self.slippage = fills["fee"].to_numpy(), fills["slippage"].to_numpy()
        price, quantity = fills["price"].to_numpy(), fills["quantity"].to_numpy()
        self.notional = np.abs(quantity * price)
        due = decisions + execution.latency_bars if execution.fill == "close" else decisions[:0]
        self.early = self._before_close(market, fills, bars, np.isin(bars, due))
        lots = np.rint(quantity * self._scale / self._multiple).astype(np.int64)
        self.after = np.zeros(len(lots), np.int64)
        for number in range(len(market.symbols)):
            own = self.symbol == number
            self.after[own] = np.cumsum(lots[own])
        self.before = self.after - lots
        self.held = self.quantity(self.after)
        self.long_flow = self.quantity(np.maximum(self.before, 0) - np.maximum(self.after, 0)) * price
        self.short_flow = self.quantity(np.minimum(self.before, 0) - np.minimum(self.after, 0)) * price

    def quantity(self, lots: np.ndarray) -> np.ndarray:
        """Base units of whole lots."""
        return lots * self._multiple / self._scale

    def of(self, number: int) -> _Own:
        """Those of one symbol."""
        own = self.symbol == number
        return _Own(**{name: getattr(self, name)[own] for name in _Own.__slots__})

    def cumulative(self, amounts: np.ndarray) -> np.ndarray:
        """Running sum of amounts (F,) along the bars, float64 (T,)."""
        return np.cumsum(np.bincount(self.rows, weights=amounts, minlength=self._bars))

    def _before_close(self, market: Market, fills: pl.DataFrame, bars: np.ndarray, due: np.ndarray) -> np.ndarray:
        """Whether each fill lies before the close of its bar, where funding is settled, bool (F,).

        A fill says at what price it was made, not when. At the price of the close it was made there if an order was
        `due` then (bool (F,)), or if a limit or a delisting closed the position.
        """
        reference, reason = fills["reference_price"].to_numpy(), fills["reason"].to_numpy()
        late = (reference == market.close[bars, self.symbol]) & (due | (reason != "order"))
        early: np.ndarray = np.isin(reason, ("stop_loss", "take_profit")) | ~late
        return early


def _settlements(market: Market, number: int, mine: _Own) -> np.ndarray:
    """Funding that one symbol paid in each bar, float64 (T,)."""
    paid = np.zeros(len(market) - market.first)
    if not len(market.funding) or not len(mine.rows):
        return paid
    rates = market.funding[market.first :, number]
    settled = np.flatnonzero(rates)
    # What is held at a settlement: after all fills of the bars before, and those of its own bar before the close.
    count = np.searchsorted(2 * mine.rows + ~mine.early, 2 * settled, side="right")
    quantity = np.concatenate([[0.0], mine.held])[count]
    paying = quantity != 0.0
    settled, quantity = settled[paying], quantity[paying]
    paid[settled] = quantity * market.close[market.first + settled, number] * rates[settled]
    return paid


def portfolio_of(market: Market, holdings: Holdings, fills: pl.DataFrame) -> dict[str, Any]:
    """The holdings in a few numbers, for `summary.portfolio`; means over all bars, turnover over the decisions.

    `best` and `worst`: the symbols that gained and lost most, at most five each. `delisted`: those that vanished during
    the run, held or not.
    """
    legs, rebalances = holdings.legs, holdings.rebalances
    pnl = [(row["symbol"], row["pnl"]) for row in holdings.attribution.iter_rows(named=True)]
    gained = sorted((one for one in pnl if one[1] > 0.0), key=lambda one: -one[1])
    lost = sorted((one for one in pnl if one[1] < 0.0), key=lambda one: one[1])
    gone = (market.ends >= market.first) & (market.ends < len(market))
    return {
        "symbols": len(market.symbols),
        "traded": fills["symbol"].n_unique(),
        "mean_positions": float(holdings.positions.mean()),
        "mean_gross": _mean(legs["gross"]),
        "mean_net": _mean(legs["long"] + legs["short"]),
        "max_gross": _finite(float(legs["gross"].to_numpy().max())),
        "mean_turnover": _mean(rebalances["turnover"]),
        "rebalances": len(rebalances),
        "long_pnl": float(legs["long_pnl"][-1]),
        "short_pnl": float(legs["short_pnl"][-1]),
        "best": [{"symbol": symbol, "pnl": amount} for symbol, amount in gained[:5]],
        "worst": [{"symbol": symbol, "pnl": amount} for symbol, amount in lost[:5]],
        "delisted": [symbol for symbol, left in zip(market.symbols, gone.tolist(), strict=True) if left],
    }


def _mean(values: pl.Series) -> float | None:
    return _finite(float(values.to_numpy().mean())) if len(values) else None


def _shares(traded: np.ndarray, equity: np.ndarray) -> np.ndarray:
    """What was traded as shares of equity; of one that is used up it is none, and counts as nothing."""
    alive = equity > 0.0
    return np.where(alive, traded / np.where(alive, equity, 1.0), 0.0)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _brought(
    symbol: str, mine: _Own, marked: float, funding: float, equity: np.ndarray, share_of_time: float
) -> dict[str, Any]:
    """The row of one symbol in `attribution`; `marked`: value held at the end, `funding` paid, quote units."""
    fees = float(mine.fee.sum())
    long_pnl = float(mine.long_flow.sum()) + max(marked, 0.0)
    short_pnl = float(mine.short_flow.sum()) + min(marked, 0.0)
    return {
        "symbol": symbol,
        "pnl": long_pnl + short_pnl - fees - funding,
        "long_pnl": long_pnl,
        "short_pnl": short_pnl,
        "fees": fees,
        "funding": funding,
        "slippage": float(mine.slippage.sum()),
        "trades": int(np.count_nonzero((mine.before != 0) & ((mine.before > 0) != (mine.after > mine.before)))),
        "turnover": 0.5 * float(np.sum(_shares(mine.notional, equity[mine.rows]))),
        "share_of_time": share_of_time,
    }


def _snapshots(
    market: Market,
    equity: np.ndarray,
    decisions: np.ndarray,
    held_at: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> pl.DataFrame:
    at, number, quantity = (np.concatenate(parts) for parts in zip(*held_at, strict=True))
    order = np.lexsort((number, at))
    bars, number, quantity = decisions[at[order]], number[order], quantity[order]
    price = market.close[bars, number]
    value = quantity * price
    columns = {
        "time": market.times[bars],
        "bar": bars,
        "symbol": np.array(market.symbols, object)[number].tolist(),
        "quantity": quantity,
        "price": price,
        "value": value,
        "share": value / equity[bars - market.first],
    }
    return pl.DataFrame(columns, schema_overrides={"symbol": pl.String}).cast(SNAPSHOT_SCHEMA)


def _rebalances(
    legs: pl.DataFrame,
    trades: _Trades,
    equity: np.ndarray,
    decisions: np.ndarray,
    first: int,
    positions: np.ndarray,
) -> pl.DataFrame:
    rows = decisions - first
    # An order that fills in the bar of a later decision belongs to that one only if orders fill at once, at the close.
    until = np.searchsorted(rows, trades.rows, side="left")
    with_this = np.searchsorted(rows, trades.rows, side="right")
    decided = np.where(~trades.early & trades.at_once, with_this, until) - 1
    own = trades.ordered & (decided >= 0)
    count = len(rows)
    traded = np.bincount(decided[own], weights=trades.notional[own], minlength=count)
    fees = np.bincount(decided[own], weights=trades.fee[own], minlength=count)
    then = legs[rows]
    columns = {
        "time": then["time"],
        "bar": decisions,
        "equity": equity[rows],
        "turnover": 0.5 * _shares(traded, equity[rows]),
        "gross": then["gross"],
        "net": then["long"] + then["short"],
        "long": then["long"],
        "short": then["short"],
        "positions": positions[rows],
        "fees": fees,
    }
    return pl.DataFrame(columns).cast(REBALANCE_SCHEMA)
