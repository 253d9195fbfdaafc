"""What the report says in words and numbers: headings, measures beside the baselines, months, calls, provenance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import yaml

from agent_bt.evaluation.metrics import daily_returns
from agent_bt.records.read import Run
from agent_bt.reports.html_cards import SERIES, cards_of, sign_of
from agent_bt.reports.html_format import DASH, amount, count, dollars, milliseconds, percent, ratio, signed_percent

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
_VARIANTS = {
    "as_run": "As run",
    "next_open": "Next open",
    "plus_1_bar": "1 bar later",
    "plus_5_bars": "5 bars later",
    "double_costs": "Double costs",
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_BINS = 28


def facts_of(run: Run, equity: pl.DataFrame, baselines: pl.DataFrame | None, calls: pl.DataFrame) -> dict[str, Any]:
    """Everything that the page's template shows; text is as recorded, the template escapes it.

    `calls` as made by `html_decisions.Decisions.calls`; `equity` and `baselines` are the run's tables.
    """
    summary, manifest = run.summary, run.manifest
    config: dict[str, Any] = yaml.safe_load(run.config_text) or {}
    about: dict[str, Any] = summary.get("about") or {}
    accounts = {"strategy": summary["performance"], **(summary.get("baselines") or {})}
    asked = bool(about.get("model")) or bool(summary["llm"].get("calls") or summary["llm"].get("cached"))
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
        "cards": cards_of(summary, accounts, asked),
        "measures": [name for _, name, _ in measures],
        "accounts": [
            {"key": key, "name": name, "cells": [_cell(accounts[key], *measure) for measure in measures]}
            for key, name in SERIES
            if accounts.get(key)
        ],
        "random_beaten": summary.get("random_beaten"),
        "returns": _returns(equity, baselines, _initial_cash(about, config, equity)),
        "sensitivity": _sensitivity(summary.get("sensitivity") or ()),
        "decisions": summary["decisions"],
        "cuts": list((summary["decisions"].get("cuts") or {}).items()),
        "reasons": list((summary["decisions"].get("reasons") or {}).items()),
        "llm": _llm(summary),
        "histograms": _histograms(calls),
        "hashes": [(name, value) for name, value in summary["hashes"].items() if value],
        "prompt": prompt,
        "made_of": _made_of(manifest, summary),
        "packages": list((manifest.get("packages") or {}).items()),
        "requested": (manifest.get("llm") or {}).get("requested"),
        "config_text": run.config_text,
        "conventions": list(summary.get("conventions", ())),
        "asked": asked,
    }


def _heading(about: Mapping[str, Any]) -> str:
    """`BTCUSDT 1m · 2024-07-01 to 2024-10-01 · btcusdt_trader/v1 · stand_in/baseline · every 1h`."""
    traded = about.get("symbol") or ""
    if about.get("kind") == "um":
        traded = f"{about['symbols']['count']} perpetuals" if about.get("symbols") else f"{traded} perpetual"
    market = " ".join(str(part) for part in (traded, about.get("interval")) if part)
    period = f"{about['start']} to {about['end']}" if about.get("start") and about.get("end") else ""
    every = f"every {about['every']}" if about.get("every") else ""
    if about.get("rebalance"):
        every = f"rebalanced {about['rebalance']}"
    pool: Mapping[str, Any] = about.get("pool") or {}
    chosen = f"the {pool['top_n']} most traded over {pool['lookback']}, chosen {pool['reselect']}" if pool else ""
    parts = [market, period, about.get("strategy") or "", about.get("model") or "", every, chosen]
    return " · ".join(str(part) for part in parts if part)


def _initial_cash(about: Mapping[str, Any], config: Mapping[str, Any], equity: pl.DataFrame) -> float:
    cash = about.get("initial_cash") or (config.get("account") or {}).get("cash")
    return float(cash if cash is not None else equity["equity"][0])


def _cell(account: Mapping[str, Any], key: str, _name: str, write: Any) -> dict[str, Any]:
    value = account.get(key)
    return {"text": write(value), "sign": sign_of(value) if write is signed_percent else ""}


def _returns(equity: pl.DataFrame, baselines: pl.DataFrame | None, initial: float) -> dict[str, Any]:
    """Monthly and daily returns (UTC) of the strategy, and monthly ones of holding."""
    curves = {"Strategy": equity["equity"]}
    times = equity["time"].to_physical().to_numpy()
    if baselines is not None and len(baselines) == len(equity):
        curves["B&H"] = baselines["buy_and_hold"]
    months = {name: _monthly(times, curve.to_numpy(), initial) for name, curve in curves.items()}
    years = sorted({year for year, _ in months["Strategy"]})
    largest = max((abs(v) for by_month in months.values() for v in by_month.values()), default=0.0)
    rows = [
        {
            "year": year,
            "name": name,
            "cells": [_heat(by_month.get((year, month)), largest) for month in range(1, 13)],
            "total": _heat(_compound(v for (y, _), v in by_month.items() if y == year), 0.0),
        }
        for year in years
        for name, by_month in months.items()
    ]
    return {"months": _MONTHS, "rows": rows, "days": _calendar(times, equity["equity"].to_numpy(), initial)}


def _monthly(times: np.ndarray, equity: np.ndarray, initial: float) -> dict[tuple[int, int], float]:
    """(year, month) -> return, from the last mark of the month before; a bar closing at midnight ends its month."""
    months = (times - 1).astype("datetime64[us]").astype("datetime64[M]")
    last = np.append(np.flatnonzero(months[1:] != months[:-1]), len(months) - 1)
    marks = np.concatenate([[initial], equity[last]])
    numbers = months[last].astype(int)
    returns = (marks[1:] / marks[:-1] - 1.0).tolist()
    return {(1970 + n // 12, n % 12 + 1): value for n, value in zip(numbers.tolist(), returns, strict=True)}


def _compound(returns: Iterable[float]) -> float:
    return math.prod(1.0 + value for value in returns) - 1.0


def _calendar(times: np.ndarray, equity: np.ndarray, initial: float) -> list[dict[str, Any]]:
    """Per year the days with their return, week by week: `column` and `row` (Monday = 1) of a grid."""
    days = np.unique((times - 1) // 86_400_000_000)
    returns = daily_returns(times, equity, initial)
    # The deepest colours are for the largest of ordinary days; one wild day must not bleach the rest.
    largest = float(np.quantile(np.abs(returns), 0.98)) if len(returns) else 0.0
    years: dict[int, dict[str, Any]] = {}
    first_week: dict[int, int] = {}
    for day, value in zip(days.tolist(), returns.tolist(), strict=True):
        date = np.datetime64(day, "D").item()
        week = (day + 3) // 7
        year = years.setdefault(date.year, {"year": date.year, "days": [], "months": {}})
        column = week - first_week.setdefault(date.year, week) + 1
        year["months"].setdefault(_MONTHS[date.month - 1], column)
        year["days"].append(
            {
                "column": column,
                "row": date.weekday() + 1,
                "title": f"{date}  {signed_percent(value)}",
                **_heat(value, largest),
            }
        )
    return list(years.values())


def _heat(value: float | None, largest: float) -> dict[str, Any]:
    if value is None:
        return {"text": "", "sign": "", "heat": 0}
    share = min(1.0, abs(value) / largest) if largest else 0.0
    return {"text": signed_percent(value, 1), "sign": sign_of(value), "heat": round(100 * share**0.7) if value else 0}


def _sensitivity(variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not variants:
        return []
    base = variants[0]["total_return"]
    widest = max(abs(variant["total_return"]) for variant in variants) or 1.0
    return [
        {
            "name": _VARIANTS.get(variant["name"], variant["name"]),
            "total_return": signed_percent(variant["total_return"]),
            "sign": sign_of(variant["total_return"]),
            "width": round(100 * abs(variant["total_return"]) / widest, 1),
            "difference": signed_percent(variant["total_return"] - base) if at else "",
            "final_equity": amount(variant["final_equity"]),
            "max_drawdown": percent(variant["max_drawdown"]),
            "fees": amount(variant["fees"]),
        }
        for at, variant in enumerate(variants)
    ]


def _llm(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value): calls, speculation, cost, latency, tokens."""
    llm, timing, made = summary["llm"], summary.get("timing") or {}, summary["decisions"]["total"]
    calls = llm.get("calls") or 0
    speculated, hits = llm.get("speculated") or 0, llm.get("speculation_hits") or 0
    cost, tokens = llm.get("cost_usd"), (llm.get("prompt_tokens") or 0) + (llm.get("completion_tokens") or 0)
    unpriced = f", {count(llm['unpriced'])} calls without a price" if llm.get("unpriced") else ""
    saved = timing.get("saved_by_prefetch_s")
    return [
        (
            "Calls and cache",
            [
                ("calls to the provider", count(calls)),
                ("of them without an answer", count(llm.get("failed"))),
                ("answered from the cache", count(llm.get("cached"))),
            ],
        ),
        (
            "Speculation",
            [
                ("sent ahead on a guess", count(speculated)),
                ("used", f"{count(hits)} ({percent(hits / speculated, 1)})" if speculated else count(hits)),
                ("wasted", count(llm.get("speculation_wasted"))),
                ("waiting saved", DASH if saved is None else f"{saved:,.1f} s"),
            ],
        ),
        (
            "Cost",
            [
                ("spent", f"{dollars(cost)}{unpriced}" if cost is not None else f"unpriced{unpriced}"),
                ("per 1,000 decisions", dollars(1000 * cost / made) if cost is not None and made else DASH),
                ("saved by the cache", dollars(llm.get("cost_saved_usd"))),
            ],
        ),
        (
            "Latency and time",
            [
                ("median", milliseconds(llm.get("latency_ms_p50"))),
                ("95th percentile", milliseconds(llm.get("latency_ms_p95"))),
                ("whole run", f"{timing['seconds']:,.1f} s" if timing.get("seconds") is not None else DASH),
                ("decisions a second", amount(timing.get("decisions_per_s"), 1)),
            ],
        ),
        (
            "Tokens",
            [
                ("prompt", count(llm.get("prompt_tokens"))),
                ("completion", count(llm.get("completion_tokens"))),
                ("per call", count(round(tokens / calls)) if calls else DASH),
            ],
        ),
    ]


def _histograms(calls: pl.DataFrame) -> list[dict[str, Any]]:
    answered = calls.filter(~pl.col("cached").fill_null(True) & (pl.col("latency_ms") > 0))
    charts = [
        _histogram("Latency of answered calls", answered["latency_ms"], milliseconds),
        _histogram("Prompt tokens per decision", calls["prompt_tokens"], count),
        _histogram("Completion tokens per decision", calls["completion_tokens"], count),
    ]
    return [chart for chart in charts if chart]


def _histogram(title: str, values: pl.Series, write: Any) -> dict[str, Any] | None:
    numbers = values.drop_nulls().cast(pl.Float64).to_numpy()
    if not len(numbers) or not numbers.max() > 0:
        return None
    low, high = (float(np.quantile(numbers, share)) for share in (0.0, 0.995))
    whole = int if write is count else float
    # Bins of whole numbers hold equally many of them, or there would be gaps that mean nothing.
    width = max(1.0, math.ceil((high - low + 1) / _BINS)) if whole is int else (high - low) / _BINS or 1.0
    bins = min(_BINS, math.ceil((high - low + (whole is int)) / width) or 1)
    counts, edges = np.histogram(numbers, bins=bins, range=(low, low + bins * width))
    return {
        "title": title,
        "bars": [
            {"height": round(100 * n / counts.max(), 1), "title": f"{write(whole(a))} to {write(whole(b))}: {n:,}"}
            for n, a, b in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ],
        "low": write(whole(edges[0])),
        "high": write(whole(edges[-1])),
        "median": write(whole(np.median(numbers))),
    }


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
