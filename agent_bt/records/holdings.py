"""Computes what a run over several symbols held, and the PnL of each symbol, from its fills and the market alone.

1. positions follow from the fills, in whole lots, so that they equal the account's to the last bit   `FillArrays`
2. for each symbol, held values and funding are added up along the bars                               `compute_holdings`
3. the PnL of a leg up to a bar is the value held then minus the net amount paid for it: a fill that reverses a position
   closes one leg and opens the other; slippage is inside the prices, fees and funding are separate
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from agent_bt.config.model import ExecutionConfig
from agent_bt.engine.market import Market
from agent_bt.records.fill_arrays import FillArrays, SymbolFills, compute_funding
from agent_bt.records.holdings_schema import ATTRIBUTION_SCHEMA, LEGS_SCHEMA, REBALANCE_SCHEMA, SNAPSHOT_SCHEMA

CONVENTION = (
    "Over several symbols, exposure is net: long minus short. The PnL of a symbol is after all its costs; the PnL of a "
    "leg is before fees and funding. The price next to the equity is an index of the eligible symbols, equally "
    "weighted at every bar, without costs."
)
"""How the figures of a run over several symbols are defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """The tables of a run over several symbols.

    Attributes:
        legs, snapshots, rebalances, attribution: in the schemas of `holdings_schema`.
        positions: symbols held at each bar, int64 (T,).
    """

    legs: pl.DataFrame
    snapshots: pl.DataFrame
    rebalances: pl.DataFrame
    attribution: pl.DataFrame
    positions: np.ndarray

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """Each table under the name of its file."""
        names = ("legs", "snapshots", "rebalances", "attribution")
        return {name: getattr(self, name) for name in names}


def compute_holdings(
    *, market: Market, fills: pl.DataFrame, equity: np.ndarray, decisions: np.ndarray, execution: ExecutionConfig
) -> Holdings:
    """Compute what was held from the fills of a run.

    Args:
        market: the market of the run, cut where the run ended; T bars from its `first` on.
        fills: in order, columns of `FILL_SCHEMA`.
        equity: equity at the closes of these T bars, float64 (T,), quote units.
        decisions: bars of the recorded decisions, int64 (D,), ascending.
        execution: its lot step makes quantities exact, its fill convention assigns each fill to a decision.

    Raises:
        ValueError: the lot step is not a decimal number.
    """
    first, rows = market.first, len(market) - market.first
    trades = FillArrays(market, fills, decisions, execution)
    long_value, short_value, funding = np.zeros(rows), np.zeros(rows), np.zeros(rows)
    positions = np.zeros(rows, np.int64)
    attribution, held_at = [], []
    for number, symbol in enumerate(market.symbols):
        own = trades.select(number)
        spans = np.diff(np.concatenate([[0], own.rows, [rows]]))
        held = np.repeat(np.concatenate([[0.0], own.held]), spans)
        there = np.flatnonzero(held)
        value = held[there] * market.close[first:, number][there]
        long_value[there] += np.maximum(value, 0.0)
        short_value[there] += np.minimum(value, 0.0)
        positions[there] += 1
        paid = compute_funding(market, number, own)
        funding += paid
        last_value = float(value[-1]) if held[-1] else 0.0
        attribution.append(_attribution_row(symbol, own, last_value, float(paid.sum()), equity, len(there) / rows))
        at_decisions = held[decisions - first]
        holding = np.flatnonzero(at_decisions)
        held_at.append((holding, np.full(len(holding), number), at_decisions[holding]))
    with np.errstate(divide="ignore", invalid="ignore"):
        long, short = long_value / equity, short_value / equity
    legs = pl.DataFrame(
        {
            "time": market.times[first:],
            "long_pnl": trades.accumulate(trades.long_flow) + long_value,
            "short_pnl": trades.accumulate(trades.short_flow) + short_value,
            "fees": trades.accumulate(trades.fee),
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
        attribution=pl.DataFrame(attribution, schema=ATTRIBUTION_SCHEMA),
        positions=positions,
    )


def summarise_holdings(market: Market, holdings: Holdings, fills: pl.DataFrame) -> dict[str, Any]:
    """Summarise the holdings for `summary.portfolio`: means over all bars, turnover over the decisions.

    `best` and `worst` are the symbols that gained and lost most, at most five each; `delisted` are those that stopped
    trading during the run, held or not.

    Args:
        market: the market of the run, cut where the run ended.
        holdings: as computed for it.
        fills: in order, columns of `FILL_SCHEMA`.
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


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _relative_to_equity(traded: np.ndarray, equity: np.ndarray) -> np.ndarray:
    """Return traded notional as a fraction of equity; 0 where the equity is used up."""
    positive = equity > 0.0
    return np.where(positive, traded / np.where(positive, equity, 1.0), 0.0)


def _attribution_row(
    symbol: str, own: SymbolFills, last_value: float, funding: float, equity: np.ndarray, share_of_time: float
) -> dict[str, Any]:
    """Build the row of one symbol; `last_value`: value held at the end, `funding`: paid in all, both in quote units."""
    fees = float(own.fee.sum())
    long_pnl = float(own.long_flow.sum()) + max(last_value, 0.0)
    short_pnl = float(own.short_flow.sum()) + min(last_value, 0.0)
    return {
        "symbol": symbol,
        "pnl": long_pnl + short_pnl - fees - funding,
        "long_pnl": long_pnl,
        "short_pnl": short_pnl,
        "fees": fees,
        "funding": funding,
        "slippage": float(own.slippage.sum()),
        "trades": int(np.count_nonzero((own.before != 0) & ((own.before > 0) != (own.after > own.before)))),
        "turnover": 0.5 * float(np.sum(_relative_to_equity(own.notional, equity[own.rows]))),
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
    trades: FillArrays,
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
        "turnover": 0.5 * _relative_to_equity(traded, equity[rows]),
        "gross": then["gross"],
        "net": then["long"] + then["short"],
        "long": then["long"],
        "short": then["short"],
        "positions": positions[rows],
        "fees": fees,
    }
    return pl.DataFrame(columns).cast(REBALANCE_SCHEMA)
