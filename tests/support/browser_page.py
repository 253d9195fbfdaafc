"""A headless Chromium with a report open in it, for the tests of pages."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--force-prefers-reduced-motion",
    "--window-size=1280,800",
)  # fmt: skip

COUNT_INFLATIONS = """
window.__inflated = 0;
const Original = DecompressionStream;
window.DecompressionStream = class { constructor(kind) { window.__inflated += 1; return new Original(kind); } };
"""


class Page:
    """A browser with a report open."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open(self, path: Path, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(path.as_uri() + fragment)
        self.wait(lambda: self.js("return window.__ready || window.__failed"))
        assert self.js("return window.__failed ?? null") is None
        assert self.js("return window.scrollY") == 0 or fragment, "what stands on top is seen first"
        self.js("document.getElementById('decisions').scrollIntoView()")

    def wait(self, condition: Callable[[], Any]) -> Any:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(f"the page did not come to it; its log: {self.driver.get_log('browser')}")

    def wait_for_detail(self, index: int) -> None:
        self.wait(lambda: self.js("return document.getElementById('detail-body').dataset.index") == str(index))

    def key(self, key: str) -> None:
        self.driver.switch_to.active_element.send_keys(key)

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def shown(self) -> int:
        return int(self.js("return document.getElementById('detail-body').dataset.index"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with chromedriver; on Debian: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    session.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNT_INFLATIONS})
    yield Page(session)
    session.quit()
