"""Figures and histograms of the model calls for the page: cache, prefetch, cost, latency, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from agent_bt.reports.html_format import DASH, amount, count, dollars, milliseconds, percent

_BINS = 28


def build_call_figures(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Build groups of (name, value): calls, prefetch, cost, latency, tokens."""
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
                ("failed", count(llm.get("failed"))),
                ("replies from the cache", count(llm.get("cached"))),
            ],
        ),
        (
            "Prefetch",
            [
                ("prefetched calls", count(speculated)),
                ("used", f"{count(hits)} ({percent(hits / speculated, 1)})" if speculated else count(hits)),
                ("wasted", count(llm.get("speculation_wasted"))),
                ("waiting time saved", DASH if saved is None else f"{saved:,.1f} s"),
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
                ("decisions per second", amount(timing.get("decisions_per_s"), 1)),
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


def build_histograms(calls: pl.DataFrame) -> list[dict[str, Any]]:
    """Build the histograms of latency and tokens, from `html_decisions.Decisions.calls`."""
    answered = calls.filter(~pl.col("cached").fill_null(True) & (pl.col("latency_ms") > 0))
    charts = [
        _histogram("Latency of successful calls", answered["latency_ms"], milliseconds),
        _histogram("Prompt tokens per decision", calls["prompt_tokens"], count),
        _histogram("Completion tokens per decision", calls["completion_tokens"], count),
    ]
    return [chart for chart in charts if chart]


def _histogram(title: str, values: pl.Series, write: Any) -> dict[str, Any] | None:
    numbers = values.drop_nulls().cast(pl.Float64).to_numpy()
    if not len(numbers) or not numbers.max() > 0:
        return None
    low, high = (float(np.quantile(numbers, quantile)) for quantile in (0.0, 0.995))
    kind = int if write is count else float
    # Bins of whole numbers all cover the same number of values; otherwise there would be meaningless gaps.
    width = max(1.0, math.ceil((high - low + 1) / _BINS)) if kind is int else (high - low) / _BINS or 1.0
    bins = min(_BINS, math.ceil((high - low + (kind is int)) / width) or 1)
    counts, edges = np.histogram(numbers, bins=bins, range=(low, low + bins * width))
    return {
        "title": title,
        "bars": [
            {"height": round(100 * n / counts.max(), 1), "title": f"{write(kind(a))} to {write(kind(b))}: {n:,}"}
            for n, a, b in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ],
        "low": write(kind(edges[0])),
        "high": write(kind(edges[-1])),
        "median": write(kind(np.median(numbers))),
    }
