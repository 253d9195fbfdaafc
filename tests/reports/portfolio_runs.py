"""Synthetic run folders over several symbols: long and short, a late listing, a delisting, cuts, failed replies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.clock import HOUR, iso, time_us
from agent_bt.core.schema import BAR_SCHEMA, TIME
from agent_bt.core.types import Fill
from agent_bt.evaluation.performance import CONVENTIONS, performance
from agent_bt.records.decision_record import fill_to_row
from agent_bt.records.files import write_whole
from agent_bt.records.run_folder import RunFolder, write_json
from agent_bt.records.schema import decision_schema, json_schema
from agent_bt.records.summary import build_summary
from agent_bt.records.tables import equity_frame, fills_frame
from agent_bt.records.tally import Tally

START = time_us("2024-01-01")
CASH = 100_000.0
FEE = 0.001
WARMUP = 24
BASES = ("BTC", "ETH", "SOL", "DOGE", "PEPE", "XRP", "ADA", "LINK", "AVAX", "DOT", "TRX", "LTC", "BCH", "UNI", "NEAR")
CONFIG = """\
name: many
mode: cross_sectional
market: {kind: um, symbols: null, interval: 1h, source: panel.parquet, start: 2024-01-02}
strategy: {kind: momentum, every: 1h}
rebalance: D
account: {cash: 100000.0}
"""


def make_symbols(count: int) -> list[str]:
    """Return `count` symbols, ascending."""
    return sorted([f"{base}USDT" for base in BASES[:count]] + [f"X{at:03d}USDT" for at in range(count - len(BASES))])


def make_portfolio_run(
    root: Path, *, symbols: int = 12, bars: int = 480, every: int = 24, uses_model: bool = False, seed: int = 1
) -> Path:
    """Write a finished run that rebalances each `every` hourly bars; return its folder."""
    folder = RunFolder(root / f"20240101T000000Z-many-{symbols:03x}{bars:04x}")
    folder.path.mkdir(parents=True)
    account = _Account(np.random.default_rng(seed), make_symbols(symbols), bars, every, uses_model)
    equity = equity_frame(
        time=account.times[WARMUP:],
        equity=account.equity[WARMUP:],
        exposure=account.worth[WARMUP:].sum(axis=1) / account.equity[WARMUP:],
        price=account.close[WARMUP:, 0],
        initial_cash=CASH,
    )
    write_whole(folder.config, CONFIG.encode())
    schema = decision_schema(())
    pl.DataFrame(account.records, schema=json_schema(schema)).cast(schema).write_parquet(folder.decisions)  # type: ignore[arg-type]
    fills_frame(account.fills).write_parquet(folder.fills)
    equity.write_parquet(folder.equity)
    account.market().write_parquet(folder.market)
    for name, frame in account.tables().items():
        frame.write_parquet(folder.path / f"{name}.parquet")
    curve = dict.fromkeys(("buy_and_hold", "random", "sma"), equity["equity"])
    pl.DataFrame({"time": equity["time"], **curve}).write_parquet(folder.path / "baselines.parquet")
    summary = _summary(folder, account, equity, uses_model)
    write_json(folder.summary, summary)
    manifest = {
        "version": 1, "run_id": folder.run_id, "name": "many", "status": "done", "started": "2024-10-01T00:00:00Z",
        "finished": "2024-10-01T00:00:12Z", "identity": {"limit": None}, "hashes": summary["hashes"], "prompt": None,
        "llm": None, "code": "f" * 64, "packages": {"agent-bt": "0.1.0"}, "python": "3.11.9", "platform": "Linux",
    }  # fmt: skip
    write_json(folder.manifest, manifest)
    return folder.path


class _Account:
    """A simulated account; every fill is at the close, without slippage."""

    def __init__(self, rng: np.random.Generator, symbols: list[str], bars: int, every: int, uses_model: bool) -> None:
        self.rng, self.symbols, self.every, self.uses_model = rng, symbols, every, uses_model
        count = len(symbols)
        scale = 10.0 ** rng.integers(-5, 5, count)
        path = np.exp(np.cumsum(rng.normal(0, 0.006, (bars, count)), axis=0))
        self.close = np.array([[float(f"{value:.6g}") for value in row] for row in path * scale])
        self.times = START + (np.arange(bars, dtype=np.int64) + 1) * HOUR
        self.listed = np.zeros(count, np.int64)
        self.ends = np.full(count, bars + 1)
        self.listed[1], self.ends[2] = bars // 3, bars * 3 // 4
        self.quantity, self.average = np.zeros(count), np.zeros(count)
        self.cash = CASH
        self.paid, self.long_pnl, self.short_pnl = np.zeros(count), np.zeros(count), np.zeros(count)
        self.traded, self.trades, self.held = np.zeros(count), np.zeros(count, np.int64), np.zeros(count)
        self.equity, self.worth = np.full(bars, CASH), np.zeros((bars, count))
        self.legs = np.zeros((bars, 3))
        self.fills: list[Fill] = []
        self.records: list[dict[str, Any]] = []
        self.snapshots: list[dict[str, Any]] = []
        self.rebalances: list[dict[str, Any]] = []
        self.tally = Tally()
        for bar in range(WARMUP, bars):
            self._advance(bar)

    def _advance(self, bar: int) -> None:
        if bar > WARMUP:
            change = np.where(self.quantity != 0, self.quantity * (self.close[bar] - self.close[bar - 1]), 0.0)
            self.long_pnl += np.where(self.quantity > 0, change, 0.0)
            self.short_pnl += np.where(self.quantity < 0, change, 0.0)
            self.held += self.quantity != 0
        for at in np.flatnonzero((self.ends == bar + 1) & (self.quantity != 0)):
            self._fill(bar, int(at), -self.quantity[at], "delisted")
        if (bar - WARMUP) % self.every == self.every - 1:
            self._decide(bar)
        self.worth[bar] = self.quantity * self.close[bar]
        self.equity[bar] = self.cash + self.worth[bar].sum()
        self.legs[bar] = self.long_pnl.sum(), self.short_pnl.sum(), self.paid.sum()

    def _decide(self, bar: int) -> None:
        index, time = len(self.records), int(self.times[bar])
        eligible = np.flatnonzero((self.listed <= bar) & (self.ends > bar + 1))
        side = min(len(eligible) // 2, max(1, len(self.symbols) // 3))
        chosen = self.rng.permutation(eligible)
        weights = dict.fromkeys(eligible.tolist(), 0.0)
        weights |= dict.fromkeys(chosen[:side].tolist(), 0.5 / side)
        weights |= dict.fromkeys(chosen[side : 2 * side].tolist(), -0.5 / side)
        failed = self.uses_model and index % 7 == 3
        before = self.cash + float((self.quantity * self.close[bar]).sum())
        positions = [
            {"symbol": self.symbols[at], "quantity": self.quantity[at], "average_price": self.average[at],
             "opened": time - HOUR} for at in np.flatnonzero(self.quantity)
        ]  # fmt: skip
        cut = int(chosen[0]) if index % 5 == 2 else None
        fills = []
        for at, share in sorted(weights.items()) if not failed else ():
            wanted = share * before / self.close[bar, at] * (0.5 if at == cut else 1.0)
            if abs(wanted - self.quantity[at]) * self.close[bar, at] > 1.0:
                fills.append(self._fill(bar, at, wanted - self.quantity[at], "order"))
        record = self._record(index, bar, weights, cut, fills, before, positions, failed)
        self.records.append(record)
        self.tally.add(record, record["telemetry"])
        after = self.quantity * self.close[bar]
        equity = self.cash + after.sum()
        for at in np.flatnonzero(self.quantity):
            self.snapshots.append(
                {"time": time, "bar": bar, "symbol": self.symbols[at], "quantity": self.quantity[at],
                 "price": self.close[bar, at], "value": after[at], "share": after[at] / equity}
            )  # fmt: skip
        long, short = after[after > 0].sum() / equity, after[after < 0].sum() / equity
        self.rebalances.append(
            {"time": time, "bar": bar, "equity": equity,
             "turnover": sum(abs(fill.quantity * fill.price) for fill in fills) / 2 / equity,
             "gross": long - short, "net": long + short, "long": long, "short": short,
             "positions": int((after != 0).sum()), "fees": sum(fill.fee for fill in fills)}
        )  # fmt: skip

    def _fill(self, bar: int, at: int, quantity: float, reason: str) -> Fill:
        price, quantity = float(self.close[bar, at]), float(quantity)
        fee = abs(quantity) * price * FEE
        closed = min(abs(quantity), abs(self.quantity[at])) if quantity * self.quantity[at] < 0 else 0.0
        realised = closed * (price - self.average[at]) * np.sign(self.quantity[at])
        fill = Fill(
            time=int(self.times[bar]), bar=bar, symbol=self.symbols[at], quantity=quantity, price=price,
            reference_price=price, fee=fee, slippage=0.0, realised_pnl=float(realised), reason=reason,
        )  # fmt: skip
        after = self.quantity[at] + quantity
        if closed == 0.0:
            self.average[at] = (self.quantity[at] * self.average[at] + quantity * price) / after
        elif after * self.quantity[at] < 0:
            self.average[at] = price
        self.quantity[at] = 0.0 if abs(after) < 1e-12 * abs(quantity) else after
        self.cash -= quantity * price + fee
        self.paid[at] += fee
        self.traded[at] += abs(quantity) * price
        self.trades[at] += closed > 0
        self.fills.append(fill)
        return fill

    def _record(
        self, index: int, bar: int, weights: dict[int, float], cut: int | None, fills: list[Fill], equity: float,
        positions: list[dict[str, Any]], failed: bool,
    ) -> dict[str, Any]:  # fmt: skip
        call = {
            "latency_ms": 900.0, "attempts": 1, "cached": False, "speculated": False, "cost_usd": 0.001,
            "prompt_tokens": 900, "completion_tokens": 80, "cached_tokens": 0, "reasoning_tokens": 0,
        }  # fmt: skip
        call |= {"error": None, "body": "{}"}
        if not self.uses_model:
            call = dict.fromkeys(call)
        return {
            "index": index, "time": int(self.times[bar]), "bar": bar, "symbol": self.symbols[0], "prompt": None,
            "request": f"{index:064x}" if self.uses_model else None,
            "messages": [{"role": "user", "content": f"rank {index}"}] if self.uses_model else [],
            "reply": "not what was requested" if failed else "{}" if self.uses_model else None, "finish_reason": None,
            "refusal": None, "failure": None, "others": [],
            "action": "HOLD" if failed else "TARGETS", "size": None, "sizing": "available", "note": f"note {index}",
            "provenance": "invalid" if failed else "model", "reason": "not_json" if failed else "", "repaired": "",
            "targets": None if failed
            else [{"symbol": self.symbols[at], "share": share} for at, share in sorted(weights.items())],
            "trades": None, "on_change": False, "risk": "none" if cut is None or failed else "clipped",
            "risk_cuts": [] if cut is None or failed
            else [{"symbol": self.symbols[cut], "verdict": "clipped", "reason": "max_position"}],
            "orders": [{"symbol": f.symbol, "lots": round(np.sign(f.quantity)), "quantity": f.quantity} for f in fills],
            "fills": [fill_to_row(fill) for fill in fills],
            "account": {"cash": self.cash, "equity": equity, "realised_pnl": 0.0, "unrealised_pnl": 0.0,
                        "fees": float(self.paid.sum()), "funding": 0.0, "peak_equity": equity},
            "positions": positions,
            "prices": [{"symbol": self.symbols[at], "price": float(self.close[bar, at])} for at in sorted(weights)],
            "summary": [], "telemetry": {"wall_time": START + index, "detail": "", **call, "others": []},
        }  # fmt: skip

    def market(self) -> pl.DataFrame:
        """Build `market.parquet` of a run over several symbols, with a leading symbol column."""
        frames = []
        for at, symbol in enumerate(self.symbols):
            listed = slice(int(self.listed[at]), int(self.ends[at]))
            close = self.close[listed, at]
            opens = np.concatenate([close[:1], close[:-1]])
            volume = np.round(self.rng.lognormal(3, 1, len(close)), 2)
            frame = pl.DataFrame(
                {
                    "open_time": self.times[listed] - HOUR, "close_time": self.times[listed], "open": opens,
                    "high": np.maximum(opens, close), "low": np.minimum(opens, close), "close": close,
                    "volume": volume, "quote_asset_volume": volume * close, "trades": np.ones(len(close), int),
                    "taker_base": volume / 2, "taker_quote": volume, "filled": np.zeros(len(close), bool),
                }
            ).cast(BAR_SCHEMA)  # fmt: skip
            frames.append(frame.select(pl.lit(symbol).alias("symbol"), pl.all(), pl.lit(0.0).alias("funding_rate")))
        return pl.concat(frames)

    def tables(self) -> dict[str, pl.DataFrame]:
        """Build the additional tables of a run over several symbols."""
        curve = slice(WARMUP, None)
        weights = self.worth[curve] / self.equity[curve, None]
        long, short = np.maximum(weights, 0).sum(axis=1), np.minimum(weights, 0).sum(axis=1)
        legs = {
            "time": self.times[curve], "long_pnl": self.legs[curve, 0], "short_pnl": self.legs[curve, 1],
            "fees": self.legs[curve, 2], "funding": np.zeros(len(long)), "gross": long - short, "long": long,
            "short": short,
        }  # fmt: skip
        attribution = {
            "symbol": self.symbols, "pnl": self.long_pnl + self.short_pnl - self.paid, "long_pnl": self.long_pnl,
            "short_pnl": self.short_pnl, "fees": self.paid, "funding": np.zeros(len(self.symbols)),
            "slippage": np.zeros(len(self.symbols)), "trades": self.trades, "turnover": self.traded / CASH / 2,
            "share_of_time": self.held / len(long),
        }  # fmt: skip
        tables = {"snapshots": self.snapshots, "rebalances": self.rebalances, "legs": legs}
        timed = {name: pl.DataFrame(rows).with_columns(pl.col("time").cast(TIME)) for name, rows in tables.items()}
        return {**timed, "attribution": pl.DataFrame(attribution)}

    def delisted(self) -> list[str]:
        """Return the symbols that are delisted before the end."""
        return [symbol for symbol, end in zip(self.symbols, self.ends, strict=True) if end <= len(self.times)]


def _summary(folder: RunFolder, account: _Account, equity: pl.DataFrame, uses_model: bool) -> dict[str, Any]:
    times = equity["time"].to_physical().to_numpy()
    measures = asdict(
        performance(
            times=times, equity=equity["equity"].to_numpy(), exposure=equity["exposure"].to_numpy(),
            fills=account.fills, initial_cash=CASH, start=int(times[0]) - HOUR,
        )
    )  # fmt: skip
    about = {
        "name": "many", "strategy": "momentum", "model": "scripted" if uses_model else None, "kind": "um",
        "mode": "cross_sectional", "symbol": f"{len(account.symbols)} symbols", "interval": "1h", "every": None,
        "symbols": {"count": len(account.symbols), "names": account.symbols}, "rebalance": "D", "pool": None,
        "start": "2024-01-02", "end": iso(int(times[-1]))[:10], "initial_cash": CASH,
    }  # fmt: skip
    names = ("config", "data", "prompt", "decisions", "fills", "equity")
    summary = build_summary(
        run_id=folder.run_id, status="done", about=about, bars=len(times), tally=account.tally, skipped=0,
        performance=measures, baselines={"buy_and_hold": measures, "random": measures, "sma": None},
        hashes={name: f"{at}" * 64 for at, name in enumerate(names)}, random_beaten=None, conventions=CONVENTIONS,
        banners=[], warnings=[], timing={"started": "2024-10-01T00:00:00Z", "finished": "2024-10-01T00:00:12Z"},
    )  # fmt: skip
    rebalances = pl.DataFrame(account.rebalances)
    mean = rebalances.select(pl.col("positions", "gross", "net", "turnover").mean()).row(0, named=True)
    summary["decisions"]["silent"] = 0
    summary["portfolio"] = {
        "symbols": len(account.symbols), "mean_positions": mean["positions"], "mean_gross": mean["gross"],
        "mean_net": mean["net"], "max_gross": float(rebalances["gross"].max()), "mean_turnover": mean["turnover"],  # type: ignore[arg-type]
        "rebalances": len(rebalances), "long_pnl": float(account.long_pnl.sum()),
        "short_pnl": float(account.short_pnl.sum()), "best": [], "worst": [], "delisted": account.delisted(),
    }  # fmt: skip
    summary["sensitivity"] = []
    return summary
