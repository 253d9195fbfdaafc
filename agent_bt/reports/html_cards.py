"""The cards on top of the report: a headline measure each, with those of the baselines or the figures behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_bt.reports.html_format import DASH, amount, count, dollars, milliseconds, percent, ratio, signed_percent

SERIES = (
    ("strategy", "Strategy"),
    ("buy_and_hold", "Buy and hold"),
    ("random", "Random agents"),
    ("sma", "Moving average"),
)
"""Key and name of the strategy and its baselines, in the order of the report."""

_CARDS = (
    ("total_return", "Total return", signed_percent),
    ("max_drawdown", "Max drawdown", percent),
    ("sharpe", "Sharpe ratio", ratio),
    ("volatility", "Volatility, annual", percent),
)
_SHORT = {"buy_and_hold": "B&H", "random": "Random", "sma": "SMA"}


def cards_of(summary: Mapping[str, Any], accounts: Mapping[str, Any], asked: bool) -> list[dict[str, Any]]:
    """The cards of a run; `accounts` are its measures and those of the baselines, `asked` is whether a model was."""
    return [_card(accounts, *card) for card in _CARDS] + _own_cards(summary, asked)


def sign_of(value: float | None) -> str:
    """The style of a number: gain, loss, or none."""
    return "" if not value else "gain" if value > 0 else "loss"


def _card(accounts: Mapping[str, Any], key: str, title: str, write: Any) -> dict[str, Any]:
    value = accounts["strategy"].get(key)
    others = [
        {"key": series, "name": _SHORT[series], "text": write(accounts[series].get(key))}
        for series, _ in SERIES[1:]
        if accounts.get(series)
    ]
    sign = sign_of(value) if key in ("total_return", "sharpe") else ""
    return {"title": title, "value": write(value), "sign": sign, "others": others}


def _own_cards(summary: Mapping[str, Any], asked: bool) -> list[dict[str, Any]]:
    """Cards of what only the strategy has: trades, costs, decisions, holdings of many symbols, the model if asked."""
    measured, made, llm = summary["performance"], summary["decisions"], summary["llm"]
    failed = made["total"] - made["model"]
    model: dict[str, Any] = {
        "title": "Model cost",
        "value": dollars(llm.get("cost_usd")),
        "sign": "",
        "others": [
            _line("calls", count(llm.get("calls"))),
            _line("from cache", count(llm.get("cached"))),
            _line("latency", milliseconds(llm.get("latency_ms_p50"))),
        ],
    }
    held: Mapping[str, Any] | None = summary.get("portfolio")
    if held:
        ordered = _line("with orders", count(made["buy"] + made["sell"]))
    else:
        ordered = _line("buy / sell", f"{count(made['buy'])} / {count(made['sell'])}")
    if asked:
        changed = _line("failed", f"{count(failed)} ({percent(failed / made['total'], 1)})" if made["total"] else DASH)
    else:
        changed = _line("silent", count(made.get("silent")))
    cards = [
        {
            "title": "Trades",
            "value": count(measured["trades"]),
            "sign": "",
            "others": [
                _line("win rate", percent(measured["win_rate"], 1)),
                _line("profit factor", ratio(measured["profit_factor"])),
                _line("exposure", percent(measured["exposure"], 1)),
            ],
        },
        {
            "title": "Trading costs",
            "value": amount(measured["fees"] + measured["slippage"]),
            "sign": "",
            "others": [
                _line("fees", amount(measured["fees"])),
                _line("slippage", amount(measured["slippage"])),
                _line("funding", amount(measured["funding"]))
                if measured.get("funding")
                else _line("turnover", ratio(measured["turnover"])),
            ],
        },
        {
            "title": "Decisions",
            "value": count(made["total"]),
            "sign": "",
            "others": [
                ordered,
                changed,
                _line("skipped", count(made.get("skipped"))),
            ],
        },
    ]
    if held:
        lines = [
            _line("gross, mean", percent(held["mean_gross"], 1)),
            _line("gross, most", percent(held["max_gross"], 1)),
            _line("net, mean", percent(held["mean_net"], 1)),
        ]
        cards.append(
            {"title": "Positions, mean", "value": amount(held["mean_positions"], 1), "sign": "", "others": lines}
        )
    return [*cards, model] if asked else cards


def _line(name: str, text: str) -> dict[str, Any]:
    return {"key": "", "name": name, "text": text}
