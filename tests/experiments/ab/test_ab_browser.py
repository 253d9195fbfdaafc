"""The A/B report in headless Chromium: what is clicked is what is shown, and the filters leave what they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ab_runs import NASTY, NASTY_ROW, make_experiment
from browser_page import Page

from agent_bt.experiments.ab.report import write_ab_report

pytestmark = pytest.mark.browser

DECISIONS, ARMS, REPLICATES = 300, 3, 3
LANES = [(arm, replicate) for arm in range(ARMS) for replicate in range(REPLICATES)]
ROW = "#matrix .mx-row[data-row='{}']"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_experiment(tmp_path_factory.mktemp("runs"), DECISIONS, arms=ARMS, replicates=REPLICATES, rows=8)
    write_ab_report(folder)
    return folder


@pytest.fixture(scope="module")
def rows(experiment: Path) -> list[list[dict[str, Any] | None]]:
    """The record behind every cell of the matrix, read from the runs."""
    tables = [
        pl.read_parquet(next(experiment.glob(f"runs/v{arm + 1}/w0-r{replicate}/*/decisions.parquet")))
        for arm, replicate in LANES
    ]
    lanes = [{row["index"]: row for row in table.to_dicts()} for table in tables]
    return [[lane.get(index) for lane in lanes] for index in range(DECISIONS)]


@pytest.fixture
def page(browser: Page, experiment: Path) -> Iterator[Page]:
    """The report, freshly opened; after every test its console must be empty."""
    browser.open(experiment / "report.html")
    yield browser
    assert browser.errors() == []


def show(page: Page, row: int, lane: int) -> None:
    """Scroll the matrix to a row, click a cell of it, and wait for the drawer."""
    page.js("document.querySelector('.mx-body').scrollTop = arguments[0] * 24 - 100", row)
    page.wait(lambda: page.js(f'return document.querySelector("{ROW.format(row)}")'))
    page.js(f"document.querySelector(\"{ROW.format(row)} [data-lane='{lane}']\").click()")
    page.wait(lambda: str(shown(page)).startswith(f"{row}:"))


def shown(page: Page) -> str:
    """`row:left:right` of the drawer."""
    return str(page.js("return document.getElementById('drawer-body').dataset.cell ?? ''"))


def wait_for(page: Page, row: int) -> None:
    page.wait(lambda: shown(page).startswith(f"{row}:"))


def count(page: Page) -> int:
    return int(page.js("return document.getElementById('filter-count').textContent").split()[0].replace(",", ""))


def choose(page: Page, control: str, value: str | bool) -> None:
    page.js(
        "const e = document.getElementById(arguments[0]);"
        "if (e.type === 'checkbox') e.checked = arguments[1]; else e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', { bubbles: true }));",
        control,
        value,
    )


def side(record: dict[str, Any] | None) -> str | None:
    return None if record is None else str(record["action"])


def paired(cells: list[dict[str, Any] | None], arms: tuple[int, ...] = (0, 1, 2)) -> bool:
    """Whether two arms did something else in the same replicate."""
    for replicate in range(REPLICATES):
        sides = {side(cells[LANES.index((arm, replicate))]) for arm in arms} - {None}
        if len(sides) > 1:
            return True
    return False


def majority(cells: list[dict[str, Any] | None]) -> bool:
    """Whether two arms have majorities that are not the same."""
    tops = set()
    for arm in range(ARMS):
        sides = [side(cells[LANES.index((arm, replicate))]) for replicate in range(REPLICATES)]
        known = [each for each in sides if each]
        best = [each for each in set(known) if all(known.count(each) > known.count(o) for o in set(known) - {each})]
        tops |= set(best)
    return len(tops) > 1


def noise(cells: list[dict[str, Any] | None]) -> bool:
    """Whether the replicates of some arm are not of one mind."""
    groups = [{side(cells[LANES.index((arm, r))]) for r in range(REPLICATES)} - {None} for arm in range(ARMS)]
    return any(len(group) > 1 for group in groups)


def test_it_opens_on_the_first_difference_and_fetches_nothing(page: Page, rows: list[Any]) -> None:
    first = next(at for at, cells in enumerate(rows) if paired(cells))
    assert shown(page).startswith(f"{first}:")
    resources = page.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in resources if not name.startswith(("file:", "blob:", "data:"))] == []
    page.js("document.getElementById('growth').scrollIntoView()")
    page.wait(lambda: page.js("return document.querySelectorAll('#bands .main-svg').length"))


def test_a_cell_opens_its_decision_beside_the_baselines(page: Page, rows: list[Any]) -> None:
    for row, lane in ((NASTY_ROW, 4), (120, 3), (299, 8)):
        show(page, row, lane)
        partner = LANES.index((0, LANES[lane][1]))
        assert shown(page) == f"{row}:{partner}:{lane}"
        replies = page.js("return [...document.querySelectorAll('#drawer pre.reply')].map((pre) => pre.textContent)")
        assert replies == [rows[row][partner]["reply"], rows[row][lane]["reply"]]
        notes = page.js("return [...document.querySelectorAll('#drawer .detail-note')].map((p) => p.textContent)")
        assert notes[-1] == rows[row][lane]["note"]
    assert NASTY in rows[NASTY_ROW][4]["reply"]
    assert page.js("return window.__pwned ?? null") is None
    assert page.js("return document.querySelectorAll('img, main script, iframe').length") == 0


def test_whole_prompts_side_by_side_are_the_exact_messages(page: Page, rows: list[Any]) -> None:
    show(page, 40, 5)
    assert "differ" in page.js("return document.querySelector('.with-button .hint').textContent")
    page.js("document.activeElement.blur()")
    page.key("w")
    page.wait(lambda: not page.js("return document.querySelectorAll('#drawer .fold').length"))
    for at, lane in ((1, 2), (2, 5)):
        texts = page.js(
            "return [...document.querySelectorAll('#drawer .diff')].map((diff) =>"
            " [...diff.children].filter((line, n) => n % 2 === arguments[0] - 1 && !line.classList.contains('none'))"
            ".map((line) => line.textContent).join('\\n'))",
            at,
        )
        assert texts == [message["content"] for message in rows[40][lane]["messages"]]
    marked = page.js("return [...document.querySelectorAll('#drawer .diff .new')].map((line) => line.textContent)")
    assert "momentum: up" in marked


def test_equal_prompts_are_called_the_models_noise(page: Page, rows: list[Any]) -> None:
    row = next(at for at, cells in enumerate(rows) if at > 20 and cells[0]["messages"] == cells[1]["messages"])
    show(page, row, 0)
    choose(page, "right-side", "1")
    page.wait(lambda: shown(page) == f"{row}:0:1")
    assert "identical" in page.js("return document.querySelector('.with-button .hint').textContent")


def test_filters_leave_what_they_say(page: Page, rows: list[Any]) -> None:
    assert count(page) == DECISIONS
    choose(page, "only-different", True)
    for way, differs in (("paired", paired), ("majority", majority), ("noise", noise)):
        choose(page, "difference", way)
        assert count(page) == sum(map(differs, rows)) > 0
        signs = page.js(
            "return [...document.querySelectorAll('.mx-row')].map((row) => row.classList.contains('differs'))"
        )
        assert signs
        assert all(signs)
        assert len(signs) < 80
    choose(page, "difference", "paired")
    page.click("#arms button:nth-child(3)")
    assert count(page) == sum(paired(cells, (0, 1)) for cells in rows)
    assert page.js("return document.querySelectorAll('.mx-row [data-lane=\"8\"]').length") == 0


def test_by_arm_there_is_one_column_an_arm_with_its_majority(page: Page, rows: list[Any]) -> None:
    page.js("document.activeElement.blur()")
    page.key("a")
    page.js("document.querySelector('.mx-body').scrollTop = 0")
    for row in range(12):
        cells = page.js(f'return [...document.querySelectorAll("{ROW.format(row)} .mx-cell")].map((c) => c.className)')
        assert len(cells) == ARMS
        for arm, classes in enumerate(cells):
            known = [side(rows[row][LANES.index((arm, r))]) for r in range(REPLICATES)]
            sides = sorted(({each: known.count(each) for each in known if each}).items(), key=lambda item: -item[1])
            tie = len(sides) > 1 and sides[0][1] == sides[1][1]
            expected = "none" if not sides else "split" if tie else sides[0][0]
            assert expected in classes.split()


def test_the_keyboard_goes_from_difference_to_difference(page: Page, rows: list[Any]) -> None:
    differing = [at for at, cells in enumerate(rows) if paired(cells)]
    page.js("document.activeElement.blur()")
    for key, expected in (("n", differing[1]), ("n", differing[2]), ("p", differing[1]), ("j", differing[1] + 1),
                          ("k", differing[1])):  # fmt: skip
        page.key(key)
        wait_for(page, expected)
    row, left, right = map(int, shown(page).split(":"))
    page.key("n")
    wait_for(page, differing[2])
    row, left, right = map(int, shown(page).split(":"))
    assert side(rows[row][left]) != side(rows[row][right])
    assert page.js("return location.hash") == f"#t={row}&c={right}"
    page.key("\ue00c")
    assert not page.driver.find_element("id", "drawer").is_displayed()
    page.key("d")
    assert count(page) == len(differing)


def test_a_flip_shows_its_decisions(page: Page, rows: list[Any]) -> None:
    arm, base, other = 1, "BUY", "HOLD"
    expected = [
        at
        for at, cells in enumerate(rows)
        if any(
            (side(cells[LANES.index((0, r))]), side(cells[LANES.index((arm, r))])) == (base, other)
            for r in range(REPLICATES)
        )
    ]
    page.js("document.querySelector('[data-flip=\"1,0,2\"]').click()")
    wait_for(page, expected[0])
    assert count(page) == len(expected)
    row, left, right = map(int, shown(page).split(":"))
    assert (LANES[left][0], LANES[right][0]) == (0, arm)
    assert (side(rows[row][left]), side(rows[row][right])) == (base, other)
    page.js("document.getElementById('flip-chip').click()")
    assert count(page) == DECISIONS


def test_only_the_rows_in_view_exist_and_only_the_chunk_in_view_is_decoded(page: Page) -> None:
    assert page.js("return document.querySelectorAll('.mx-row').length") < 80
    page.wait(lambda: page.js("return window.__drawn"))
    assert page.js("return window.__inflated") == 4  # index, bands, prompts and one chunk of ten
    assert page.js("return document.querySelectorAll('script[id^=chunk-]').length") == 10


def test_a_link_to_a_cell_opens_it(page: Page, experiment: Path) -> None:
    page.open(experiment / "report.html", "#t=222&c=7")
    page.wait(lambda: shown(page) == "222:1:7")


def test_the_prompts_of_two_arms_are_compared_line_by_line(page: Page) -> None:
    assert page.js("return document.getElementById('prompt-count').textContent").startswith("1 of")
    lines = page.js("return [...document.querySelectorAll('#prompt-diff .new')].map((line) => line.textContent)")
    assert lines == ["Mind the momentum."]
    choose(page, "prompt-left", "1")
    assert page.js("return document.getElementById('prompt-count').textContent") == "the same text"


def test_light_and_dark_and_the_sizes_of_laptops(page: Page) -> None:
    colours = set()
    for width, theme in itertools.product((1280, 1440, 1024), ("light", "dark")):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        if page.js("return document.documentElement.dataset.theme") != theme:
            page.js("document.getElementById('theme-button').click()")
        colours.add(page.js("return getComputedStyle(document.body).backgroundColor"))
        assert page.js("return document.documentElement.scrollWidth") <= width
        assert page.js("return document.querySelector('.mx-body').clientHeight") > 250
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.js("localStorage.clear()")
    assert len(colours) == 2


def test_a_single_file_opens_anywhere(page: Page, experiment: Path, tmp_path: Path) -> None:
    page.open(write_ab_report(experiment, single_file=True, out=tmp_path / "one.html"))
    page.wait(lambda: page.js("return window.__drawn"))
    assert page.js("return document.querySelectorAll('#bands .main-svg').length") > 0


def test_one_replicate_and_two_arms_open_without_what_needs_more(browser: Page, tmp_path: Path) -> None:
    browser.open(write_ab_report(make_experiment(tmp_path, 20, arms=2, replicates=1, rows=2)))
    assert browser.js("return document.getElementById('collapse')") is None
    assert browser.js("return document.querySelectorAll('#difference option').length") == 1
    assert browser.js("return document.querySelectorAll('.mx-row').length") == 20
    assert browser.errors() == []
