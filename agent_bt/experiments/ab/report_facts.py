"""What the A/B report says in words and numbers: the verdicts first, then all that they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from agent_bt.reports.html_format import DASH, count, dollars, milliseconds, percent, ratio, signed_percent

_WORDS = {"better": "better", "worse": "worse", "cannot_tell": "cannot tell"}
_GLYPHS = {"better": "▲", "worse": "▼", "cannot_tell": "?"}
_ACCOUNTS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("total_return", "Return", signed_percent),
    ("sharpe", "Sharpe", ratio),
    ("max_drawdown", "Max drawdown", percent),
    ("trades", "Trades", lambda value: DASH if value is None else f"{value:,.3g}"),
)
_FAILURES = ("invalid", "transport", "budget")


def facts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Collect everything that the page's template shows, from a finished `experiment.json`; the template escapes it."""
    arms = list(record["arms"].values())
    names = list(record["results"])
    unit = record["unit"]
    return {
        "experiment_id": record["experiment_id"],
        "name": record["name"],
        "headline": headline(record),
        "outcome": _common_outcome(arms),
        "verdicts": [_verdict(arm, names) for arm in arms],
        "heading": _heading(record),
        "banners": [tuple(banner.partition(": ")[::2]) for banner in record.get("banners", ())],
        "warnings": _warnings(record),
        "baseline": record["baseline"],
        "unit": unit,
        "alpha": record["alpha"],
        "replicates": record["declared"]["replicates"],
        "arms": [{"name": name, "number": number} for number, name in enumerate(names)],
        "effects": intervals([_interval(arm, names) for arm in arms]),
        "regimes": intervals([row for arm in arms for row in _regimes(arm, names)]),
        "evidence": [_evidence(arm) for arm in arms],
        "several": _several(record),
        "changes": changes_of(record["declared"]),
        "flips": [_flips(arm, names) for arm in arms],
        "by_targets": any(arm["decisions"].get("kind") == "targets" for arm in arms),
        "results": [
            _result(name, number, result, record["baseline"])
            for number, (name, result) in enumerate(record["results"].items())
        ],
        "measures": [title for _, title, _ in _ACCOUNTS],
        "cells": record["cells"],
        "windows": record["windows"],
        "made_of": _made_of(record),
    }


def headline(record: Mapping[str, Any]) -> str:
    """Say the verdict in one sentence: which arms are better or worse than the baseline, and which cannot be told."""
    arms, baseline = list(record["arms"].values()), record["baseline"]
    if len(arms) == 1:
        return str(arms[0]["sentence"])
    groups = {outcome: [arm["arm"] for arm in arms if arm["verdict"] == outcome] for outcome in _WORDS}
    unsure = groups["cannot_tell"]
    if len(unsure) == len(arms):
        none = f"Neither {' nor '.join(unsure)}" if len(unsure) == 2 else f"None of {_listed(unsure)}"
        return f"{none} can be told from {baseline} by this test."
    parts = []
    for outcome in ("better", "worse"):
        if groups[outcome]:
            sure = not any(arm["warnings"] for arm in arms if arm["verdict"] == outcome)
            verb = ("is" if sure else "looks") if len(groups[outcome]) == 1 else ("are" if sure else "look")
            parts.append(f"{_listed(groups[outcome])} {verb} {outcome} than {baseline}")
    if unsure:
        parts.append(f"{_listed(unsure)} cannot be told from it")
    return "; ".join(parts) + "."


def intervals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Place `effect`, `low`, `high`, `mde` of each row on one axis: positions in per cent, and the axis' ticks."""
    ends = [abs(row[key]) for row in rows for key in ("effect", "low", "high", "mde") if row[key] is not None]
    step = _nice_step(max(ends, default=0.0))
    reach = step * max(1, math.ceil(max(ends, default=0.0) * 1.02 / step))

    def place(value: float | None) -> float | None:
        return None if value is None else round(50.0 + 50.0 * value / reach, 3)

    for row in rows:
        row["at"] = {key: place(row[key]) for key in ("effect", "low", "high")}
        row["at"]["mde"] = [place(-row["mde"]), place(row["mde"])] if row["mde"] is not None else None
    ticks = [at * step for at in range(-round(reach / step), round(reach / step) + 1)]
    return {"rows": list(rows), "ticks": [{"at": place(tick), "text": signed(tick)} for tick in ticks]}


def changes_of(declared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List what the arms differ in: one row a setting, one value an arm; None where the arm leaves it alone."""
    keys = dict.fromkeys(key for changes in declared["arms"].values() for key in changes)
    return [{"key": key, "by_arm": [_plain(changes.get(key)) for changes in declared["arms"].values()]} for key in keys]


def signed(value: float | None) -> str:
    """Format with three significant digits and a sign."""
    return DASH if value is None else f"{_rounded(value):+,g}".replace("-", "\u2212") if value else "0"


def plain_number(value: float | None) -> str:
    """Format with three significant digits."""
    return DASH if value is None else f"{_rounded(value):,g}".replace("-", "\u2212")


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _plain(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _nice_step(largest: float) -> float:
    """1, 2 or 5 times a power of ten, so that two to four of them reach as far as `largest`."""
    if largest <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(power * part for part in (0.5, 1.0, 2.0, 5.0) if largest / (power * part) <= 3.0)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _common_outcome(arms: Iterable[Mapping[str, Any]]) -> str:
    outcomes = {arm["verdict"] for arm in arms}
    return outcomes.pop() if len(outcomes) == 1 else "mixed"


def _heading(record: Mapping[str, Any]) -> str:
    first, last = record["windows"][0]["start"], record["windows"][-1]["end"]
    replicates, windows = record["declared"]["replicates"], len(record["windows"])
    parts = [
        record["market"],
        f"{first} to {last}" + (f" in {windows} windows" if windows > 1 else ""),
        f"{count(record['bars'])} bars",
        f"{len(record['results'])} arms × {replicates} {'replicate' if replicates == 1 else 'replicates'}",
        f"measured in {record['metric'].replace('_', ' ')}, {record['unit']}",
    ]
    return " · ".join(parts)


def _warnings(record: Mapping[str, Any]) -> list[str]:
    warnings = list(record.get("warnings", ()))
    if record.get("bars_dropped"):
        warnings.append(f"{count(record['bars_dropped'])} bars that not all runs walked over are left out")
    broken = [cell for cell in record["cells"] if cell["status"] != "done"]
    return warnings + [
        f"arm {c['arm']}, replicate {c['replicate']}, window {c['window']}: {c['status']}" for c in broken
    ]


def _verdict(arm: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        "arm": arm["arm"],
        "number": names.index(arm["arm"]),
        "outcome": arm["verdict"],
        "word": _WORDS[arm["verdict"]],
        "glyph": _GLYPHS[arm["verdict"]],
        "sentence": arm["sentence"],
        "notes": arm["notes"],
    }


def _interval(arm: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    limits = None if arm["ci_low"] is None else f"{signed(arm['ci_low'])} to {signed(arm['ci_high'])}"
    return {
        "arm": arm["arm"],
        "number": names.index(arm["arm"]),
        "outcome": arm["verdict"],
        "label": "",
        "effect": arm["effect"],
        "low": arm["ci_low"],
        "high": arm["ci_high"],
        "mde": arm["mde"],
        "text": signed(arm["effect"]),
        "detail": limits or "no interval",
        "confidence": f"{100 * (1 - arm['level']):.4g}%",
    }


def _regimes(arm: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for regime in arm["regimes"]:
        low, high = regime["ci_low"], regime["ci_high"]
        rows.append(
            {
                "arm": arm["arm"],
                "number": names.index(arm["arm"]),
                # Never in the colour of a verdict: of many such intervals, some miss zero by chance.
                "outcome": "described",
                "label": f"{regime['regime']}, {count(regime['days'])} days",
                "effect": regime["effect"],
                "low": low,
                "high": high,
                "mde": None,
                "text": signed(regime["effect"]),
                "detail": "no interval" if low is None else f"{signed(low)} to {signed(high)}",
                "confidence": f"{100 * (1 - arm['alpha']):.4g}%",
            }
        )
    return rows


def _evidence(arm: Mapping[str, Any]) -> dict[str, Any]:
    noise = arm["model_noise"]
    model = "unknown: one replicate"
    if noise is not None:
        model = f"± {plain_number(noise['error'])} ({plain_number(noise['low'])} to {plain_number(noise['high'])})"
    return {
        "arm": arm["arm"],
        "cells": [
            f"{arm['p_value']:.3g}",
            plain_number(arm["mde"]),
            f"± {plain_number(arm['market_noise'])}",
            model,
            ratio(arm["psr"]),
            ratio(arm["dsr"]),
            count(arm["trials"]),
        ],
    }


def _several(record: Mapping[str, Any]) -> list[str]:
    lines = []
    if record.get("spa"):
        spa = record["spa"]
        lines.append(
            f"Best of several: {spa['arm']}. If no arm were better than {record['baseline']}, the best of them would "
            f"look at least this good with probability {spa['p_value']:.3g} (Hansen's test)."
        )
    if record.get("pbo") is not None:
        lines.append(
            f"Probability of overfitting: {percent(record['pbo'], 0)}. So often the arm that was best on one half of "
            "the days is below the median on the other half."
        )
    return lines


def _flips(arm: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    flips = arm["decisions"]
    if flips.get("kind") == "targets":
        return _targets(arm, flips, names)
    actions, matrix, earned = flips["actions"], flips["flip_matrix"], flips["flip_pnl"]
    most = max((matrix[r][c] for r in range(3) for c in range(3) if r != c), default=0)
    rows = [
        {
            "action": action,
            "cells": [
                {
                    "count": count(matrix[r][c]),
                    "same": r == c,
                    "heat": round(100 * matrix[r][c] / most) if most and r != c else 0,
                    "pnl": _money(earned[r][c]) if r != c and matrix[r][c] else "",
                    "sign": _sign(earned[r][c]) if r != c else "",
                    "base": r,
                    "arm": c,
                }
                for c in range(3)
            ],
        }
        for r, action in enumerate(actions)
    ]
    total = sum(map(sum, earned)) + flips["pnl_before_first_flip"]
    return {
        "kind": "actions",
        "arm": arm["arm"],
        "number": names.index(arm["arm"]),
        "baseline": arm["baseline"],
        "actions": actions,
        "rows": rows,
        "paired": flips["paired"],
        "unpaired": flips["unpaired"],
        "agreement": _agreement(flips),
        "total": _money(total),
        "sign": _sign(total),
    }


def _targets(arm: Mapping[str, Any], found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Over many symbols: how far both want the same weights, and what each is like."""
    rate = found["equal"]
    agreement = "No decision was made at the same time by both"
    if rate is not None:
        agreement = (
            f"The same weights after {percent(rate['share'], 1)} of {count(found['paired'])} decisions "
            f"({percent(rate['low'], 1)} to {percent(rate['high'], 1)}); on average "
            f"{percent(found['overlap'], 1)} of the weight is in common"
        )
    return {
        "kind": "targets",
        "arm": arm["arm"],
        "number": names.index(arm["arm"]),
        "baseline": arm["baseline"],
        "paired": found["paired"],
        "unpaired": found["unpaired"],
        "agreement": agreement,
        "rows": [
            {
                "name": name,
                "cells": [
                    DASH if statistics["positions"] is None else f"{statistics['positions']:.1f}",
                    percent(statistics["gross"], 1),
                    percent(statistics["turnover"], 1),
                ],
            }
            for name, statistics in ((arm["baseline"], found["baseline"]), (arm["arm"], found["arm"]))
        ],
    }


def _agreement(flips: Mapping[str, Any]) -> str:
    if not flips["agreement"]:
        return "No decision was made at the same time by both."
    rate, kappa = flips["agreement"]["rate"], flips["agreement"]["kappa"]
    beyond = "" if kappa is None else f"; beyond chance: κ = {ratio(kappa)}"
    return (
        f"Alike in {percent(rate['share'], 1)} of {count(flips['paired'])} decisions "
        f"({percent(rate['low'], 1)} to {percent(rate['high'], 1)}){beyond}"
    )


def _money(value: float) -> str:
    return f"{value:+,.2f}".replace("-", "\u2212")


def _sign(value: float) -> str:
    return "" if not value else "gain" if value > 0 else "loss"


def _result(name: str, number: int, result: Mapping[str, Any], baseline: str) -> dict[str, Any]:
    made, rate = result["decisions"], result["failure_rate"]
    cost, latency = result["cost_usd_per_decision"] or {}, result["latency_ms_per_decision"] or {}
    reasons = ", ".join(f"{count(made[key])} {key}" for key in _FAILURES if made.get(key))
    return {
        "arm": name,
        "number": number,
        "baseline": name == baseline,
        "strategy": result["strategy"],
        "model": result["model"],
        "measures": [_spread(result[key], write) for key, _, write in _ACCOUNTS],
        "decisions": count(made["total"] + made.get("silent", 0)),
        "mix": f"{count(made['buy'])} / {count(made['sell'])}",
        "failed": percent(rate["share"], 2) if rate else DASH,
        "failed_why": "at most " + percent(rate["high"], 2) + (f"; {reasons}" if reasons else "") if rate else "",
        "cost": _cost(cost.get("total"), cost),
        "cost_each": dollars(None if cost.get("mean") is None else 1000 * cost["mean"]),
        "unpriced": count(cost["unknown"]) if cost.get("unknown") else "",
        "latency": milliseconds(latency.get("median")),
        "latency_high": milliseconds(latency.get("p95")),
    }


def _cost(total: float | None, cost: Mapping[str, Any]) -> str:
    if not cost:
        return DASH
    return "unpriced" if cost["mean"] is None else dollars(total)


def _spread(values: Sequence[float | None], write: Callable[[float | None], str]) -> dict[str, str]:
    """The median over replicates, and from where to where they go."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return {"text": DASH, "range": ""}
    middle = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2.0
    return {"text": write(middle), "range": f"{write(known[0])} to {write(known[-1])}" if len(known) > 1 else ""}


def _made_of(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("experiment", record["experiment_id"]),
        ("started", record["started"]),
        ("finished", record["finished"]),
        ("market data", record["market"]),
        ("metric", f"{record['metric']}, {record['unit']}"),
        ("alpha", f"{record['alpha']:g}, over all arms"),
        ("identity", record["identity"]),
    ]
    return [(name, str(value)) for name, value in rows if value]
