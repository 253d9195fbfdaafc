"""Fixtures of the data tests: a local exchange, and the objects that a backfill from it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_exchange import FakeExchange, us

from agent_bt.data.archive import Archive
from agent_bt.data.backfill import BackfillResult, backfill
from agent_bt.data.rest import Rest
from agent_bt.data.spans import Span
from agent_bt.data.store import Store
from agent_bt.data.transport import Transport


@pytest.fixture
def exchange() -> Iterator[FakeExchange]:
    with FakeExchange().serving() as served:
        yield served


@pytest.fixture
def pauses() -> list[float]:
    """Return the list that the transport adds its waits to, in seconds, instead of waiting."""
    return []


@pytest.fixture
def transport(pauses: list[float]) -> Iterator[Transport]:
    opened = Transport(sleep=pauses.append, timeout_s=300)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data", "BTCUSDT")


@pytest.fixture
def fill(exchange: FakeExchange, store: Store, transport: Transport) -> Callable[..., BackfillResult]:
    """Return a function that backfills from the local exchange: `fill("2021-02-01", "2021-02-03")`."""

    def run(start: str, end: str, *, rest: bool = False, now: str = "2022-01-01", **options: object) -> BackfillResult:
        endpoint = Rest(exchange.url, transport) if rest else None
        archive = Archive(exchange.archive_url, transport)
        return backfill(store, [Span(us(start), us(end))], archive, endpoint, now=us(now), **options)

    return run
