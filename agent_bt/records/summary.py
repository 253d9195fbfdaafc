"""`summary.json`: the results of a run, with fixed keys."""

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
    """Calls that were paid for but not used by a decision.

    Attributes:
        calls: prefetched calls that were never needed, and calls lost when the process was killed.
        probes: calls that negotiated which parameters the endpoint accepts.
        prompt_tokens, completion_tokens: of all these calls.
        cost_usd: of all these calls, US dollars.
        unpriced: how many of them have no known price.
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
    """Build the summary of a run as plain data.

    Args:
        run_id: name of the run folder.
        status: how the run ended.
        about: what was run, for the heading: name, strategy, model, symbol, interval, start, end, ...
        bars: bars in [start, end).
        tally: counts over the recorded decisions.
        skipped: decisions that fell into an outage.
        unchanged: decisions that repeated the current target, and were not recorded; `decisions.silent` in the file.
        performance: measures with exactly `PERFORMANCE_KEYS`.
        baselines: the same measures of each of `BASELINES`; None for one that could not be run.
        hashes: exactly `HASHES`; `prompt` is None for a strategy that has none.
        timing: started, finished (ISO 8601, UTC), seconds, and other times.
        waste: calls that were paid for but not used.
        random_beaten: fraction of the random agents that ended below the strategy.
        portfolio: see `holdings.summarise_holdings`; None for a run over one symbol.
        conventions: how the measures are defined, in sentences.
        banners: what a reader must not overlook: SAMPLE MARKET, STAND-IN MODEL.
        warnings: what limits the result, in sentences.

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
    """Count the decisions of each kind; model + invalid + transport + budget = buy + sell + hold = total."""
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
        "details": {reason: dict(sorted(counted.items())) for reason, counted in sorted(tally.details.items())},
    }


def list_details(counts: Mapping[str, Any]) -> list[tuple[int, str]]:
    """List the validation messages of the invalid replies of a run, the most frequent first.

    Args:
        counts: `decisions` of a summary; summaries of earlier versions have no details.

    Returns:
        Count and message: `(91, "size_pct must be a number from 0 to 1, got 100.0")`.
    """
    found = [(count, text) for counted in counts.get("details", {}).values() for text, count in counted.items()]
    return sorted(found, key=lambda each: (-each[0], each[1]))


def llm_usage(tally: Tally, waste: Waste = NO_WASTE) -> dict[str, Any]:
    """Sum up calls, tokens, cost and latency; a cost is None where the price of any of its calls is unknown.

    Latencies are those of used calls that got a reply; `cost_saved_usd` is what cached replies cost when they were
    requested. Tokens and cost of a call whose outcome is unknown (killed in flight, timed out) are its worst case.

    Args:
        tally: counts over the recorded decisions.
        waste: calls that were paid for but not used.
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
        "served": [each.to_dict() for each in tally.served.served],
    }


def _check(what: str, given: Mapping[str, Any], keys: Sequence[str]) -> None:
    if set(given) != set(keys):
        raise ValueError(f"{what} of a summary must have exactly the keys {', '.join(keys)}, got {', '.join(given)}")
