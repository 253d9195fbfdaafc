"""Holdings and PnL of a run over several symbols, by symbol and leg: packed for charts, and as tables.

Weights and exposures are fractions of equity; the short side is negative. Costs (fees, funding) are amounts paid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from agent_bt.records.read import Run
from agent_bt.reports.html_cards import sign_class
from agent_bt.reports.html_curves import bucket_starts, step_ms
from agent_bt.reports.html_format import amount, count, percent, plain, ratio
from agent_bt.reports.html_pack import Column, pack_columns, quantise, significant_decimals, to_floats

NAMED = 10
"""Symbols with their own colour in the chart of holdings; all others are one area for each side."""

_MAX_POINTS, _MAX_HOLDINGS = 3_000, 1_200


@dataclass(frozen=True, slots=True, kw_only=True)
class Portfolio:
    """The tables of a run over several symbols.

    Attributes:
        snapshots, rebalances, attribution, legs: in the schemas of `records.holdings_schema`.
    """

    snapshots: pl.DataFrame
    rebalances: pl.DataFrame
    attribution: pl.DataFrame
    legs: pl.DataFrame

    def named(self) -> list[str]:
        """Return the symbols with the largest holdings over time, largest first."""
        held = self.snapshots.group_by("symbol").agg(pl.col("share").abs().sum())
        return held.sort("share", "symbol", descending=[True, False])["symbol"].head(NAMED).to_list()

    def blocks(self) -> dict[str, str]:
        """Pack the blocks `holdings`, `rebalances` and `legs`."""
        return {
            "holdings": pack_columns(self._holdings()),
            "rebalances": pack_columns(self._rebalances()),
            "legs": pack_columns(self._legs()),
        }

    def _holdings(self) -> list[Column]:
        """Build `time`, the weights of the named symbols by their position, and `long` and `short` of all others."""
        times, named = _milliseconds(self.rebalances), self.named()
        last = _last_of(bucket_starts(times, step_ms(times, _MAX_HOLDINGS)), len(times))
        shown = self.rebalances[last].select("bar")
        held = self.snapshots.select(
            "bar",
            "share",
            area=pl.col("symbol").replace_strict(
                {symbol: str(at) for at, symbol in enumerate(named)},
                default=pl.when(pl.col("share") > 0).then(pl.lit("long")).otherwise(pl.lit("short")),
                return_dtype=pl.String,
            ),
        )
        packed = [Column(name="time", codes=times[last], delta=True)]
        for area in (*map(str, range(len(named))), "long", "short"):
            weights = held.filter(pl.col("area") == area).group_by("bar").agg(pl.col("share").sum())
            aligned = shown.join(weights, on="bar", how="left", maintain_order="left")
            packed.append(quantise(area, _finite_floats(aligned["share"]), 5))
        return packed

    def _rebalances(self) -> list[Column]:
        return [
            Column(name="time", codes=_milliseconds(self.rebalances), delta=True),
            *(quantise(name, _finite_floats(self.rebalances[name]), 5) for name in ("turnover", "gross", "net")),
            Column(name="positions", codes=self.rebalances["positions"].cast(pl.Int64).to_numpy()),
            quantise("fees", _finite_floats(self.rebalances["fees"]), 2),
        ]

    def _legs(self) -> list[Column]:
        times = _milliseconds(self.legs)
        # A bar belongs to the step in which it closes.
        last = _last_of(bucket_starts(times - 1, step_ms(times, _MAX_POINTS)), len(times))
        values = {name: _finite_floats(self.legs[name])[last] for name in self.legs.columns if name != "time"}
        costs = values["fees"] + values["funding"]
        short = -np.abs(values["short"])
        money = {"long_pnl": values["long_pnl"], "short_pnl": values["short_pnl"], "costs": -costs}
        money["total"] = values["long_pnl"] + values["short_pnl"] - costs
        decimals = significant_decimals(np.concatenate(list(money.values())), 8)
        exposure = {"gross": values["gross"], "net": values["long"] + short, "long": values["long"], "short": short}
        return [
            Column(name="time", codes=times[last], delta=True),
            *(quantise(name, curve, decimals, delta=True) for name, curve in money.items()),
            *(quantise(name, curve, 5) for name, curve in exposure.items()),
        ]


def read_portfolio(run: Run) -> Portfolio | None:
    """Read the tables of a run over several symbols; None for a run over one.

    Raises:
        RecordError: one of them is missing or damaged.
    """
    if not run.multi_symbol:
        return None
    return Portfolio(snapshots=run.snapshots, rebalances=run.rebalances, attribution=run.attribution, legs=run.legs)


def build_portfolio_facts(
    portfolio: Portfolio, *, summary: Mapping[str, Any], fills: pl.DataFrame, closes: Mapping[str, float]
) -> dict[str, Any]:
    """Build the tables of the template.

    Args:
        portfolio: the tables of the run.
        summary: of the run; its `portfolio` names the delisted symbols.
        fills: of the run.
        closes: symbol -> its last close.
    """
    measured = summary.get("portfolio") or {}
    delisted = list(measured.get("delisted") or ())
    equity = float(summary["performance"]["final_equity"])
    touched = portfolio.attribution.filter((pl.col("trades") > 0) | (pl.col("pnl") != 0.0))
    holdings = _last_holdings(fills, closes, equity)
    return {
        "named": portfolio.named(),
        "delisted": delisted,
        "holdings": holdings,
        "held": percent(sum(abs(row["value"]) for row in holdings) / equity, 1) if equity else "",
        "attribution": _attribution(touched, delisted),
        "untouched": len(portfolio.attribution) - len(touched),
        "totals": _totals(portfolio.attribution),
        "shorted": bool((portfolio.attribution["short_pnl"] != 0.0).any()),
        "funded": bool((portfolio.attribution["funding"] != 0.0).any()),
        "turnover": percent(measured.get("mean_turnover"), 1),
    }


def _last_holdings(fills: pl.DataFrame, closes: Mapping[str, float], equity: float) -> list[dict[str, Any]]:
    """Build the positions at the end of the run, valued at the last closes; the largest first."""
    held = fills.group_by("symbol").agg(pl.col("quantity").sum(), pl.col("quantity").abs().max().alias("largest"))
    # Quantities are sums of lots: the rest of a closed position is a rounding error.
    held = held.filter(pl.col("quantity").abs() > 1e-9 * pl.col("largest"))
    rows = [
        {
            "symbol": symbol,
            "side": "long" if quantity > 0 else "short",
            "value": quantity * closes[symbol],
            "share": quantity * closes[symbol] / equity if equity else 0.0,
            "cells": [plain(quantity), plain(closes[symbol]), amount(quantity * closes[symbol])],
        }
        for symbol, quantity in held.select("symbol", "quantity").iter_rows()
        if symbol in closes
    ]
    widest = max((abs(row["share"]) for row in rows), default=0.0) or 1.0
    for row in rows:
        row |= {"width": round(100 * abs(row["share"]) / widest, 1), "share": percent(row["share"], 1)}
    return sorted(rows, key=lambda row: (-row["value"], row["symbol"]))


def _attribution(frame: pl.DataFrame, delisted: Sequence[str]) -> list[dict[str, Any]]:
    """Build one row per symbol, the most profitable first; bars on both sides of zero, in % of the full width."""
    pnl = frame["pnl"].to_numpy()
    low, high = min(0.0, float(pnl.min(initial=0.0))), max(0.0, float(pnl.max(initial=0.0)))
    span = high - low or 1.0
    return [
        {
            "symbol": row["symbol"],
            "delisted": row["symbol"] in delisted,
            "sign": sign_class(row["pnl"]),
            "left": round(100 * (min(0.0, row["pnl"]) - low) / span, 2),
            "width": round(100 * abs(row["pnl"]) / span, 2),
            "zero": round(-100 * low / span, 2),
            **_measures(row),
            "share_of_time": percent(row["share_of_time"], 0),
        }
        for row in frame.sort("pnl", "symbol", descending=[True, False]).iter_rows(named=True)
    ]


def _totals(frame: pl.DataFrame) -> dict[str, Any]:
    sums = frame.select(pl.col(pl.Float64, pl.Int64).sum()).row(0, named=True)
    return _measures(sums)


def _measures(row: Mapping[str, Any]) -> dict[str, Any]:
    money = ("pnl", "long_pnl", "short_pnl", "fees", "slippage", "funding")
    return {
        **{name: amount(row[name]) for name in money},
        "trades": count(int(row["trades"])),
        "turnover": ratio(row["turnover"]),
    }


def _milliseconds(frame: pl.DataFrame) -> np.ndarray:
    times: np.ndarray = frame["time"].to_physical().to_numpy() // 1000
    return times


def _last_of(first: np.ndarray, count: int) -> np.ndarray:
    """Return the last row of every bucket, from the first row of each."""
    return np.append(first[1:], count) - 1 if count else np.zeros(0, np.int64)


def _finite_floats(values: pl.Series) -> np.ndarray:
    # Fractions of an equity of zero are not finite.
    numbers: np.ndarray = np.nan_to_num(to_floats(values), posinf=0.0, neginf=0.0)
    return numbers
