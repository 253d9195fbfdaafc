"""The exchange's REST endpoint: minutes and settlements that no archive has (yet), page by page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import ArchiveError
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.klines import parse_rows
from agent_bt.data.settlements import FUNDING_SCHEMA, parse_funding_rows
from agent_bt.data.spans import Span
from agent_bt.data.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What differs between the markets of the exchange.

    `path` of the klines; `page`: most rows of one answer; `weight_limit`: what an address may use in a minute, which
    the endpoint reports in its headers (a page weighs 2 on the spot market, 10 on the other).
    """

    path: str
    page: int
    weight_limit: int


ENDPOINTS = {
    "spot": Endpoint(path="/api/v3/klines", page=1000, weight_limit=6000),
    "um": Endpoint(path="/fapi/v1/klines", page=1500, weight_limit=2400),
}
FUNDING_PATH = "/fapi/v1/fundingRate"
FUNDING_PAGE = 1000

_USED = "x-mbx-used-weight-1m"
_COURTESY = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRows:
    """All bars, or all settlements, that the endpoint has in a span, and what was odd about them."""

    frame: pl.DataFrame
    pages: int
    notes: dict[str, int]


class Rest:
    """The endpoints of one kind of market behind a base URL."""

    def __init__(
        self, base_url: str, transport: Transport, kind: str = "spot", *, clock: Callable[[], float] = time.time
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.page = ENDPOINTS[kind].page
        self._endpoint = ENDPOINTS[kind]
        self._transport = transport
        self._clock = clock

    def fetch(self, symbol: str, span: Span) -> RestRows:
        """The minute bars that open in `span`, as far as the exchange has them.

        Raises:
            ArchiveError: an answer is not what it should be, twice.
            Unreachable, Banned, DataError: see `Transport.get`.
        """
        frames, notes, pages, start = [STORE_SCHEMA.to_frame()], dict[str, int](), 0, span.start
        while start < span.end:
            query = _query(symbol, start, span.end, interval="1m")
            rows = self._ask(self._endpoint.path, query, self.page)
            pages += 1
            if rows:
                klines = parse_rows(rows, Span(start, span.end), f"{self.base_url}: page from {start // 1000} ms")
                frames.append(klines.frame)
                notes = {key: notes.get(key, 0) + klines.notes.get(key, 0) for key in notes | klines.notes}
            if len(rows) < self.page:
                break
            start = int(frames[-1]["open_time"].cast(pl.Int64)[-1]) + MINUTE
        return RestRows(frame=pl.concat(frames), pages=pages, notes=notes)

    def fetch_funding(self, symbol: str, span: Span) -> RestRows:
        """The settlements in `span`, columns of `FUNDING_SCHEMA`.

        Raises:
            ArchiveError: an answer is not what it should be, twice.
            Unreachable, Banned, DataError: see `Transport.get`.
        """
        frames, pages, start = [FUNDING_SCHEMA.to_frame()], 0, span.start
        while start < span.end:
            rows = self._ask(FUNDING_PATH, _query(symbol, start, span.end), FUNDING_PAGE)
            pages += 1
            if rows:
                name = f"{self.base_url}: page of funding from {start // 1000} ms"
                frames.append(parse_funding_rows(rows, symbol, Span(start, span.end), name))
            if len(rows) < FUNDING_PAGE:
                break
            start = int(frames[-1]["funding_time"].cast(pl.Int64)[-1]) + MINUTE
        return RestRows(frame=pl.concat(frames), pages=pages, notes={})

    def _ask(self, path: str, query: dict[str, str | int], limit: int) -> list[Any]:
        for _ in range(2):
            answer = self._transport.get(f"{self.base_url}{path}", {**query, "limit": limit})
            if answer is None:
                break
            self._spare(answer.headers.get(_USED, ""))
            try:
                rows = orjson.loads(answer.body)
            except orjson.JSONDecodeError:
                continue
            if isinstance(rows, list) and len(rows) <= limit:
                return rows
        what = "klines" if path == self._endpoint.path else "settlements"
        raise ArchiveError(f"{self.base_url}{path}: the answer is not a page of {what}; is this the endpoint?")

    def _spare(self, used: str) -> None:
        # The count starts anew with each minute of the clock.
        if used.isdigit() and int(used) >= _COURTESY * self._endpoint.weight_limit:
            self._transport.pause(60.0 - self._clock() % 60.0)


def _query(symbol: str, start: int, end: int, **more: str) -> dict[str, str | int]:
    return {"symbol": symbol, **more, "startTime": start // 1000, "endTime": end // 1000 - 1}
