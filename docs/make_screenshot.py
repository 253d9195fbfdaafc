"""Writes docs/report.png, the picture of the README: a real report, as a browser shows it.

    python docs/make_screenshot.py RUN                a run folder
    python docs/make_screenshot.py                    a new run of configs/real_months.yaml; it needs the real months,
                                                      under AGENT_BT_MARKET_DATA or in the store
    --dark, --decision N, --days N, --out FILE        how it looks, which decision is open, how much of the chart

Needs Chromium with chromedriver, and selenium.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from agent_bt.records.read import load_run
from agent_bt.reports.html import write_report

ROOT = Path(__file__).resolve().parents[1]
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
WIDTH, HEIGHT, SCALE = 1440, 1190, 1.5


def main() -> int:
    """Make the run where none is named, write its report, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "report.png")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--decision", type=int)
    parser.add_argument("--days", type=int, default=0)
    options = parser.parse_args()
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        print("no Chromium with chromedriver; on Debian: apt-get install chromium chromium-driver", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or run_real_months(Path(folder))
        if options.decision is None:
            options.decision = trade_in_the_middle(run)
        report = write_report(run, single_file=True, out=Path(folder) / "report.html")
        take_picture(report, options, binary=binary, driver=driver)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")
    return 0


def run_real_months(folder: Path) -> Path:
    """A run of configs/real_months.yaml; with AGENT_BT_MARKET_DATA its months are put into a store first."""
    sets = ["--set", f"output={folder / 'runs'}", "--set", f"cache.path={folder / 'cache.sqlite'}"]
    market = os.environ.get("AGENT_BT_MARKET_DATA")
    if market:
        store, archive = folder / "data", (Path(market) / "archive" / "data").resolve().as_uri()
        months = ["--symbol", "BTCUSDT", "--start", "2024-07-01", "--end", "2024-10-01"]
        agent_bt("data", "backfill", *months, "--root", str(store), "--archive-url", archive, "--no-rest")
        sets += ["--set", f"data.root={store}"]
    agent_bt("run", str(ROOT / "configs" / "real_months.yaml"), *sets)
    return next((folder / "runs").glob("*/summary.json")).parent


def trade_in_the_middle(run: Path) -> int:
    """The first decision with an order in the second half of a run; 0 without one."""
    decisions = load_run(run).decisions
    late = decisions.filter((pl.col("index") >= len(decisions) // 2) & (pl.col("orders").list.len() > 0))
    return int(late["index"][0]) if len(late) else 0


def agent_bt(*arguments: str) -> None:
    """One command of the command line, as a reader would type it."""
    subprocess.run([sys.executable, "-m", "agent_bt", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def take_picture(report: Path, options: argparse.Namespace, *, binary: str, driver: str) -> None:
    """Open the report and save what it shows."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as profile:
        chrome = webdriver.ChromeOptions()
        chrome.binary_location = binary
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            chrome.add_argument(flag)
        browser = webdriver.Chrome(options=chrome, service=webdriver.ChromeService(driver))
        try:
            media = {"name": "prefers-color-scheme", "value": "dark" if options.dark else "light"}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [media]})
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(f"{report.as_uri()}#d={options.decision}")
            until = time.monotonic() + 60
            while browser.execute_script("return window.__ready ?? null") is None:
                if time.monotonic() > until:
                    raise RuntimeError("the report did not become ready within 60 s")
                time.sleep(0.1)
            if options.days:
                browser.execute_script(f"document.querySelector('#ranges [data-days=\"{options.days}\"]').click()")
            time.sleep(1.0)
            picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        finally:
            browser.quit()
    options.out.write_bytes(base64.b64decode(picture))


if __name__ == "__main__":
    sys.exit(main())
