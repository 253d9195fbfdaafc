"""Prefetch against one call after another, over a server of fixed latency.

A run is the whole of `agent-bt run`, cache, journal and all, in a process of its own. Both sides must come to the same
decisions: they are compared by `hashes.decisions` with a run that waits for every reply, at no latency.

    python -m benchmarks.bench_prefetch              what `make bench` runs: 200 ms, 90 and 98% HOLD
    python -m benchmarks.bench_prefetch --full --latency 1000 --at-once 6 --store data > slow.json
    python -m benchmarks.bench_prefetch --full --latency 200 > fast.json
    python -m benchmarks.bench_prefetch --keep slow.json fast.json        writes prefetch.json and prefetch.md
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent_bt.engine.depth import decisions_per_round_trip

DECISIONS, SEQUENTIAL = 2_000, 200
HERE = Path(__file__).parent
PROMPTS = HERE.parent / "prompts" / "btcusdt_trader"
CASH_LINE = "\ncash {{ '%.2f' | format(account.cash) }}, equity {{ '%.2f' | format(account.equity) }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One run: the server's policy, its latency, what the prompt shows of the account, and the prefetch settings."""

    policy: str
    latency_ms: int
    shows: str = "cash"
    depth: int = 31
    guess: str = "hold"
    max_waste: float = 1.0
    max_in_flight: int = 32
    decisions: int = DECISIONS
    limiter: str = "plain"
    store: str = ""

    @property
    def name(self) -> str:
        """A name that no other run of the benchmark has."""
        return "_".join(str(value) for key, value in asdict(self).items() if key != "store")


TARGETS = {
    (1_000, 0.9, 0.5): (5.0, 1.5), (1_000, 0.9, 1.0): (7.3, 2.0), (1_000, 0.98, 1.0): (21.0, 1.5),
    (200, 0.9, 0.5): (4.2, 1.5), (200, 0.9, 1.0): (6.0, 2.0), (200, 0.98, 1.0): (15.0, 1.5),
}  # fmt: skip
"""(latency in ms, share of HOLD, max_waste) -> times faster at least, calls a decision at most; else see `target`."""

STATES_TARGET, STATES_CALLS = 11.0, 2.2


def hold(share: float, latency_ms: int, max_waste: float, **more: Any) -> Spec:
    """A run of which `share` of the replies are HOLD."""
    return Spec(policy=f"hold-{share}", latency_ms=latency_ms, max_waste=max_waste, **more)


def states(share: float, latency_ms: int) -> Spec:
    """The same with the prompt that shows few accounts, each of them kept warm."""
    return hold(share, latency_ms, 1.2, shows="v1-states", guess="states", depth=32)


def rare(latency_ms: int, **more: Any) -> Spec:
    """98% HOLD, where 36 calls a round trip still cost less than half as much again."""
    return hold(0.98, latency_ms, 1.0, depth=35, max_in_flight=36, **more)


SMALL = [hold(0.9, 200, 0.5), hold(0.9, 200, 1.0), rare(200)]
FULL = {
    1_000: [
        hold(0.8, 1_000, 1.0), hold(0.9, 1_000, 0.5), hold(0.9, 1_000, 1.0), hold(0.95, 1_000, 1.0),
        rare(1_000), hold(0.9, 1_000, 2.6), hold(0.9, 1_000, 1.0, shows="v1"),
        hold(0.9, 1_000, 2.6, shows="v1"), *(states(share, 1_000) for share in (0.8, 0.9, 0.95, 0.98)),
    ],
    200: [
        hold(0.8, 200, 1.0), *SMALL, hold(0.95, 200, 1.0), hold(0.9, 200, 1.0, shows="v1"), states(0.9, 200),
        rare(200, limiter="adaptive"),
    ],
}  # fmt: skip


def real(store: str) -> list[Spec]:
    """Three months of real bars, answered by the policy that ships: what the prompt shows makes the difference."""
    common: dict[str, Any] = {"policy": "stand-in-0.35", "latency_ms": 1_000, "store": store}
    return [
        Spec(**common, shows="cash"), Spec(**common, shows="v1"),
        Spec(**common, shows="v1-states", depth=32), Spec(**common, shows="v1-states", guess="states", depth=32),
        Spec(**common, shows="v1-states", guess="states", depth=32, max_waste=3.0),
    ]  # fmt: skip


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Run the part or all of it; rows as `benchmarks.run` wants them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="both latencies, every share; half an hour")
    parser.add_argument("--store", default="", help="with --full: a store that holds BTCUSDT of July to September 2024")
    parser.add_argument("--latency", type=int, action="append", help="with --full: only this latency (1000, 200)")
    parser.add_argument("--at-once", type=int, default=1, help="runs beside each other")
    parser.add_argument("--one", help="run this one only: a JSON object of Spec, and print what it measured")
    parser.add_argument("--keep", nargs="+", type=Path, help="results of --full that prefetch.json and .md are made of")
    options = parser.parse_args(argv)
    if options.keep:
        return keep([json.loads(file.read_text()) for file in options.keep])
    with server() as port, tempfile.TemporaryDirectory() as folder:
        if options.one:
            return measure(Spec(**json.loads(options.one)), port, folder)
        if not options.full:
            return {"name": "prefetch", **compare(SMALL, port, folder, 1)}
        latencies = options.latency or list(FULL)
        specs = [spec for latency in latencies for spec in FULL[latency]]
        if options.store and 1_000 in latencies:
            specs += real(options.store)
        results = compare(specs, port, folder, options.at_once)
    return {"name": "prefetch", "date": datetime.now(UTC).date().isoformat(), "at_once": options.at_once, **results}


def keep(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the results of several calls to prefetch.json, and their rows as a table to prefetch.md."""
    (HERE / "prefetch.json").write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Prefetch, measured",
        "",
        f"Written by `benchmarks/bench_prefetch.py`: {DECISIONS:,} decisions a row, each a whole `agent-bt run`,",
        f"against {SEQUENTIAL} calls one after another, extrapolated. Load: runnable processes on the machine's",
        f"{os.cpu_count()} cores as the run ended. Each run came to the decisions of one that waits for every reply.",
        "",
        "| run | s | one after another, s | faster | calls a decision | target | met | side by side | load |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|",
    ]
    for part in parts:
        for row in part["rows"]:
            met = {True: "yes", False: "no", None: ""}[row["met"]]
            cells = [
                row["work"], f"{row['ours']:.1f}", f"{row['theirs']:.0f}", f"{row['ratio']:.1f}x",
                f"{row['calls_per_decision']:.2f}", row["target"], met, part["at_once"], row["load"],
            ]  # fmt: skip
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        assert all(row["identical"] for row in part["rows"])
    (HERE / "prefetch.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return {"rows": sum(len(part["rows"]) for part in parts)}


def compare(specs: Sequence[Spec], port: int, folder: str, at_once: int) -> dict[str, Any]:
    """Measure these runs, and what they are compared with: 200 decisions one after another, and the same decisions."""
    # One after another it takes as long whatever the replies are: one reference for each latency.
    waiting = {
        latency: hold(0.9, latency, 1.0, depth=0, decisions=SEQUENTIAL)
        for latency in dict.fromkeys(spec.latency_ms for spec in specs)
    }
    same = {
        spec: replace(spec, latency_ms=0, depth=0, max_in_flight=1, guess="hold", max_waste=1.0, limiter="plain")
        for spec in specs
    }
    wanted = [*waiting.values(), *dict.fromkeys(same.values()), *specs]
    measured = dict(zip(wanted, measure_all(wanted, port, folder, at_once), strict=True))
    rows = []
    for spec in specs:
        ours, one_by_one = measured[spec], measured[waiting[spec.latency_ms]]
        sequential_s = one_by_one["seconds"] / SEQUENTIAL * ours["decisions_made"]
        factor, calls = sequential_s / ours["seconds"], ours["calls"] / ours["decisions_made"]
        identical = ours["decisions_hash"] == measured[same[spec]]["decisions_hash"]
        wanted_factor, most_calls = target(spec, ours["hold"] / ours["decisions_made"])
        rows.append(
            {
                "work": describe(spec),
                "ours": ours["seconds"],
                "unit": "s",
                "peer": f"one call after another, {SEQUENTIAL} of them",
                "theirs": sequential_s,
                "ratio": factor,
                "calls_per_decision": round(calls, 3),
                "identical": identical,
                "load": ours["load"],
                "target": f">= {wanted_factor:.3g} for <= {most_calls:.3g}x the calls" if wanted_factor else "",
                "met": identical and factor >= wanted_factor and calls <= most_calls if wanted_factor else None,
            }
        )
    return {"rows": rows, "runs": list(measured.values())}


def target(spec: Spec, rate: float) -> tuple[float, float]:
    """How many times faster, for how many calls per decision; 0 where nothing was set. `rate`: of HOLD, as it came."""
    policy, _, share = spec.policy.rpartition("-")
    if policy != "hold" or spec.limiter != "plain":
        return 0.0, 0.0
    if spec.guess == "states":
        return (STATES_TARGET, STATES_CALLS) if spec.latency_ms == 1_000 else (0.0, 0.0)
    if spec.max_waste > 1 or spec.shows != "cash":
        return 0.0, 0.0
    given = TARGETS.get((spec.latency_ms, float(share), spec.max_waste))
    if given:
        return given
    most_calls = 1 + spec.max_waste
    yields = {k: decisions_per_round_trip(rate, k) for k in range(1, spec.depth + 2)}
    best = max(value for k, value in yields.items() if k / value <= most_calls)
    return (0.9 if spec.latency_ms == 1_000 else 0.75) * best, most_calls


def describe(spec: Spec) -> str:
    """A run in words."""
    policy, _, share = spec.policy.rpartition("-")
    who = f"{float(share):.0%} HOLD" if policy == "hold" else "real months, the policy that ships"
    shown = {"cash": "absolute cash shown", "v1": "v1", "v1-states": "v1-states"}[spec.shows]
    limiter = "" if spec.limiter == "plain" else ", adaptive limiter"
    return f"{who}, {spec.latency_ms} ms, {shown}, guess {spec.guess}, max_waste {spec.max_waste:g}{limiter}"


def measure_all(specs: Sequence[Spec], port: int, folder: str, at_once: int) -> list[dict[str, Any]]:
    """Each run in a fresh process, so many beside each other."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=context, max_tasks_per_child=1) as pool:
        return list(pool.map(measure, specs, [port] * len(specs), [folder] * len(specs)))


@contextmanager
def server() -> Iterator[int]:
    """The server, in its own process; yields its port."""
    command = [sys.executable, "-m", "benchmarks.prefetch_server"]
    with subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(json.loads(process.stdout.readline())["port"])
        finally:
            process.stdin.close()
            process.wait(10)


def measure(spec: Spec, port: int, folder: str) -> dict[str, Any]:
    """Make one run, and read what it did from its summary and from the server."""
    from agent_bt import load_config
    from agent_bt.backtest.run import run_config
    from agent_bt.llm import limiter
    from agent_bt.llm.openai_client import FixedLimiter

    if spec.limiter == "plain":
        limiter.AdaptiveLimiter = FixedLimiter  # type: ignore[assignment,misc]
    work = Path(folder) / spec.name
    work.mkdir()
    host = f"http://127.0.0.1:{port}/{spec.name}"
    settings = {
        "market.source": "store" if spec.store else "sample", "data.root": spec.store or "data",
        "strategy.prompt": prompt(spec.shows, work), "llm.provider": "openai", "llm.model": spec.policy,
        "llm.base_url": f"{host}/{spec.latency_ms}/v1", "llm.endpoint_id": "bench", "llm.temperature": 0,
        "llm.max_in_flight": spec.max_in_flight, "prefetch.depth": spec.depth, "prefetch.guess": spec.guess,
        "prefetch.max_waste": spec.max_waste, "cache.path": work / "cache.sqlite", "output": work / "runs",
    }  # fmt: skip
    config = load_config(
        HERE.parent / "configs" / "backtest.yaml", overrides=[f"{key}={value}" for key, value in settings.items()]
    )
    began = sum(os.times()[:2])
    result = run_config(config, limit=spec.decisions, fresh=True)
    if result.error is not None:
        raise result.error
    with urllib.request.urlopen(f"{host}/calls") as answer:
        asked_what_it_takes = 1
        calls = json.load(answer)["calls"] - asked_what_it_takes
    summary = result.summary
    llm, timing = summary["llm"], summary["timing"]
    measured = {
        **asdict(spec),
        "seconds": timing["seconds"],
        "cpu_seconds": round(sum(os.times()[:2]) - began, 3),
        "decisions_made": summary["decisions"]["total"],
        "hold": summary["decisions"]["hold"],
        "calls": calls,
        "accounted": llm["calls"] - asked_what_it_takes,
        "hits": llm["speculation_hits"],
        "wasted": llm["speculation_wasted"],
        "cached": llm["cached"],
        "load": round(os.getloadavg()[0], 1),
        "decisions_hash": summary["hashes"]["decisions"],
    }
    print(json.dumps(measured), file=sys.stderr, flush=True)
    return measured


def prompt(shows: str, work: Path) -> str:
    """The prompt to use: one that ships, or `cash`: v1 with the amounts of the account added."""
    if shows != "cash":
        return f"btcusdt_trader/{shows}"
    text = (PROMPTS / "v1.prompty").read_text(encoding="utf-8")
    there = work / "cash.prompty"
    there.write_text(text.replace("\n\nBars\n{{", f"{CASH_LINE}\n\nBars\n{{{{"), encoding="utf-8")
    return str(there)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=1))
