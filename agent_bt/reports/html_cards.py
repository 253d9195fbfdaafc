"""The cards at the top of the report: one headline measure each, with the baselines or the figures behind it."""

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


def build_cards(summary: Mapping[str, Any], accounts: Mapping[str, Any], uses_model: bool) -> list[dict[str, Any]]:
    """Build the cards of a run.

    Args:
        summary: as in `summary.json`.
        accounts: the measures of the strategy and of each baseline, by the keys of `SERIES`.
        uses_model: whether decisions come from a model.
    """
    return [_card(accounts, *card) for card in _CARDS] + _own_cards(summary, uses_model)


def sign_class(value: float | None) -> str:
    """Return the style class of a number: `gain`, `loss`, or empty."""
    return "" if not value else "gain" if value > 0 else "loss"


def _card(accounts: Mapping[str, Any], key: str, title: str, write: Any) -> dict[str, Any]:
    value = accounts["strategy"].get(key)
    others = [
        {"key": series, "name": _SHORT[series], "text": write(accounts[series].get(key))}
        for series, _ in SERIES[1:]
        if accounts.get(series)
    ]
    sign = sign_class(value) if key in ("total_return", "sharpe") else ""
    return {"title": title, "value": write(value), "sign": sign, "others": others}


def _own_cards(summary: Mapping[str, Any], uses_model: bool) -> list[dict[str, Any]]:
    """Build the cards without baselines: trades, costs, decisions, positions over several symbols, model calls."""
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
    if uses_model:
        third = _line("failed", f"{count(failed)} ({percent(failed / made['total'], 1)})" if made["total"] else DASH)
    else:
        third = _line("unchanged", count(made.get("silent")))
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
                third,
                _line("skipped", count(made.get("skipped"))),
            ],
        },
    ]
    if held:
        lines = [
            _line("gross, mean", percent(held["mean_gross"], 1)),
            _line("gross, max", percent(held["max_gross"], 1)),
            _line("net, mean", percent(held["mean_net"], 1)),
        ]
        cards.append(
            {"title": "Mean positions", "value": amount(held["mean_positions"], 1), "sign": "", "others": lines}
        )
    return [*cards, model] if uses_model else cards


def _line(name: str, text: str) -> dict[str, Any]:
    return {"key": "", "name": name, "text": text}
