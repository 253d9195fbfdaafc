"""Example steps for the tests of records: fixed ones, and hypothesis strategies for any others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import strategies as st

from agent_bt.core.clock import MINUTE, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.step import Step
from agent_bt.core.types import (
    DaySummary,
    Decision,
    Fill,
    ModelCall,
    Order,
    Portfolio,
    Position,
    Provenance,
    Reply,
    Request,
    RiskCut,
    Usage,
)
from agent_bt.core.view import BAR_COLUMNS, MarketView
from agent_bt.records import run_folder
from agent_bt.records.journal import JournalWriter
from agent_bt.records.run_folder import RunFolder, Status
from agent_bt.records.summary import BASELINES, PERFORMANCE_KEYS, build_summary
from agent_bt.records.tables import equity_frame

START = time_us("2024-07-01")
FEATURES = ("ema_fast", "ema_slow", "rsi", "cmf", "macd", "macd_signal", "macd_histogram", "atr")


def make_view(index: int, rows: int = 5, features: tuple[str, ...] = ("rsi",), seed: int = 0) -> MarketView:
    columns = (*BAR_COLUMNS, *features)
    now = START + (index + 1) * 60 * MINUTE
    rng = np.random.default_rng([seed, index])
    data = rng.normal(60_000, 100, (rows, 1, len(columns)))
    times = np.arange(now - (rows - 1) * MINUTE, now + 1, MINUTE)
    days = (
        DaySummary(start=START, open=1.0, high=2.0, low=0.5, close=1.5, volume=10.0, taker_share=0.5, filled_share=0.0),
    )
    return MarketView(
        now=now, interval=MINUTE, symbols=("BTCUSDT",), columns=columns, times=times, data=data, summary=days
    )


def make_fill(index: int, quantity: float = 0.1) -> Fill:
    return Fill(
        time=START + (index + 1) * 60 * MINUTE,
        bar=60 * index + 59,
        symbol="BTCUSDT",
        quantity=quantity,
        price=60_030.0,
        reference_price=60_000.0,
        fee=6.003,
        slippage=3.0,
        realised_pnl=0.0,
        reason="order",
    )


def make_step(
    index: int,
    *,
    text: str | None = '{"action":"BUY","size_pct":0.5}',
    action: str = "BUY",
    kind: str = "model",
    prompt: str = "What now?",
    rows: int = 5,
    features: tuple[str, ...] = ("rsi",),
    reply: Reply | None = None,
) -> Step:
    """Make a decision of an agent: one request, one reply."""
    view = make_view(index, rows, features)
    sent = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{prompt} {index}"}]
    request = Request(provider="p", endpoint_id="e", body={"model": "m", "messages": sent})
    reply = reply or Reply(
        text=text,
        finish_reason="stop",
        body='{"choices":[]}',
        usage=Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=5, reasoning_tokens=2),
        cost_usd=0.001,
        latency_ms=200.0,
    )
    bought = action == "BUY"
    decision = Decision(
        trades={"BTCUSDT": 0.5} if bought else None,
        action=action,  # type: ignore[arg-type]
        size=0.5 if bought else None,
        note="up",
        provenance=Provenance(kind=kind, reason="" if kind == "model" else "not_json"),  # type: ignore[arg-type]
        calls=(ModelCall(request=request, reply=reply),),
    )
    return Step(
        index=index,
        bar=60 * index + 59,
        view=view,
        portfolio=Portfolio(cash=10_000.0, positions={}, peak_equity=10_000.0),
        decision=decision,
        orders=(Order(symbol="BTCUSDT", lots=8000, quantity=0.08),) if bought else (),
        cuts=(),
        fills=(make_fill(index),) if bought else (),
    )


def rule_step(index: int) -> Step:
    """Make a decision of a rule: no model call."""
    return Step(
        index=index,
        bar=index,
        view=make_view(index),
        portfolio=Portfolio(cash=1.0, positions={"BTCUSDT": Position(quantity=0.1, average_price=6e4, opened=START)}),
        decision=Decision.to({"BTCUSDT": 1.0}),
        orders=(Order(symbol="BTCUSDT", lots=-5, quantity=-0.00005),),
        cuts=(RiskCut(symbol="BTCUSDT", verdict="clipped", reason="max_position"),),
        fills=(),
    )


def make_bars(count: int) -> pl.DataFrame:
    open_time = START + MINUTE * np.arange(count)
    price = 60_000.0 + np.arange(count)
    columns = {
        "open_time": open_time,
        "close_time": open_time + MINUTE,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), price),
        "quote_asset_volume": price,
        "trades": np.arange(count),
        "taker_base": price,
        "taker_quote": price,
        "filled": np.zeros(count, bool),
    }
    return pl.DataFrame(columns).cast(BAR_SCHEMA)


def make_run(
    root: Path, given: Sequence[Step], *, name: str = "trader", status: Status = "done", bars: int = 180
) -> RunFolder:
    """Make a complete run folder, written as a run writes it."""
    folder = run_folder.create(
        root, name, config_text="name: trader\n", identity={"seed": 7}, prompt={"name": "trader/v1", "hash": "0" * 64}
    )
    with JournalWriter(folder.journal, prompt="trader/v1") as journal:
        for step in given:
            journal.append(step)
    market = make_bars(bars)
    price = market["close"].to_numpy()
    curve = equity_frame(
        time=market["close_time"].to_physical().to_numpy(),
        equity=10_000.0 + np.sin(np.arange(bars)),
        exposure=np.linspace(0.0, 1.0, bars),
        price=price,
        initial_cash=10_000.0,
    )
    fills = [fill for step in given for fill in step.fills]
    hashes = folder.write_tables(journal=journal, fills=fills, equity=curve, market=market)
    measures = {**dict.fromkeys(PERFORMANCE_KEYS), "final_equity": 10_010.0, "total_return": 0.001, "trades": 3}
    summary = build_summary(
        run_id=folder.run_id,
        status=status,
        about={"name": name, "strategy": "agent", "model": "scripted/fixed", "symbol": "BTCUSDT"},
        bars=bars,
        tally=journal.tally,
        skipped=1,
        performance=measures,
        baselines=dict.fromkeys(BASELINES, measures),
        hashes={"config": folder.read_manifest()["hashes"]["config"], "prompt": "0" * 64, **hashes},
        timing={"seconds": 1.5},
        conventions=["Sharpe: daily."],
        banners=["SAMPLE MARKET"],
    )
    folder.finish(summary=summary, telemetry=journal.telemetry_head, finished="2024-07-02T00:00:00Z")
    return folder


numbers = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(-1e15, 1e15)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.just('",\\"telemetry":{\x00\n\u2028😀')
)
maybe_text = st.one_of(st.none(), texts)
instants = st.integers(0, 4_102_444_800_000_000)
counts = st.integers(0, 2**40)

replies = st.builds(
    Reply,
    text=maybe_text,
    finish_reason=maybe_text,
    refusal=maybe_text,
    failure=st.sampled_from([None, "timeout"]),
    error=maybe_text,
    body=texts,
    usage=st.one_of(
        st.none(),
        st.builds(Usage, prompt_tokens=counts, completion_tokens=counts, cached_tokens=counts, reasoning_tokens=counts),
    ),
    cost_usd=st.one_of(st.none(), st.floats(0, 100)),
    latency_ms=st.floats(0, 1e6),
    attempts=st.integers(1, 9),
    cached=st.booleans(),
    speculated=st.booleans(),
)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=3)
calls = st.builds(
    ModelCall,
    request=st.builds(Request, provider=texts, endpoint_id=texts, body=st.fixed_dictionaries({"messages": messages})),
    reply=replies,
)
weights = st.dictionaries(texts, finite, max_size=3)
actions = st.one_of(
    st.fixed_dictionaries({"action": st.sampled_from(["BUY", "SELL", "HOLD", "TARGETS"])}),
    st.fixed_dictionaries({"action": st.just("TARGETS"), "targets": weights}),
    st.fixed_dictionaries({"action": st.sampled_from(["BUY", "SELL"]), "trades": weights}),
)
decisions = st.builds(
    lambda acted, **parts: Decision(**acted, **parts),
    acted=actions,
    sizing=st.sampled_from(["available", "equity"]),
    size=st.one_of(st.none(), st.floats(0, 1), st.integers(0, 1)),
    note=texts,
    provenance=st.builds(
        Provenance, kind=st.sampled_from(["model", "invalid", "transport", "budget"]), reason=texts, repaired=texts
    ),
    detail=texts,
    calls=st.lists(calls, max_size=3).map(tuple),
)
fills = st.builds(
    Fill,
    time=instants,
    bar=counts,
    symbol=texts,
    quantity=finite,
    price=finite,
    reference_price=finite,
    fee=finite,
    slippage=finite,
    realised_pnl=finite,
    reason=texts,
)
days = st.builds(
    DaySummary,
    start=instants,
    open=numbers,
    high=numbers,
    low=numbers,
    close=numbers,
    volume=numbers,
    taker_share=numbers,
    filled_share=numbers,
)


@st.composite
def views(draw: st.DrawFn) -> MarketView:
    columns = (*BAR_COLUMNS, "rsi")
    rows = draw(st.integers(1, 4))
    values = draw(st.lists(numbers, min_size=rows * len(columns), max_size=rows * len(columns)))
    data = np.array(values).reshape(rows, 1, len(columns))
    data[-1, 0, 3] = draw(finite)
    now = draw(st.integers(START, START + 10**12))
    times = np.arange(now - (rows - 1) * MINUTE, now + 1, MINUTE)
    summary = tuple(draw(st.lists(days, max_size=2)))
    return MarketView(
        now=now, interval=MINUTE, symbols=("A",), columns=columns, times=times, data=data, summary=summary
    )


positions = st.builds(Position, quantity=finite, average_price=finite, opened=instants)
steps = st.builds(
    Step,
    index=counts,
    bar=counts,
    view=views(),
    portfolio=st.builds(
        Portfolio, cash=finite, positions=st.one_of(st.just({}), positions.map(lambda held: {"A": held}))
    ),
    decision=decisions,
    orders=st.lists(st.builds(Order, symbol=texts, lots=counts, quantity=finite), max_size=2).map(tuple),
    cuts=st.lists(
        st.builds(RiskCut, symbol=texts, verdict=st.sampled_from(["clipped", "rejected"]), reason=texts), max_size=2
    ).map(tuple),
    fills=st.lists(fills, max_size=2).map(tuple),
)
