"""Prefetch against one call after another, over a server of fixed latency.

A run is the whole of `agent-bt run`, cache, journal and all, in a process of its own. Both sides must come to the same
decisions: they are compared by `hashes.decisions` with a run that waits for every reply, at no latency.

    python -m benchmarks.bench_prefetch              what `make bench` runs: 200 ms, 90 and 98% HOLD
    python -m benchmarks.bench_prefetch --full       both latencies, 80 to 98% HOLD; writes prefetch.json, prefetch.md
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    gate: str = "plain"
    store: str = ""

    @property
    def name(self) -> str:
        """A name that no other run of the benchmark has."""
        return "_".join(str(value).replace("/", "-") for value in asdict(self).values() if value != "")


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Run the part or all of it; rows as `benchmarks.run` wants them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help="run this one only: a JSON object of Spec, and print what it measured")
    options = parser.parse_args(argv)
    with server() as port, tempfile.TemporaryDirectory() as folder:
        if options.one:
            return measure(Spec(**json.loads(options.one)), port, folder)
    return {}


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
    from agent_bt import app, load_config
    from agent_bt.llm import limiter
    from agent_bt.llm.openai_provider import Slots

    if spec.gate == "plain":
        limiter.AdaptiveGate = Slots  # type: ignore[assignment,misc]
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
    result = app.run_config(config, limit=spec.decisions, fresh=True)
    if result.error is not None:
        raise result.error
    with urllib.request.urlopen(f"{host}/calls") as answer:
        calls = json.load(answer)["calls"] - 1  # the one that asked what the endpoint takes
    summary = result.summary
    llm, timing = summary["llm"], summary["timing"]
    return {
        **asdict(spec),
        "seconds": timing["seconds"],
        "cpu_seconds": round(sum(os.times()[:2]) - began, 3),
        "decisions_made": summary["decisions"]["total"],
        "hold": summary["decisions"]["hold"],
        "calls": calls,
        "accounted": llm["calls"],
        "hits": llm["speculation_hits"],
        "wasted": llm["speculation_wasted"],
        "cached": llm["cached"],
        "decisions_hash": summary["hashes"]["decisions"],
    }


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
