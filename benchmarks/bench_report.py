"""The HTML report: its size, how long it takes to write, and to open in headless Chromium, by number of decisions."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agent_bt.reports.html import write_report

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "reports"))

from report_runs import make_run  # noqa: E402

SIZES = (2_000, 10_000)
REPEATS = 3
TARGET_S = 2.0
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1440,900",
)  # fmt: skip


def main() -> dict[str, Any]:
    """Synthetic runs of one decision an hour over minute bars, each with a prompt of its own."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_report(make_run(root, 50))  # imports, and plotly's script
        for decisions in SIZES:
            run = make_run(root, decisions)
            seconds = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                report = write_report(run)
                seconds.append(time.perf_counter() - began)
            work = f"report of {decisions:,} decisions on {decisions * 60:,} bars"
            rows.append({"work": f"{work}: write", "ours": round(min(seconds), 3), "unit": "s"})
            rows.append({"work": f"{work}: size", "ours": round(report.stat().st_size / 1e6, 2), "unit": "MB"})
            opened = time_to_open(report, root)
            if opened is not None:
                rows.append(
                    {"work": f"{work}: open", "ours": round(opened, 3), "unit": "s", "target": f"< {TARGET_S:g} s",
                     "met": opened < TARGET_S}
                )  # fmt: skip
    return {"name": "report", "rows": rows, "repeats": REPEATS}


def time_to_open(report: Path, root: Path, mark: str = "__ready") -> float | None:
    """Median seconds from navigation to what sets `mark` (chart and first decision shown), each in a fresh browser.

    The browser has shown another page before, so that its own start is not counted; None without a browser.
    """
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        return None
    from selenium import webdriver

    (root / "before.html").write_text("<!doctype html><title>before</title><p style='font-family: system-ui'>before")
    seconds = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as profile:
            options = webdriver.ChromeOptions()
            options.binary_location = binary
            for flag in (*FLAGS, f"--user-data-dir={profile}"):
                options.add_argument(flag)
            browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
            try:
                browser.get((root / "before.html").as_uri())
                time.sleep(1.5)
                browser.get(report.as_uri())
                ready = None
                until = time.monotonic() + 60
                while ready is None and time.monotonic() < until:
                    time.sleep(0.1)
                    ready = browser.execute_script(f"return window.{mark} ?? null")
                if ready is None:
                    raise RuntimeError("the report did not become ready within 60 s")
                seconds.append(ready / 1e3)
            finally:
                browser.quit()
    return statistics.median(seconds)


if __name__ == "__main__":
    print(main())
