"""Fixtures for every test, and a guard: no test reaches an address outside this machine."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from browser_page import browser  # noqa: F401 - a fixture for every test
from hypothesis import HealthCheck, settings

LOCAL = {"127.0.0.1", "::1", "localhost"}


# How long an example takes depends on the machine, and fails no test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples every time, so that a change is told from chance; `make verify` draws new ones.
settings.register_profile("repeatable", settings.get_profile("untimed"), derandomize=True)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("untimed" if config.getoption("-m") == "verify" else "repeatable")
    # A shell starts jobs in the background with SIGINT ignored, which the processes that tests start would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trace no property tests for coverage: drawing examples takes twice as long, to reach what other tests reach."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("no_cover")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that does not stay on this machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise AssertionError(f"a test tried to reach {address[0]}")

    def guarded(self: socket.socket, address: Any) -> None:
        check(address)
        return connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)


@pytest.fixture
def market_data() -> Path:
    """The real exchange data beside the checkout; tests without it are skipped with the reason."""
    default = Path(__file__).parents[2] / "shared" / "market"
    path = Path(os.environ.get("AGENT_BT_MARKET_DATA", default))
    if not (path / "archive").is_dir():
        pytest.skip(f"no real market data at {path}; set AGENT_BT_MARKET_DATA")
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under AGENT_BT_REQUIRE_ALL=1 a real-data or browser test that would be skipped fails, with the reason."""
    report = yield
    needs = [mark for mark in ("market", "browser") if item.get_closest_marker(mark)]
    if report.skipped and not hasattr(report, "wasxfail") and needs and os.environ.get("AGENT_BT_REQUIRE_ALL") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a {needs[0]} test may not be skipped under AGENT_BT_REQUIRE_ALL=1: {reason}"
    return report
