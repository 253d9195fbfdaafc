"""`summary.json`: what came out of a run, with fixed keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_bt.records.run_folder import Status
from agent_bt.records.tally import Tally

PERFORMANCE_KEYS = (
    "final_equity",
    "total_pnl",
    "realised_pnl",
    "unrealised_pnl",
    "total_return",
    "annualised_return",
    "max_drawdown",
    "volatility",
    "sharpe",
    "sortino",
    "calmar",
    "win_rate",
    "profit_factor",
    "trades",
    "turnover",
    "exposure",
    "fees",
    "slippage",
    "funding",
)
BASELINES = ("buy_and_hold", "random", "sma")
HASHES = ("config", "data", "prompt", "decisions", "fills", "equity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waste:
    """Calls that were paid for and used by no decision, with their tokens and their cost in US dollars.

    Attributes:
        calls: those sent ahead and never needed, or lost when the process was killed.
        probes: those that found out what the endpoint takes.
        unpriced: how many of all these have no known price.
    """

    calls: int = 0
    probes: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0


NO_WASTE = Waste()


def build_summary(
    *,
    run_id: str,
    status: Status,
    about: Mapping[str, Any],
    bars: int,
    tally: Tally,
    skipped: int,
    unchanged: int = 0,
    performance: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any] | None],
    hashes: Mapping[str, str | None],
    timing: Mapping[str, Any],
    waste: Waste = NO_WASTE,
    random_beaten: float | None = None,
    portfolio: Mapping[str, Any] | None = None,
    conventions: Sequence[str] = (),
    banners: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The summary of a run as plain data.

    Args:
        about: what ran on what, for the heading: name, strategy, model, symbol, interval, start, end, ...
        bars: bars in [start, end).
        skipped: decisions that fell into an outage.
        silent: decisions that had nothing new to say, and were not recorded.
        performance, baselines: measures with exactly `PERFORMANCE_KEYS`; a baseline that could not be run is None.
        hashes: exactly `HASHES`; `prompt` is None for a strategy that has none.
        timing: started, finished (ISO 8601 UTC), seconds, and what else is worth knowing.
        random_beaten: share of the random agents that ended below the strategy.
        portfolio: what a run over many symbols held, see `records.holdings`; None for any other.
        conventions: how the measures are defined, in words.
        banners: what a reader must not overlook: SAMPLE MARKET, STAND-IN MODEL.

    Raises:
        ValueError: keys are missing or unknown.
    """
    _check("performance", performance, PERFORMANCE_KEYS)
    _check("baselines", baselines, BASELINES)
    _check("hashes", hashes, HASHES)
    for name, measures in baselines.items():
        if measures is not None:
            _check(f"baselines.{name}", measures, PERFORMANCE_KEYS)
    return {
        "run_id": run_id,
        "status": status,
        "about": dict(about),
        "banners": list(banners),
        "warnings": list(warnings),
        "bars": bars,
        "decisions": {**decision_counts(tally), "skipped": skipped, "silent": unchanged},
        "performance": dict(performance),
        "baselines": {name: baselines[name] for name in BASELINES},
        "random_beaten": random_beaten,
        "portfolio": None if portfolio is None else dict(portfolio),
        "llm": llm_usage(tally, waste),
        "hashes": {name: hashes[name] for name in HASHES},
        "timing": dict(timing),
        "conventions": list(conventions),
    }


def decision_counts(tally: Tally) -> dict[str, Any]:
    """How many decisions of each kind; model + invalid + transport + budget = buy + sell + hold = total."""
    return {
        "total": tally.total,
        "model": tally.provenance["model"],
        "invalid": tally.provenance["invalid"],
        "transport": tally.provenance["transport"],
        "budget": tally.provenance["budget"],
        "buy": tally.action["BUY"],
        "sell": tally.action["SELL"],
        "hold": tally.action["HOLD"],
        "clipped": tally.risk["clipped"],
        "rejected": tally.risk["rejected"],
        "cuts": dict(sorted(tally.cuts.items())),
        "failed_share": tally.failed_share,
        "reasons": dict(sorted(tally.reasons.items())),
    }


def llm_usage(tally: Tally, waste: Waste = NO_WASTE) -> dict[str, Any]:
    """Calls, tokens, cost and latency; a cost is None where the price of any of its calls is unknown.

    Latencies are of answered calls that were used; `cost_saved_usd` is what cached replies cost when they were made.
    Tokens and cost of a call whose fate is unknown (killed while in flight, timed out) are its worst case.
    """
    unpriced = tally.unpriced + waste.unpriced
    return {
        "calls": tally.calls + waste.calls + waste.probes,
        "probes": waste.probes,
        "failed": tally.failed,
        "cached": tally.cached,
        "speculated": tally.speculation_hits + waste.calls,
        "speculation_hits": tally.speculation_hits,
        "speculation_wasted": waste.calls,
        "prompt_tokens": tally.prompt_tokens + waste.prompt_tokens,
        "completion_tokens": tally.completion_tokens + waste.completion_tokens,
        "cost_usd": None if unpriced else tally.cost_usd + waste.cost_usd,
        "unpriced": unpriced,
        "cost_saved_usd": None if tally.saved_unpriced else tally.cost_saved_usd,
        "latency_ms_p50": tally.latency_ms(0.5),
        "latency_ms_p95": tally.latency_ms(0.95),
    }


def _check(what: str, given: Mapping[str, Any], keys: Sequence[str]) -> None:
    if set(given) != set(keys):
        raise ValueError(f"{what} of a summary must have the keys {', '.join(keys)}; it has {', '.join(given)}")
