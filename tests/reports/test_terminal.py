"""The terminal summary: complete, warnings first, nothing truncated."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from terminal_text import plain

from agent_bt.records.summary import BASELINES, HASHES, PERFORMANCE_KEYS, Waste, build_summary
from agent_bt.records.tally import Tally
from agent_bt.reports.terminal import render


def summary(**changes: Any) -> dict[str, Any]:
    tally = Tally(total=10, calls=8, cached=2, prompt_tokens=1200, completion_tokens=80, cost_usd=0.5)
    tally.provenance.update({"model": 9, "invalid": 1})
    tally.action.update({"BUY": 3, "SELL": 2, "HOLD": 5})
    tally.reasons["invalid: not_json"] = 1
    measures = {**dict.fromkeys(PERFORMANCE_KEYS, 0.125), "sharpe": None, "final_equity": 1_234_567.891, "trades": 42}
    given = {
        "run_id": "20241001T000000Z-trader-abc123",
        "status": "done",
        "about": {"name": "trader", "strategy": "agent", "symbol": "BTCUSDT"},
        "bars": 1000,
        "tally": tally,
        "skipped": 4,
        "performance": measures,
        "baselines": {name: None if name == "sma" else measures for name in BASELINES},
        "hashes": dict.fromkeys(HASHES, "0123456789abcdef" * 4),
        "timing": {"seconds": 2.0},
        "waste": Waste(calls=3),
        "random_beaten": 0.43,
        "conventions": ["Sharpe: daily UTC equity."],
        "banners": ["SAMPLE MARKET", "STAND-IN MODEL"],
        "warnings": ["a warning with [brackets]"],
        **changes,
    }
    return build_summary(**given)


MANY: dict[str, Any] = {
    "about": {
        "name": "ranker", "strategy": "momentum", "model": None, "kind": "um", "mode": "cross_sectional",
        "symbol": "30 symbols", "symbols": {"count": 30, "names": ["AUSDT"] * 30}, "interval": "1h", "every": None,
        "rebalance": "W-MON", "pool": {"top_n": 20, "reselect": "MS", "lookback": "30D"}, "initial_cash": 10_000.0,
    },
    "unchanged": 5050,
    "portfolio": {
        "symbols": 30, "traded": 29, "mean_positions": 4.9, "mean_gross": 0.98, "mean_net": None, "max_gross": 1.2,
        "mean_turnover": 0.704, "rebalances": 30, "long_pnl": 1234.5, "short_pnl": -0.001,
        "best": [{"symbol": f"BEST{n}USDT", "pnl": 1000.0 - n} for n in range(5)], "worst": [], "delisted": ["GONE"],
    },
}  # fmt: skip


def test_holdings_of_a_run_over_several_symbols_are_shown() -> None:
    text = " ".join(plain(summary(**MANY)).split())
    for expected in (
        "momentum · perpetuals · cross-sectional · 30 symbols · 1h · rebalanced W-MON",
        "pool: top 20 by volume over 30D, refreshed MS · cash 10,000",
        "4.9 symbols on average, 29 of 30 traded; mean gross exposure 98.0% (max 120.0%), net –",
        "70.4% one-way per decision on average, 30 decisions", "long +1,234.50, short 0.00, before fees of 0.12",
        "best symbols BEST0USDT +1,000.00, BEST1USDT +999.00", "worst symbols –", "5,050 unchanged (not recorded)",
        "random agents that hold as many random symbols",
    ):  # fmt: skip
        assert expected in text
    assert "AUSDT" not in text


def test_cuts_are_shown_with_their_reasons() -> None:
    tally = Tally(total=3)
    tally.risk.update({"clipped": 2, "rejected": 1})
    tally.cuts.update({"max_position": 2, "min_size": 7})
    text = " ".join(plain(summary(tally=tally)).split())
    assert "2 clipped, 1 rejected, orders cut by limits: max_position x 2, min_size x 7" in text


def test_details_of_invalid_replies_are_grouped_and_the_frequent_come_first() -> None:
    tally = Tally(total=200)
    tally.reasons["invalid: schema"] = 108
    tally.details["invalid: schema"] = Counter({f"got {size}": 1 + size for size in range(7)} | {"got 100.0": 80})
    lines = [line.strip() for line in plain(summary(tally=tally)).splitlines()]
    at = next(at for at, line in enumerate(lines) if line.endswith("80 x got 100.0"))
    assert lines[at].startswith("invalid ")
    assert lines[at + 1 : at + 6] == ["7 x got 6", "6 x got 5", "5 x got 4", "4 x got 3", "6 x other messages"]
    assert "x got" not in plain(summary(tally=Tally(total=1)))


def test_every_figure_is_shown_without_colour() -> None:
    text = plain(summary(), width=1000)
    for expected in (
        "buy & hold", "random", "SMA", "1,234,567.89", "12.50%", "Sharpe", "3 buy, 2 sell, 5 hold",
        "1 invalid (10.0%)",
        "invalid: not_json x 1", "4 skipped (bar without trades)",
        "11 calls, 2 from cache", "1,200 + 80 tokens", "$0.5000",
        "prefetched 3: 0 used, 3 wasted", "above 43% of random agents", "decisions:01234567",
        "Sharpe: daily UTC equity.", "a warning with [brackets]", "BTCUSDT",
    ):  # fmt: skip
        assert expected in text
    assert "\x1b" not in text


def test_banners_and_warnings_come_first() -> None:
    lines = plain(summary()).splitlines()
    assert [line.strip() for line in lines[:3]] == [
        "SAMPLE MARKET",
        "STAND-IN MODEL",
        "warning: a warning with [brackets]",
    ]


def test_undefined_measures_and_missing_baselines_are_dashes() -> None:
    rows = {line.split("  ")[0].strip(): line for line in plain(summary()).splitlines()}
    assert rows["Sharpe ratio"].count("–") == 4
    assert rows["final equity"].count("–") == 1


@pytest.mark.parametrize("width", [80, 100, 200])
def test_nothing_is_truncated_and_no_line_is_too_wide(width: int) -> None:
    for text in (plain(summary(), width), plain(summary(**MANY), width)):
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text


def test_rounding_noise_is_not_a_negative_amount() -> None:
    noisy = {**summary()["performance"], "unrealised_pnl": -1e-12}
    assert "-0.00" not in plain(summary(performance=noisy))


def test_unknown_cost_is_shown() -> None:
    assert "cost unknown (2 calls unpriced)" in plain(summary(tally=Tally(total=1, calls=2, unpriced=2)))


def test_a_rule_has_no_model_line() -> None:
    assert "tokens" not in plain(summary(tally=Tally(total=1), waste=Waste()))


def test_run_without_decisions_can_be_shown() -> None:
    assert "0 over 1,000 bars" in plain(summary(tally=Tally()))


def test_terminal_gets_colour() -> None:
    out = StringIO()
    Console(file=out, force_terminal=True, color_system="truecolor", width=100).print(render(summary()))
    assert "\x1b[" in out.getvalue()
