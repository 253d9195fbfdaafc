"""Runs every benchmark, each in a process of its own, and writes `results.json` and `RESULTS.md`.

A benchmark is a file `bench_*.py` with `main() -> dict`. What it returns: `name`, and `rows`, each with `work`, `ours`,
`unit`, and where there is a peer `peer`, `theirs`, `ratio`, `target`, `met`; whatever else it holds goes to the JSON.

    python -m benchmarks.run            all of them
    python -m benchmarks.run startup    those whose name holds a word; the results of the others stay
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PACKAGES = ("agent-bt", "numba", "numpy", "polars", "pyarrow", "httpx", "typer")
CHILD = "import importlib, json, sys; json.dump(importlib.import_module(sys.argv[1]).main(), open(sys.argv[2], 'w'))"


def main() -> int:
    """Run what the command line names; the exit code is 1 if a benchmark broke (a missed target is a figure)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="run only benchmarks whose file name holds one of these")
    words = parser.parse_args().words
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() and words else {}
    failed = []
    for file in sorted(HERE.glob("bench_*.py")):
        if words and not any(word in file.stem for word in words):
            continue
        print(f"{file.stem} ...", flush=True)
        outcome = run_one(file)
        results[file.stem] = outcome
        if "error" in outcome:
            failed.append(file.stem)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = render(results)
    (HERE / "RESULTS.md").write_text(table, encoding="utf-8")
    print(table)
    return 1 if failed else 0


def run_one(file: Path) -> dict[str, Any]:
    """The result of one benchmark with where and when it was measured, or its error."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, "-c", CHILD, f"benchmarks.{file.stem}", str(output)]
        done = subprocess.run(
            command, cwd=HERE.parent, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode or not output.is_file():
            print(done.stderr, file=sys.stderr)
            result: dict[str, Any] = {"error": (done.stderr.strip().splitlines() or ["no result"])[-1]}
        else:
            result = json.loads(output.read_text())
    return result | {"measured": _circumstances(), "took_s": round(time.perf_counter() - began, 1)}


def render(results: dict[str, Any]) -> str:
    """All results as Markdown; machine and versions once per distinct set of them."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios to a peer measured in the same run are what counts; absolute figures",
        "belong to the machine named below.",
        "",
        "| work | agent-bt | peer | peer's figure | ratio | target | |",
        "|---|---:|---|---:|---:|---|---|",
    ]
    for name, result in results.items():
        if "error" in result:
            lines.append(f"| {name} | failed: {_cell(result['error'])} | | | | | no |")
        lines += [_row(row) for row in result.get("rows", ())]
    seen: dict[str, list[str]] = {}
    for name, result in results.items():
        seen.setdefault(_describe(result["measured"]), []).append(name)
    lines += ["", *(f"- {', '.join(names)}: {circumstances}" for circumstances, names in seen.items()), ""]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    unit = row.get("unit", "")
    ratio = f"{row['ratio']:.3g}" if row.get("ratio") is not None else ""
    met = {True: "yes", False: "no"}.get(row.get("met"), "")  # type: ignore[call-overload]
    cells = [row["work"], _figure(row.get("ours"), unit), row.get("peer", ""), _figure(row.get("theirs"), unit)]
    return "| " + " | ".join(map(_cell, [*cells, ratio, row.get("target", ""), met])) + " |"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def _cell(text: object) -> str:
    return str(text).replace("|", "/").replace("\n", " ")


def _circumstances() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def _describe(measured: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    return f"{measured['date']}, {measured['machine']}, Python {measured['python']}, {versions}"


if __name__ == "__main__":
    sys.exit(main())
