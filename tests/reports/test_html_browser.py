"""The report in headless Chromium: it opens without an error, and shows what is clicked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from browser_page import Page
from portfolio_runs import make_portfolio_run
from report_runs import NASTY, make_rule_run, make_run

from agent_bt.core.clock import MINUTE
from agent_bt.records.read import load_run
from agent_bt.reports.html import write_report

pytestmark = pytest.mark.browser

DECISIONS = 400


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("runs"), DECISIONS)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def decisions(run: Path) -> pl.DataFrame:
    return load_run(run).decisions


@pytest.fixture
def page(browser: Page, run: Path) -> Iterator[Page]:
    """The report, freshly opened; after every test its console must be empty."""
    browser.open(run / "report.html")
    yield browser
    assert browser.errors() == []


def test_it_opens_on_the_first_trade_without_network_access(page: Page, decisions: pl.DataFrame) -> None:
    first = decisions.filter(pl.col("orders").list.len() > 0)["index"][0]
    assert page.shown == first
    resources = page.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in resources if not name.startswith(("file:", "blob:", "data:"))] == []
    assert page.js("return document.querySelectorAll('#chart .main-svg').length") > 0


def test_only_the_visible_chunk_of_prompts_is_decoded(page: Page) -> None:
    """index, texts, candles, curves, trades, failures and one chunk, of seven."""
    chunks = page.js("return document.querySelectorAll('script[id^=chunk-]').length")
    assert chunks == 7
    page.wait(lambda: page.js("return document.querySelectorAll('#failed-table .gt-row').length"))
    assert page.js("return window.__inflated") == 7


def test_a_row_shows_the_exact_prompt_reply_and_note(page: Page, decisions: pl.DataFrame) -> None:
    for index, text in NASTY.items():
        page.js("document.querySelector('#decision-table .gt-body').scrollTop = 0")
        page.wait(
            lambda index=index: page.js(f"return document.querySelector('#decision-table [data-position=\"{index}\"]')")
        )
        page.click(f"#decision-table [data-position='{index}']")
        page.wait_for_detail(index)
        row = decisions.row(index, named=True)
        messages = page.js("return [...document.querySelectorAll('#detail pre.message')].map((pre) => pre.textContent)")
        assert messages == [message["content"] for message in row["messages"]]
        assert page.js("return document.querySelector('#detail pre.reply').textContent") == row["reply"] == text
        assert page.js("return document.getElementById('detail-note').textContent") == row["note"]
        assert page.js("return window.__pwned ?? null") is None
        assert page.js("return document.querySelectorAll('img, main script, iframe').length") == 0
        assert page.js("return document.documentElement.scrollWidth <= innerWidth")


def test_a_marker_opens_its_decision(page: Page, decisions: pl.DataFrame) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    page.js("document.querySelector('#ranges [data-days=\"7\"]').click()")
    for kind, chosen in (
        ("BUY", pl.col("action") == "BUY"),
        ("SELL", pl.col("action") == "SELL"),
        ("failed", pl.col("provenance") == "invalid"),
        ("HOLD", (pl.col("action") == "HOLD") & (pl.col("provenance") == "model")),
    ):
        index = decisions.filter(chosen & (pl.col("index") > 20))["index"][0]
        x, y = page.wait(
            lambda index=index, kind=kind: page.js(
                """
                const chart = document.getElementById("chart");
                const trace = chart.data.find((trace) => trace.name === arguments[1]);
                const at = trace.customdata.indexOf(arguments[0]);
                if (at < 0) return null;
                const { xaxis, yaxis } = chart._fullLayout;
                const box = chart.getBoundingClientRect();
                const [x, y] = [xaxis._offset + xaxis.l2p(trace.x[at]), yaxis._offset + yaxis.l2p(trace.y[at])];
                return [box.left + x, box.top + y];
                """,
                index,
                kind,
            )
        )
        actions = ActionChains(page.driver)
        actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        actions.pause(0.2)
        actions.click()
        actions.perform()
        page.wait_for_detail(index)
        assert page.js("return document.getElementById('detail-name').textContent").startswith(f"#{index} ")


def test_candles_follow_the_zoom_and_equal_the_bars(page: Page, run: Path) -> None:
    bars = load_run(run).market
    steps = set()
    for days in (0, 7, 1):
        page.js(f"document.querySelector('#ranges [data-days=\"{days}\"]').click()")
        page.wait(lambda: page.js("return document.getElementById('chart').data"))
        trace = page.js("return (({x, open, high, low, close}) => ({x, open, high, low, close}))(chart.data[0])")
        step = int(trace["x"][1] - trace["x"][0])
        steps.add(step)
        expected = bars.group_by_dynamic("open_time", every=f"{step}ms").agg(
            pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()
        )
        starts = pl.Series([int(x - step / 2) * 1000 for x in trace["x"]]).cast(pl.Datetime("us", "UTC"))
        expected = starts.to_frame("open_time").join(expected, on="open_time", how="left", maintain_order="left")
        for name in ("open", "high", "low", "close"):
            # The last candle may end where the view does; every other is whole.
            assert trace[name][:-1] == expected[name].to_list()[:-1]
    assert len(steps) == 3
    assert min(steps) * 1000 <= 10 * MINUTE


def test_filters_select_the_right_decisions(page: Page, decisions: pl.DataFrame) -> None:
    def filtered() -> int:
        text = page.js("return document.getElementById('filter-count').textContent")
        return int(text.split()[0].replace(",", ""))

    def choose(control: str, value: str) -> None:
        page.js(
            "const e = document.getElementById(arguments[0]);"
            "if (e.type === 'checkbox') e.checked = arguments[1] === 'on'; else e.value = arguments[1];"
            "e.dispatchEvent(new Event('input', { bubbles: true }));",
            control,
            value,
        )

    count = DECISIONS
    assert filtered() == count
    for control, value, none, expected in (
        ("only-failed", "on", "", pl.col("provenance") != "model"),
        ("only-trades", "on", "", pl.col("orders").list.len() > 0),
        ("filter-action", "1", "", pl.col("action") == "BUY"),
        ("filter-source", "2", "", pl.col("provenance") == "transport"),
        ("search", "NOT_json", "", pl.col("reason") == "not_json"),
        ("search", "市場", "", pl.col("note").str.contains("市場")),
        ("search", "<script>", "", pl.col("note").str.contains("<script>", literal=True)),
    ):
        choose(control, value)
        assert filtered() == decisions.filter(expected).height > 0
        assert page.js("return document.querySelectorAll('#decision-table .gt-row').length") <= min(filtered(), 60)
        choose(control, none)
    choose("only-failed", "on")
    failed = decisions.filter(pl.col("provenance") != "model")["index"].to_list()
    page.click("#decision-table [data-position='0']")
    page.wait_for_detail(failed[0])
    page.click("#next")
    page.wait_for_detail(failed[1])
    choose("search", "no such note")
    assert filtered() == 0
    assert page.driver.find_element("css selector", "#decision-table .gt-empty").is_displayed()


def test_keys_select_decisions(page: Page, decisions: pl.DataFrame) -> None:
    trades = decisions.filter(pl.col("orders").list.len() > 0)["index"].to_list()
    failed = decisions.filter(pl.col("provenance") != "model")["index"].to_list()
    start = page.shown
    for key, expected in (
        ("j", start + 1), ("j", start + 2), ("k", start + 1), ("\ue014", start + 2), ("\ue012", start + 1),
        ("n", next(i for i in trades if i > start + 1)), ("p", max(i for i in trades if i <= start)),
        ("f", next(i for i in failed if i > start)),
    ):  # fmt: skip
        page.key(key)
        page.wait_for_detail(expected)
    assert page.js("return document.querySelector('#decision-table .selected').dataset.position") == str(page.shown)
    assert page.js("return location.hash") == f"#d={page.shown}"
    page.key("/")
    page.key("j")
    assert page.js("return document.getElementById('search').value") == "j"


def test_trades_and_failed_replies_lead_to_their_decision(page: Page, run: Path, decisions: pl.DataFrame) -> None:
    for table, index in (
        ("failed-table", decisions.filter(pl.col("provenance") != "model")["index"][1]),
        ("trade-table", decisions.filter(pl.col("fills").list.len() > 0)["index"][1]),
    ):
        page.wait(lambda table=table: page.js(f"return document.querySelector('#{table} [data-position=\"1\"]')"))
        page.js(f"document.querySelector('#{table} [data-position=\"1\"]').click()")
        page.wait_for_detail(index)


def test_a_link_to_a_decision_opens_it(page: Page, run: Path) -> None:
    page.open(run / "report.html", "#d=333")
    page.wait_for_detail(333)


def test_light_and_dark_at_the_sizes_of_laptops(page: Page) -> None:
    def background() -> str:
        return str(page.js("return getComputedStyle(document.body).backgroundColor"))

    light = background()
    page.key("t")
    dark = background()
    assert sum(map(int, light[4:-1].split(","))) > 600 > 200 > sum(map(int, dark[4:-1].split(",")))
    for width, height in ((1280, 800), (1440, 900), (1024, 768)):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert page.js("return document.documentElement.scrollWidth") <= width
        assert page.js("return document.getElementById('chart').clientHeight") > 250
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.key("t")
    assert background() == light


def test_it_follows_the_colour_scheme_of_the_system(page: Page, run: Path) -> None:
    page.js("localStorage.clear()")
    for scheme in ("dark", "light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page.open(run / "report.html")
        assert page.js("return document.documentElement.dataset.theme") == scheme
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_single_file_opens_anywhere(page: Page, run: Path, tmp_path: Path) -> None:
    page.open(write_report(run, single_file=True, out=tmp_path / "one.html"))
    assert page.js("return document.querySelectorAll('#chart .main-svg').length") > 0


def test_without_plotly_the_page_shows_a_message_and_the_rest_works(browser: Page, run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "report.html", tmp_path / "sent.html")
    browser.open(tmp_path / "sent.html")
    assert "--single-file" in browser.js("return document.getElementById('chart').textContent")
    browser.key("j")
    assert browser.wait(lambda: browser.js("return document.querySelector('#detail pre.message')"))
    assert len(browser.errors()) == 1


def test_a_run_that_decided_nothing_opens(browser: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path, 4)
    decisions = pl.read_parquet(run / "decisions.parquet")
    decisions.head(0).write_parquet(run / "decisions.parquet")
    browser.open(write_report(run))
    assert browser.errors() == []


@pytest.fixture(scope="module")
def portfolio_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_portfolio_run(tmp_path_factory.mktemp("many"), symbols=14, bars=480, uses_model=True)
    write_report(run)
    return run


@pytest.fixture
def portfolio_page(browser: Page, portfolio_run: Path) -> Iterator[Page]:
    """The report of a run over several symbols, freshly opened; after every test its console must be empty."""
    browser.open(portfolio_run / "report.html")
    yield browser
    assert browser.errors() == []


def shown_candles(page: Page, symbol: str) -> dict[str, Any]:
    """The candles in the chart and its marks, once they are those of the symbol."""
    page.wait(lambda: page.js("return document.getElementById('chart').data[0].name") == symbol)
    found: dict[str, Any] = page.js(
        """
        const [bars, ...others] = document.getElementById("chart").data;
        const marks = others.filter((trace) => trace.customdata).map(({ name, x, y }) => [name, { x, y }]);
        return { x: bars.x, close: bars.close, ...Object.fromEntries(marks) };
        """
    )
    return found


def test_the_selector_shows_the_candles_and_fills_of_a_symbol(portfolio_page: Page, portfolio_run: Path) -> None:
    page, run = portfolio_page, load_run(portfolio_run)
    names = run.market["symbol"].unique().sort().to_list()
    before = page.js("return window.__inflated")
    for at, symbol in enumerate(names[:4]):
        page.js(
            "const s = document.getElementById('symbol'); s.value = arguments[0]; s.dispatchEvent(new Event('input'));",
            str(at),
        )
        shown = shown_candles(page, symbol)
        bars = run.market.filter(pl.col("symbol") == symbol).sort("close_time")
        step = int(shown["x"][1] - shown["x"][0])
        expected = bars.group_by_dynamic("open_time", every=f"{step}ms").agg(pl.col("close").last())
        closes = dict(zip(expected["open_time"].to_physical().to_list(), expected["close"].to_list(), strict=True))
        for x, close in list(zip(shown["x"], shown["close"], strict=True))[:-1]:
            assert close == pytest.approx(closes[int(x - step / 2) * 1000], rel=1e-9)
        for side, sign in (("BUY", 1), ("SELL", -1)):
            fills = run.fills.filter((pl.col("symbol") == symbol) & (sign * pl.col("quantity") > 0))
            assert shown[side]["y"] == pytest.approx(fills["price"].to_list())
            assert [x * 1000 for x in shown[side]["x"]] == fills["time"].to_physical().to_list()
    assert page.js("return window.__inflated") <= before + 4


def test_keys_reach_every_symbol(portfolio_page: Page, portfolio_run: Path) -> None:
    page = portfolio_page
    names = load_run(portfolio_run).market["symbol"].unique().sort().to_list()
    at = int(page.js("return document.getElementById('symbol').value"))
    for key, step in (("]", 1), ("]", 2), ("[", 1)):
        page.key(key)
        shown_candles(page, names[(at + step) % len(names)])
    page.js("document.getElementById('symbol').focus()")
    page.js("document.getElementById('symbol').value = '3'")
    page.key("\ue015")
    shown_candles(page, names[4])
    assert f"&s={names[4]}" in page.js("return location.hash")
    page.open(portfolio_run / "report.html", f"#d=2&s={names[6]}")
    page.wait_for_detail(2)
    shown_candles(page, names[6])


def test_the_portfolio_charts_are_drawn_when_visible(portfolio_page: Page, portfolio_run: Path) -> None:
    page, rebalances = portfolio_page, pl.read_parquet(portfolio_run / "rebalances.parquet")
    for name in ("holdings", "exposure", "legs", "turnover"):
        page.js(f"document.getElementById('{name}-chart').scrollIntoView()")
        page.wait(lambda name=name: page.js(f"return document.querySelector('#{name}-chart .main-svg') !== null"))
    areas = page.js(
        "return document.getElementById('holdings-chart').data.filter((trace) => trace.stackgroup)"
        ".map(({ stackgroup, y }) => [stackgroup, y])"
    )
    for side in ("long", "short"):
        stacked = [sum(shares) for shares in zip(*(y for group, y in areas if group == side), strict=True)]
        assert stacked[: len(rebalances)] == pytest.approx(rebalances[side].to_list(), abs=1e-4)
    bars = page.js("return document.getElementById('turnover-chart').data[0].y")
    assert bars == pytest.approx(rebalances["turnover"].to_list(), abs=1e-4)
    background = page.js("return document.getElementById('holdings-chart').data[0].fillcolor")
    page.key("t")
    page.wait(lambda: page.js("return document.getElementById('holdings-chart').data[0].fillcolor") != background)
    page.key("t")
    for width in (1280, 1024):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.wait(lambda width=width: page.js("return document.documentElement.scrollWidth") <= width)
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_symbol_in_a_table_leads_to_its_candles(portfolio_page: Page, portfolio_run: Path) -> None:
    page = portfolio_page
    symbol = pl.read_parquet(portfolio_run / "attribution.parquet").sort("pnl")["symbol"][0]
    page.js("document.querySelector('#attribution-table tbody tr:last-child button').click()")
    shown_candles(page, symbol)
    page.wait(lambda: page.js("return document.querySelector('#trade-table [data-position=\"3\"]')"))
    page.js("document.querySelector('#trade-table [data-position=\"3\"]').click()")
    fill = load_run(portfolio_run).fills.row(3, named=True)
    shown_candles(page, fill["symbol"])
    index = load_run(portfolio_run).decisions.filter(pl.col("time") <= fill["time"])["index"][-1]
    page.wait_for_detail(index)


def test_a_decision_over_several_symbols_shows_targets_orders_and_cuts(
    portfolio_page: Page, portfolio_run: Path
) -> None:
    page, decisions = portfolio_page, load_run(portfolio_run).decisions
    row = decisions.filter(pl.col("risk_cuts").list.len() > 0).row(0, named=True)
    page.click(f"#decision-table [data-position='{row['index']}']")
    page.wait_for_detail(row["index"])
    text = page.js("return document.getElementById('detail').textContent")
    cut = row["risk_cuts"][0]
    assert f"{cut['symbol'].removesuffix('USDT')} clipped: max_position" in text
    line = page.js(f"return document.querySelector('#decision-table [data-position=\"{row['index']}\"]').textContent")
    largest = max(row["targets"], key=lambda target: target["share"])
    assert f"+{largest['symbol'].removesuffix('USDT')} {100 * largest['share']:.1f}%" in line
    assert f"▲{sum(order['quantity'] > 0 for order in row['orders'])} " in line
    failed = decisions.filter(pl.col("provenance") == "invalid")["index"].to_list()
    page.js("document.getElementById('only-failed').click()")
    assert page.js("return document.getElementById('filter-count').textContent").startswith(f"{len(failed)} of ")
    assert page.js("return chart.data.find((trace) => trace.name === 'failed').customdata") == failed


def test_a_rule_over_one_symbol_shows_what_its_targets_ordered(browser: Page, tmp_path: Path) -> None:
    """No model: no prompt, no reply, no filter by provenance; unchanged decisions are counted."""
    run = make_rule_run(tmp_path, 40, unchanged=1234)
    browser.open(write_report(run))
    bought = load_run(run).decisions.filter(pl.col("orders").list.len() > 0).row(0, named=True)
    assert browser.shown == bought["index"]
    text = browser.js("return document.body.innerText")
    assert f"BUY → {100 * bought['targets'][0]['share']:.0f}%" in text
    assert "40 decisions, 1,234 unchanged" in text
    for words in ("Raw reply", "Prompt", "provenance", "Failed replies", "Telemetry"):
        assert words not in text.replace("Provenance", "")
    for missing in ("symbol", "portfolio", "attribution", "failed", "model", "filter-source"):
        assert browser.js("return document.getElementById(arguments[0])", missing) is None
    assert browser.js("return chart.data.find((trace) => trace.name === 'BUY').x.length") > 0
    assert browser.errors() == []
