"""The same target shares through this engine and through vectorbt, on real prices: how far the equity curves part.

Equal conventions: orders at the closes, sized on the equity at them, fees on the notional, slippage on the price,
lots so small that they do not matter, cash that never falls below zero.

    python -m benchmarks.peers.second_engine                 needs AGENT_BT_MARKET_DATA or ../shared/market
    python -m benchmarks.peers.second_engine --no-install    ends with 77 where the peers are not installed
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from agent_bt.core.clock import HOUR, MINUTE
from benchmarks import ours
from benchmarks.peers import environment
from benchmarks.peers.call import call

WITHIN = 1e-6
SKIPPED = 77
MONTHS = ("2024-07", "2024-08", "2024-09")
CASH = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Target shares `sizes` (T, N), NaN where nothing is ordered, of `close` (T, N), NaN where there is no bar."""

    name: str
    close: np.ndarray
    sizes: np.ndarray
    interval: int
    lot_step: float
    slippage_bps: float = 0.0
    fee_rate: float = 0.001
    short: bool = False


def compare(case: Case) -> dict[str, float | int | str]:
    """The largest relative difference of the two equity curves, with what shows that something was compared."""
    market = ours.market_of({"close": case.close}, interval=case.interval)
    rows = np.flatnonzero(~np.isnan(case.sizes).all(axis=1))
    terms = {"cash": CASH, "fee_rate": case.fee_rate, "slippage_bps": case.slippage_bps}
    equity = ours.equity_of(market, rows, case.sizes[rows], short=case.short, lot_step=case.lot_step, **terms)
    sizes = case.sizes.copy()
    # What this engine does by itself when a symbol vanishes: its holding is closed at its last trade.
    gone = np.flatnonzero(market.ends < len(market))
    sizes[market.ends[gone], gone] = 0.0
    answer = call("orders_vectorbt.py", close=market.close, sizes=sizes, **terms)
    theirs = answer.arrays["equity"]
    return {
        "case": case.name, "bars": len(market), "symbols": len(market.symbols), "vanished": len(gone),
        "orders": len(answer.arrays["orders"]), "final": float(equity[-1]),
        "apart": float(np.max(np.abs(equity / theirs - 1.0))),
    }  # fmt: skip


def cases(data: Path) -> Iterator[Case]:
    """One symbol over three months of minutes, and thirty over eight months of hours."""
    close = _months(data / "archive")
    cross = _cross(close, 60, 240)
    generator = np.random.default_rng(11)
    shares = np.full(len(close), np.nan)
    shares[59::60] = np.round(generator.uniform(0.0, 1.0, len(shares[59::60])), 2)
    sides = np.where(np.isnan(shares), np.nan, np.round(1.6 * shares - 0.8, 2))
    for name, sizes, changes in (
        ("moving-average cross, all in, fees", cross, {}),
        ("the same, fees and slippage", cross, {"slippage_bps": 5.0}),
        ("a random share every hour, fees and slippage", shares, {"slippage_bps": 2.0, "fee_rate": 0.0004}),
        ("a random share every hour, long and short", sides, {"slippage_bps": 2.0, "fee_rate": 0.0004, "short": True}),
    ):
        yield Case(
            name=name, close=close[:, None], sizes=sizes[:, None], interval=MINUTE, lot_step=1e-8,
            **changes,  # type: ignore[arg-type]
        )  # fmt: skip
    panel = _panel(data / "panel")
    shortened = panel.copy()
    for symbol, row in ((3, 2000), (17, 3500), (25, 3501)):
        shortened[row:, symbol] = np.nan
    for name, close, count, share, short in (
        ("ten of thirty, weekly", panel, 10, 0.09, False),
        ("five long, five short, weekly", panel, 5, 0.08, True),
        ("five long, five short, three symbols vanish", shortened, 5, 0.08, True),
    ):
        yield Case(
            name=f"{name}, fees and slippage", close=close, sizes=_ranked(close, 168, count, share, short),
            interval=HOUR, lot_step=1e-6, slippage_bps=5.0, short=short,
        )  # fmt: skip


def _cross(close: np.ndarray, fast: int, slow: int) -> np.ndarray:
    """1 where the fast mean rises above the slow one, 0 where it falls below, NaN elsewhere."""
    means = [np.full(len(close), np.nan) for _ in range(2)]
    for mean, window in zip(means, (fast, slow), strict=True):
        mean[window - 1 :] = np.lib.stride_tricks.sliding_window_view(close, window).mean(axis=1)
    above = (means[0] > means[1]).astype(float)
    return np.where(np.diff(above, prepend=0.0) != 0.0, above, np.nan)


def _ranked(close: np.ndarray, every: int, count: int, share: float, short: bool) -> np.ndarray:
    """Each week the `count` best by their return over it, and, with `short`, as many of the worst the other way."""
    sizes = np.full(close.shape, np.nan)
    for row in range(2 * every - 1, len(close), every):
        returns = close[row] / close[row - every] - 1.0
        known = np.flatnonzero(~np.isnan(returns))
        order = known[np.argsort(returns[known], kind="stable")]
        sizes[row, ~np.isnan(close[row])] = 0.0
        sizes[row, order[-count:]] = share
        if short:
            sizes[row, order[:count]] = -share
    return sizes


def _months(archive: Path) -> np.ndarray:
    parts = []
    for month in MONTHS:
        name = f"BTCUSDT-1m-{month}"
        with zipfile.ZipFile(archive / f"data/spot/monthly/klines/BTCUSDT/1m/{name}.zip") as container:
            parts.append(pl.read_csv(container.read(f"{name}.csv"), has_header=False, columns=[4]).to_series())
    return pl.concat(parts).cast(pl.Float64).to_numpy()


def _panel(folder: Path) -> np.ndarray:
    table = pl.read_parquet(next(iter(sorted(folder.glob("spot_*_1h_*.parquet")))))
    wide = table.sort("open_time").pivot("symbol", index="open_time", values="close", sort_columns=True)
    return wide.drop("open_time").cast(pl.Float64).fill_null(np.nan).to_numpy()


def main() -> int:
    """Print one line of JSON per case; the exit code is 1 if one is not within the bound."""
    default = Path(__file__).parents[3] / "shared" / "market"
    data = Path(os.environ.get("AGENT_BT_MARKET_DATA", default))
    try:
        environment.find() if "--no-install" in sys.argv else environment.ensure()
    except environment.PeersMissing as error:
        print(error, file=sys.stderr)
        return SKIPPED
    found = []
    for case in cases(data):
        found.append(compare(case))
        print(json.dumps(found[-1]), flush=True)
    return int(any(not one["apart"] < WITHIN for one in found))  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
