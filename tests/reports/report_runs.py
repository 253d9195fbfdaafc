"""Synthetic run folders for the tests and benchmarks of the report: any number of decisions, some of nasty text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.clock import HOUR, MINUTE, iso, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import Fill
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.evaluation.performance import CONVENTIONS, performance
from agent_bt.records.decision_record import fill_to_row
from agent_bt.records.files import write_whole
from agent_bt.records.run_folder import RunFolder, write_json
from agent_bt.records.schema import decision_schema, json_schema
from agent_bt.records.summary import build_summary
from agent_bt.records.tables import equity_frame, fills_frame
from agent_bt.records.tally import Tally

START = time_us("2024-07-01")
CASH = 10_000.0
FEATURES = ("cmf", "ema_fast", "ema_slow", "rsi")
WINDOW = 60
FEE, SLIPPAGE = 0.001, 0.0005

SCRIPT = "</script><script>window.__pwned = 1</script><img src=x onerror='window.__pwned = 2'>"
NASTY = {
    1: SCRIPT,
    2: "quotes \" ' ` \\ & &amp; &lt;b&gt; <b>bold</b> {{ 7 * 7 }} ${8 * 8} <!-- --> ]]>",
    3: "市場は上昇しています。买入信号，趋势向上。매수 신호 \U0001f680 "
    "\u202eevil\u202c \u2028 \u2029 \ufeff \x00 \x1b[31m",
    4: "long " * 20_480,
}
"""Decision -> text that is its reply, its note and part of its prompt."""

CONFIG = """\
name: synthetic
market: {kind: spot, symbol: BTCUSDT, interval: 1m, source: sample, start: 2024-07-01}
strategy: {kind: agent, prompt: btcusdt_trader/v1, every: 1h, sizing: available}
llm: {provider: stand_in, model: baseline}
account: {cash: 10000.0}
execution: {fill: close, latency_bars: 0, slippage_bps: 5.0, fee_rate: 0.001}
seed: 7
"""


def make_run(root: Path, decisions: int, *, nasty: bool = True, seed: int = 1, run_id: str = "") -> Path:
    """Write a finished run of one decision per hour over minute bars; return its folder."""
    rng = np.random.default_rng(seed)
    folder = RunFolder(root / (run_id or f"20240701T000000Z-synthetic-{decisions:06x}"))
    folder.path.mkdir(parents=True)
    bars = _bars(rng, decisions * 60 + 30)
    rows = _Rows(rng, bars, decisions, nasty)
    equity = rows.equity_frame()
    write_whole(folder.config, CONFIG.encode())
    rows.decision_frame().write_parquet(folder.decisions, row_group_size=512)
    fills_frame(rows.fills).write_parquet(folder.fills)
    equity.write_parquet(folder.equity)
    bars.write_parquet(folder.market)
    _baselines(equity, rng).write_parquet(folder.path / "baselines.parquet")
    summary = _summary(folder, rows, equity)
    write_json(folder.summary, summary)
    write_json(folder.manifest, _manifest(folder, summary))
    return folder.path


def make_rule_run(root: Path, decisions: int, *, unchanged: int = 0) -> Path:
    """Write the same run as if a rule had decided by targets, with `unchanged` decisions that are not recorded."""
    run = make_run(root, decisions, nasty=False)
    share = pl.when(pl.col("action") == "BUY").then(pl.col("size")).otherwise(0.0)
    target = pl.concat_list(pl.struct(symbol="symbol", share=share))
    schema = pl.read_parquet_schema(run / "decisions.parquet")
    decided = pl.read_parquet(run / "decisions.parquet").with_columns(
        *(
            pl.lit(None).alias(name)
            for name in ("prompt", "request", "reply", "finish_reason", "failure", "trades", "size")
        ),
        messages=pl.lit([], schema["messages"]),
        telemetry=pl.lit(None),
        targets=target,
        action=pl.lit("TARGETS"),
        provenance=pl.lit("model"),
        reason=pl.lit(""),
    )
    decided = decided.with_columns(pl.col("telemetry").cast(schema["telemetry"]))
    decided.cast(dict(schema)).write_parquet(run / "decisions.parquet")  # type: ignore[arg-type]
    summary = json.loads((run / "summary.json").read_text())
    summary["about"]["model"] = None
    summary["llm"] |= {"calls": 0, "cached": 0}
    summary["decisions"] |= {"silent": unchanged}
    write_json(run / "summary.json", summary)
    manifest = json.loads((run / "manifest.json").read_text())
    write_json(run / "manifest.json", {**manifest, "prompt": None, "llm": None})
    return run


class _Rows:
    """All decisions in order: actions, account, fills, and everything a record holds."""

    def __init__(self, rng: np.random.Generator, bars: pl.DataFrame, decisions: int, nasty: bool) -> None:
        self.rng, self.bars, self.count, self.nasty = rng, bars, decisions, nasty
        self.close = bars["close"].to_numpy()
        self.at = np.arange(decisions) * 60 + 59
        self.fills: list[Fill] = []
        self.tally = Tally()
        self.records: list[dict[str, Any]] = []
        self.cash, self.quantity, self.average, self.opened = CASH, 0.0, 0.0, 0
        self.realised = self.fees = 0.0
        self.curve = np.full(len(bars), CASH)
        self.exposure = np.zeros(len(bars))
        self._simulate()

    def _simulate(self) -> None:
        numbers = self.rng.normal(0, 40, (self.count, WINDOW, 6))
        latencies = self.rng.lognormal(6, 0.4, self.count)
        draws = self.rng.random(self.count)
        marked = 0
        for index, bar in enumerate(self.at.tolist()):
            self._mark(marked, bar)
            record = self._record(index, bar, numbers[index], float(latencies[index]), float(draws[index]))
            self.records.append(record)
            self.tally.add(record, record["telemetry"])
            marked = bar
        self._mark(marked, len(self.close))

    def _mark(self, first: int, last: int) -> None:
        worth = self.quantity * self.close[first:last]
        self.curve[first:last] = self.cash + worth
        self.exposure[first:last] = worth / (self.cash + worth)

    def _record(self, index: int, bar: int, numbers: np.ndarray, latency: float, draw: float) -> dict[str, Any]:
        time, price = START + (bar + 1) * MINUTE, float(self.close[bar])
        before = self._account(price)
        held = self._positions()
        failed = "transport" if index % 211 == 17 else "invalid" if index % 97 == 11 else ""
        action = "HOLD" if failed or draw > 0.12 else "SELL" if self.quantity else "BUY"
        size = None if action == "HOLD" else 0.5 if draw < 0.03 else 1.0
        text = NASTY.get(index, "") if self.nasty else ""
        note = text[:2000] or ("" if failed else f"momentum {numbers[0, 0]:+.1f}, {action.lower()}")
        reply: str | None = json.dumps({"action": action, "size_pct": size or 0, "note": note}, ensure_ascii=False)
        if failed == "invalid" or text:
            reply = text or "I would rather wait and see."
        fills = self._fill(action, size or 0.0, time, bar, price) if action != "HOLD" else []
        table = "\n".join(",".join(f"{value:.1f}" for value in row) for row in numbers.tolist())
        user = f"Time: {iso(time)[11:16]} UTC\n\nBars\nclose,volume,ema_fast,ema_slow,rsi,cmf\n{table}\n{text}"
        return {
            "index": index, "time": time, "bar": bar, "symbol": "BTCUSDT", "prompt": "btcusdt_trader/v1",
            "request": f"{index:064x}",
            "messages": [{"role": "system", "content": "You trade BTCUSDT. " * 60}, {"role": "user", "content": user}],
            "reply": None if failed == "transport" else reply,
            "finish_reason": None if failed == "transport" else "stop", "refusal": None,
            "failure": "timeout" if failed == "transport" else None, "others": [],
            "action": action, "size": size, "sizing": "available", "note": note, "provenance": failed or "model",
            "reason": {"invalid": "not_json", "transport": "timeout", "": ""}[failed], "repaired": "",
            "targets": None,
            "trades": [{"symbol": "BTCUSDT", "share": size if action == "BUY" else -size}] if size else None,
            "risk": "none", "risk_cuts": [],
            "orders": [{"symbol": "BTCUSDT", "lots": round(f.quantity * 1e5), "quantity": f.quantity} for f in fills],
            "fills": [fill_to_row(fill) for fill in fills], "account": before, "positions": held,
            "prices": [{"symbol": "BTCUSDT", "price": price}],
            "summary": [
                {"start": START + day * 24 * HOUR, "open": price, "high": price * 1.01, "low": price * 0.99,
                 "close": price, "volume": 1234.5, "taker_share": 0.5, "filled_share": 0.0} for day in range(7)
            ],
            "telemetry": {
                "wall_time": START + index, "detail": "the reply is no JSON object" if failed == "invalid" else "",
                "latency_ms": 0.0 if failed == "transport" else latency, "attempts": 4 if failed == "transport" else 1,
                "cached": index % 3 == 0 and not failed, "speculated": index % 3 == 1 and not failed,
                "cost_usd": None if failed == "transport" else 0.00021,
                "prompt_tokens": None if failed == "transport" else 1900 + index % 50,
                "completion_tokens": None if failed == "transport" else 40 + index % 9,
                "cached_tokens": None if failed == "transport" else 1024,
                "reasoning_tokens": None if failed == "transport" else 0,
                "error": "no answer within 30 s" if failed == "transport" else None, "body": "{}", "others": [],
            },
        }  # fmt: skip

    def _account(self, price: float) -> dict[str, float]:
        worth = self.cash + self.quantity * price
        return {
            "cash": self.cash, "equity": worth, "realised_pnl": self.realised,
            "unrealised_pnl": self.quantity * (price - self.average), "fees": self.fees, "funding": 0.0,
            "peak_equity": max(CASH, worth),
        }  # fmt: skip

    def _positions(self) -> list[dict[str, Any]]:
        if not self.quantity:
            return []
        return [{"symbol": "BTCUSDT", "quantity": self.quantity, "average_price": self.average, "opened": self.opened}]

    def _fill(self, action: str, share: float, time: int, bar: int, price: float) -> list[Fill]:
        paid = price * (1 + SLIPPAGE if action == "BUY" else 1 - SLIPPAGE)
        quantity = share * self.cash / paid / (1 + FEE) if action == "BUY" else -self.quantity
        fee = abs(quantity) * paid * FEE
        realised = -quantity * (paid - self.average) if action == "SELL" else 0.0
        fill = Fill(
            time=time, bar=bar, symbol="BTCUSDT", quantity=quantity, price=paid, reference_price=price, fee=fee,
            slippage=abs(quantity) * abs(paid - price), realised_pnl=realised, reason="order",
        )  # fmt: skip
        self.cash -= quantity * paid + fee
        self.quantity, self.average = (quantity, paid) if action == "BUY" else (0.0, 0.0)
        self.opened, self.fees, self.realised = time, self.fees + fee, self.realised + realised
        self.fills.append(fill)
        return [fill]

    def equity_frame(self) -> pl.DataFrame:
        """Build the equity curve as a run does."""
        times = self.bars["close_time"].to_physical().to_numpy()
        return equity_frame(time=times, equity=self.curve, exposure=self.exposure, price=self.close, initial_cash=CASH)

    def decision_frame(self) -> pl.DataFrame:
        """Build `decisions.parquet`; the window is built column by column, which is much faster."""
        columns = (*BAR_COLUMNS, *FEATURES)
        schema = decision_schema(columns)
        plain = pl.Schema({name: kind for name, kind in json_schema(schema).items() if name != "window"})
        frame = pl.DataFrame(self.records, schema=plain)
        first = np.maximum(self.at - WINDOW + 1, 0)
        rows = first[:, None] + np.arange(WINDOW)
        values = {name: self.bars[name].cast(pl.Float64).to_numpy()[rows] for name in BAR_COLUMNS}
        values |= {name: self.rng.normal(50, 5, rows.shape) for name in FEATURES}
        values = {"close_time": START + (rows + 1) * MINUTE, **values}
        window = pl.DataFrame({name: pl.Series(array).arr.to_list() for name, array in values.items()})
        order = [field.name for field in schema["window"].fields]  # type: ignore[attr-defined]
        return (
            frame.with_columns(window.select(pl.struct(order).alias("window"))["window"])
            .select(list(schema))
            .cast(schema)
        )  # type: ignore[arg-type]


def _bars(rng: np.random.Generator, count: int) -> pl.DataFrame:
    steps = rng.normal(0, 0.0006, count) + 0.000004 * np.sin(np.arange(count) / 9000)
    close = np.round(60_000 * np.exp(np.cumsum(steps)), 2)
    opens = np.concatenate([[60_000.0], close[:-1]])
    spread = np.abs(rng.normal(0, 12, (2, count)))
    times = START + np.arange(count, dtype=np.int64) * MINUTE
    volume = np.round(rng.lognormal(2.5, 0.8, count), 5)
    return pl.DataFrame(
        {
            "open_time": times, "close_time": times + MINUTE, "open": opens,
            "high": np.round(np.maximum(opens, close) + spread[0], 2),
            "low": np.round(np.minimum(opens, close) - spread[1], 2), "close": close, "volume": volume,
            "quote_asset_volume": volume * close, "trades": np.full(count, 100), "taker_base": volume / 2,
            "taker_quote": volume * close / 2, "filled": np.zeros(count, bool),
        }
    ).cast(BAR_SCHEMA)  # fmt: skip


def _baselines(equity: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    price = equity["price"].to_numpy()
    return pl.DataFrame(
        {
            "time": equity["time"],
            "buy_and_hold": CASH * price / price[0],
            "random": CASH * np.exp(np.cumsum(rng.normal(0, 0.0002, len(price)))),
            "sma": CASH * (1 + 0.4 * (price / price[0] - 1)),
        }
    )


def _summary(folder: RunFolder, rows: _Rows, equity: pl.DataFrame) -> dict[str, Any]:
    from dataclasses import asdict

    times = equity["time"].to_physical().to_numpy()
    measures = asdict(
        performance(
            times=times, equity=rows.curve, exposure=rows.exposure, fills=rows.fills, initial_cash=CASH, start=START
        )
    )
    end = iso(int(times[-1]))
    hashes = {name: f"{at + 10:x}" * 64 for at, name in enumerate(("config", "data", "prompt", "decisions", "fills"))}
    summary = build_summary(
        run_id=folder.run_id, status="done",
        about={"name": "synthetic", "strategy": "btcusdt_trader/v1", "model": "stand_in/baseline", "symbol": "BTCUSDT",
               "interval": "1m", "every": "1h", "start": "2024-07-01", "end": end},
        bars=len(times), tally=rows.tally, skipped=2, performance=measures,
        baselines={"buy_and_hold": measures, "random": measures, "sma": None},
        hashes={name: value[:64] for name, value in hashes.items()} | {"equity": "e" * 64},
        timing={"started": "2024-10-01T00:00:00Z", "finished": "2024-10-01T00:00:12Z", "seconds": 12.3},
        random_beaten=0.62, conventions=CONVENTIONS, banners=["SAMPLE MARKET", "STAND-IN MODEL"],
        warnings=["a warning <b>in plain sight</b>"],
    )  # fmt: skip
    names = ("as_run", "next_open", "plus_1_bar", "plus_5_bars", "double_costs")
    summary["sensitivity"] = [
        {"name": name, "final_equity": measures["final_equity"] - 20 * at,
         "total_return": measures["total_return"] - 0.002 * at, "max_drawdown": -0.1, "fees": 100.0 + at}
        for at, name in enumerate(names)
    ]  # fmt: skip
    return summary


def _manifest(folder: RunFolder, summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1, "run_id": folder.run_id, "name": "synthetic", "status": "done", "started": "2024-10-01T00:00:00Z",
        "finished": "2024-10-01T00:00:12Z", "identity": {"limit": None}, "hashes": summary["hashes"],
        "prompt": {"name": "btcusdt_trader/v1", "hash": "c" * 64, "text": f"system:\nYou trade.\n{SCRIPT}\n"},
        "llm": {"requested": {"model": "baseline", "temperature": 0}, "effective": None, "prices": None},
        "code": "f" * 64, "packages": {"agent-bt": "0.1.0", "polars": "2.1.0"}, "python": "3.11.9",
        "platform": "Linux x86_64",
    }  # fmt: skip
