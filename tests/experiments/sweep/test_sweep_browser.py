"""The report of a sweep in headless Chromium: it opens without an error, and what is clicked is what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from browser_page import Page

from agent_bt.experiments.sweep.folder import SweepFolder
from agent_bt.experiments.sweep.report import write_sweep_report
from agent_bt.experiments.sweep.report_facts import short_names
from agent_bt.experiments.sweep.tables import curves_frame

pytestmark = pytest.mark.browser

NASTY = "</script><img src=x onerror=window.__pwned=1>"
FAST, SLOW, KIND = (f"strategy.params.{name}" for name in ("fast", "slow", "kind"))


def make_sweep(folder: Path) -> list[dict[str, Any]]:
    """A sweep's folder with hand-made numbers: 3 x 4 x 2 combinations, of which fast 3 with slow 3 was not tried."""
    params = {FAST: [1, 2, 3], SLOW: [3, 10.5, None, 40], KIND: ["sma", NASTY]}
    tried = [
        {FAST: fast, SLOW: slow, KIND: kind}
        for fast in params[FAST] for slow in params[SLOW] for kind in params[KIND] if (fast, slow) != (3, 3)
    ]  # fmt: skip
    rows = [
        {
            "index": at, **values, "sharpe": None if at == 0 else (at * 7 % 22) / 10 - 1.0,
            "total_return": at / 100 - 0.1, "max_drawdown": -at / 100, "sortino": 1e30 if at == 4 else 0.5,
            "trades": at, "out_of_sample_sharpe": -at / 10,
        }
        for at, values in enumerate(tried)
    ]  # fmt: skip
    best = max(rows, key=lambda row: -9 if row["sharpe"] is None else row["sharpe"])
    performance = {"total_return": 0.1, "sharpe": 1.1, "max_drawdown": -0.2, "trades": 12, "exposure": 0.4}
    record = {
        "version": 1, "sweep_id": folder.name, "name": "hand-made", "status": "done", "identity": "ab" * 32,
        "declared": {"set": {"strategy.kind": NASTY}}, "params": params, "metric": "sharpe",
        "about": {
            "strategy": "ma_cross", "source": "a file", "symbols": ["BTCUSDT"], "interval": "1m", "start": "2024-07-01",
            "end": "2024-08-01", "rhythm": "1h", "initial_cash": 1000.0, "fee_rate": 0.001, "slippage_bps": 5.0,
        },
        "combinations": {"all": 24, "tried": 22, "skipped": 2, "reasons": [{"reason": NASTY, "count": 2}]},
        "best": {"index": best["index"], "params": {key: best[key] for key in params}, "performance": performance},
        "evidence": {"trials": 22, "sharpe": 1.1, "expected_best": 2.0, "psr": 0.8, "dsr": 0.2, "pbo": None,
                     "sentence": "22 variants were tried: luck explains it."},
        "buy_and_hold": performance, "banners": ["SAMPLE MARKET: generated"], "warnings": [NASTY],
        "walk_forward": {
            "train": "14d", "test": "7d", "anchored": False, "evidence": {"psr": 0.4},
            "performance": performance, "buy_and_hold": performance,
            "windows": [{
                "train": {"start": "2024-07-01T00:00Z", "end": "2024-07-15T00:00Z"},
                "test": {"start": "2024-07-15T00:00Z", "end": "2024-07-22T00:00Z"}, "chosen": None, "params": None,
                "in_sample": None, "out_of_sample": None, "total_return": 0.0, "capital": 1000.0,
            }],
        },
    }  # fmt: skip
    times = (19_900 + np.arange(30)) * 86_400_000_000
    curves = {name: (times, 1000.0 + np.arange(30.0) * (at + 1)) for at, name in enumerate(("buy_and_hold", "best"))}
    SweepFolder(folder).write(record, pl.DataFrame(rows, strict=False), curves_frame(curves))
    return rows


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("runs") / "sweeps" / "hand-made-0123456789"
    rows = make_sweep(folder)
    return write_sweep_report(folder), rows


@pytest.fixture
def page(browser: Page, report: Any) -> Iterator[Page]:
    browser.driver.get("about:blank")
    browser.driver.get_log("browser")
    browser.driver.get(report[0].as_uri())
    browser.wait(lambda: browser.js("return window.__drawn || window.__failed"))
    assert browser.js("return window.__failed ?? null") is None
    yield browser
    assert browser.errors() == []


def table(page: Page) -> list[list[str]]:
    rows: list[list[str]] = page.js(
        "return [...document.querySelectorAll('#combination-table .gt-row')].sort((a, b) => a.dataset.position -"
        " b.dataset.position).map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    return rows


def heat(page: Page) -> list[list[float | None]]:
    cells: list[list[float | None]] = page.js("return document.getElementById('heat').data[0].z")
    return cells


def choose(page: Page, label: str, value: str) -> None:
    page.js(
        "const e = document.querySelector(`#map-bar select[aria-label='${arguments[0]}']`); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', { bubbles: true }));",
        label,
        value,
    )


def test_it_fetches_nothing_and_runs_nothing_of_what_it_shows(page: Page) -> None:
    resources = page.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in resources if not name.startswith(("file:", "blob:", "data:"))] == []
    assert page.js("return window.__pwned ?? null") is None
    assert page.js("return document.querySelectorAll('main img, iframe').length") == 0
    assert NASTY in page.js("return document.querySelector('.notices').textContent")
    assert page.js("return document.getElementById('headline').textContent").endswith("luck explains it.")
    assert page.js("return document.querySelectorAll('#curves .main-svg').length") > 0


def test_the_map_shows_the_best_of_what_is_left_open_or_the_value_that_is_chosen(page: Page, report: Any) -> None:
    rows = report[1]
    fast, slow = [1, 2, 3], [3, 10.5, None, 40]

    def expected(kind: str | None) -> list[list[float | None]]:
        lines = []
        for down in slow:
            line = []
            for across in fast:
                there = [
                    row["sharpe"]
                    for row in rows
                    if (row[FAST], row[SLOW]) == (across, down) and kind in (None, row[KIND])
                    if row["sharpe"] is not None
                ]
                line.append(max(there) if there else None)
            lines.append(line)
        return lines

    def close(one: Any, other: Any) -> bool:
        return [[None if v is None else round(v, 6) for v in line] for line in one] == [
            [None if v is None else round(v, 6) for v in line] for line in other
        ]

    assert close(heat(page), expected(None))
    choose(page, "kind", "0")
    assert close(heat(page), expected("sma"))
    choose(page, "kind", "")
    choose(page, "across", "1")
    assert page.js("return document.getElementById('heat').data[0].x") == ["3", "10.5", "null", "40"]
    assert len(heat(page)) == 3
    choose(page, "colour", "trades")
    assert heat(page)[0][1] == rows[3]["trades"] or heat(page)[0][1] == rows[2]["trades"]


def test_the_table_sorts_by_what_is_clicked(page: Page, report: Any) -> None:
    known = sorted((row["sharpe"] for row in report[1] if row["sharpe"] is not None), reverse=True)
    shown = [row[3].replace("\u2212", "-") for row in table(page)]
    assert shown == [*(f"{value:.2f}" for value in known), "–"]
    page.click("#combination-table .gt-head span:nth-child(5) button")
    returns = [row[4].replace("\u2212", "-") for row in table(page)]
    assert returns[:2] == ["11.00%", "10.00%"]


def test_light_and_dark_and_the_sizes_of_laptops(page: Page) -> None:
    for width in (1280, 1440, 1024):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.js("document.getElementById('theme-button').click()")
        page.wait(lambda width=width: page.js("return document.documentElement.scrollWidth") <= width)
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.js("localStorage.clear()")


def test_names_are_as_short_as_they_can_be_told_apart() -> None:
    assert short_names([FAST, SLOW, "risk.stop_loss"]) == {FAST: "fast", SLOW: "slow", "risk.stop_loss": "stop_loss"}
    assert list(short_names(["a.b.size", "a.c.size", "size"]).values()) == ["size", "b.size", "c.size"]
