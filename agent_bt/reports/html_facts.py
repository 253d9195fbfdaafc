"""The figures and texts of the report: headings, measures of strategy and baselines, sensitivity, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import yaml

from agent_bt.records.read import Run
from agent_bt.records.summary import list_details
from agent_bt.reports.html_calls import build_call_figures, build_histograms
from agent_bt.reports.html_cards import SERIES, build_cards, sign_class
from agent_bt.reports.html_format import amount, count, percent, ratio, signed_percent
from agent_bt.reports.html_returns import build_returns

_MEASURES = (
    ("total_return", "Return", signed_percent),
    ("annualised_return", "Annualised", signed_percent),
    ("max_drawdown", "Max drawdown", percent),
    ("volatility", "Volatility", percent),
    ("sharpe", "Sharpe", ratio),
    ("sortino", "Sortino", ratio),
    ("calmar", "Calmar", ratio),
    ("trades", "Trades", count),
    ("win_rate", "Win rate", percent),
    ("profit_factor", "Profit factor", ratio),
    ("turnover", "Turnover", ratio),
    ("exposure", "Exposure", percent),
    ("fees", "Fees", amount),
    ("slippage", "Slippage", amount),
    ("funding", "Funding", amount),
    ("final_equity", "Final equity", amount),
)
_STATUS = {
    "done": "complete",
    "failed": "failed: too many decisions failed",
    "interrupted": "interrupted, resumable",
    "budget": "stopped at its budget, resumable",
}
_DETAILS = 8
"""How many kinds of invalid replies are listed."""

_VARIANTS = {
    "as_run": "As run",
    "next_open": "Next open",
    "plus_1_bar": "1 bar later",
    "plus_5_bars": "5 bars later",
    "double_costs": "Double costs",
}


def build_facts(run: Run, equity: pl.DataFrame, baselines: pl.DataFrame | None, calls: pl.DataFrame) -> dict[str, Any]:
    """Build the variables of the page's template; texts are as recorded, the template escapes them.

    Args:
        run: the run.
        equity: columns of `EQUITY_SCHEMA`.
        baselines: `time` and one column per baseline; None without any.
        calls: as returned by `html_decisions.Decisions.calls`.
    """
    summary, manifest = run.summary, run.manifest
    config: dict[str, Any] = yaml.safe_load(run.config_text) or {}
    about: dict[str, Any] = summary.get("about") or {}
    accounts = {"strategy": summary["performance"], **(summary.get("baselines") or {})}
    uses_model = bool(about.get("model")) or bool(summary["llm"].get("calls") or summary["llm"].get("cached"))
    prompt = manifest.get("prompt") or {}
    funded = any(account and account.get("funding") for account in accounts.values())
    measures = [measure for measure in _MEASURES if funded or measure[0] != "funding"]
    return {
        "run_id": run.run_id,
        "name": manifest.get("name") or run.run_id,
        "status": run.status,
        "status_text": _STATUS.get(run.status, run.status),
        "about": about,
        "heading": _heading(about),
        "banners": [tuple(banner.partition(": ")[::2]) for banner in summary.get("banners", ())],
        "warnings": list(summary.get("warnings", ())),
        "cards": build_cards(summary, accounts, uses_model),
        "measures": [name for _, name, _ in measures],
        "accounts": [
            {"key": key, "name": name, "cells": [_cell(accounts[key], *measure) for measure in measures]}
            for key, name in SERIES
            if accounts.get(key)
        ],
        "random_beaten": summary.get("random_beaten"),
        "returns": build_returns(equity, baselines, _initial_cash(about, config, equity)),
        "sensitivity": _sensitivity(summary.get("sensitivity") or ()),
        "decisions": summary["decisions"],
        "cuts": list((summary["decisions"].get("cuts") or {}).items()),
        "reasons": list((summary["decisions"].get("reasons") or {}).items()),
        "details": list_details(summary["decisions"])[:_DETAILS],
        "llm": build_call_figures(summary),
        "histograms": build_histograms(calls),
        "hashes": [(name, value) for name, value in summary["hashes"].items() if value],
        "prompt": prompt,
        "made_of": _made_of(manifest, summary),
        "packages": list((manifest.get("packages") or {}).items()),
        "requested": (manifest.get("llm") or {}).get("requested"),
        "config_text": run.config_text,
        "conventions": list(summary.get("conventions", ())),
        "uses_model": uses_model,
    }


def _heading(about: Mapping[str, Any]) -> str:
    """Format the heading, as `BTCUSDT 1m · 2024-07-01 to 2024-10-01 · btcusdt_trader/v1 · every 1h`."""
    traded = about.get("symbol") or ""
    if about.get("kind") == "um":
        traded = f"{about['symbols']['count']} perpetuals" if about.get("symbols") else f"{traded} perpetual"
    market = " ".join(str(part) for part in (traded, about.get("interval")) if part)
    period = f"{about['start']} to {about['end']}" if about.get("start") and about.get("end") else ""
    every = f"every {about['every']}" if about.get("every") else ""
    if about.get("rebalance"):
        every = f"rebalanced {about['rebalance']}"
    pool: Mapping[str, Any] = about.get("pool") or {}
    pooled = f"top {pool['top_n']} by volume over {pool['lookback']}, refreshed {pool['reselect']}" if pool else ""
    parts = [market, period, about.get("strategy") or "", about.get("model") or "", every, pooled]
    return " · ".join(str(part) for part in parts if part)


def _initial_cash(about: Mapping[str, Any], config: Mapping[str, Any], equity: pl.DataFrame) -> float:
    cash = about.get("initial_cash") or (config.get("account") or {}).get("cash")
    return float(cash if cash is not None else equity["equity"][0])


def _cell(account: Mapping[str, Any], key: str, _name: str, write: Any) -> dict[str, Any]:
    value = account.get(key)
    return {"text": write(value), "sign": sign_class(value) if write is signed_percent else ""}


def _sensitivity(variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not variants:
        return []
    base = variants[0]["total_return"]
    widest = max(abs(variant["total_return"]) for variant in variants) or 1.0
    return [
        {
            "name": _VARIANTS.get(variant["name"], variant["name"]),
            "total_return": signed_percent(variant["total_return"]),
            "sign": sign_class(variant["total_return"]),
            "width": round(100 * abs(variant["total_return"]) / widest, 1),
            "difference": signed_percent(variant["total_return"] - base) if at else "",
            "final_equity": amount(variant["final_equity"]),
            "max_drawdown": percent(variant["max_drawdown"]),
            "fees": amount(variant["fees"]),
        }
        for at, variant in enumerate(variants)
    ]


def _made_of(manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    timing = summary.get("timing") or {}
    llm = manifest.get("llm") or {}
    rows = [
        ("run", manifest.get("run_id")),
        ("started", timing.get("started") or manifest.get("started")),
        ("finished", timing.get("finished") or manifest.get("finished")),
        ("market data", (summary.get("about") or {}).get("source")),
        ("bars", count(summary.get("bars"))),
        ("code", manifest.get("code")),
        ("price table", llm.get("prices")),
        ("Python", manifest.get("python")),
        ("machine", manifest.get("platform")),
    ]
    return [(name, str(value)) for name, value in rows if value]
