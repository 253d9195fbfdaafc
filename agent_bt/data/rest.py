"""Download minute bars and settlements that no archive has (yet) from an exchange's REST API, page by page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import ArchiveError
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.exchange import Exchange, exchange_of
from agent_bt.data.klines import parse_rows
from agent_bt.data.settlements import FUNDING_SCHEMA, parse_funding_rows
from agent_bt.data.spans import Span
from agent_bt.data.transport import Transport

FUNDING_PATH = "/fapi/v1/fundingRate"
FUNDING_PAGE = 1000

_MAX_USED_FRACTION = 0.8
"""Fraction of the request weight of a minute above which requests pause until the next minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRows:
    """All bars, or all settlements, that the endpoint has in a span.

    Attributes:
        frame: columns of `STORE_SCHEMA`, or of `FUNDING_SCHEMA`, sorted by time.
        pages: number of pages that were requested.
        notes: kind of irregularity -> number of rows; see `data.klines.normalise`.
    """

    frame: pl.DataFrame
    pages: int
    notes: dict[str, int]


class Rest:
    """Read the REST endpoints of one kind of market."""

    def __init__(
        self,
        base_url: str,
        transport: Transport,
        kind: str = "spot",
        exchange: Exchange | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the endpoints of a kind of market.

        Args:
            base_url: http(s):// URL that the paths of the exchange are below.
            transport: sends the requests.
            kind: `spot` or `um`; default `spot`.
            exchange: the exchange of the endpoints; default: Binance.
            clock: returns seconds since 1970; default: the system clock.

        Raises:
            ConfigError: the exchange has no REST API for this kind of market.
        """
        self.base_url = base_url.rstrip("/")
        self._exchange = exchange or exchange_of("binance")
        self._endpoint = self._exchange.rest(kind)
        self.page = self._endpoint.page
        self._transport = transport
        self._clock = clock

    def fetch(self, symbol: str, span: Span) -> RestRows:
        """Download the minute bars that open in a span, as far as the exchange has them.

        Args:
            symbol: as the exchange writes it.
            span: UTC us, on whole minutes.

        Raises:
            ArchiveError: a response is not valid, twice.
            Unreachable, Banned, DataError: see `Transport.get`.
        """
        frames, notes, pages, start = [STORE_SCHEMA.to_frame()], dict[str, int](), 0, span.start
        while start < span.end:
            query = self._exchange.rest_query(symbol, start, span.end, self.page)
            rows = self._request(self._endpoint.path, query, self.page)
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
        """Download the settlements in a span.

        Args:
            symbol: as the exchange writes it.
            span: UTC us, on whole minutes.

        Raises:
            ArchiveError: a response is not valid, twice.
            Unreachable, Banned, DataError: see `Transport.get`.
        """
        frames, pages, start = [FUNDING_SCHEMA.to_frame()], 0, span.start
        while start < span.end:
            rows = self._request(FUNDING_PATH, _funding_query(symbol, start, span.end), FUNDING_PAGE)
            pages += 1
            if rows:
                name = f"{self.base_url}: page of funding from {start // 1000} ms"
                frames.append(parse_funding_rows(rows, symbol, Span(start, span.end), name))
            if len(rows) < FUNDING_PAGE:
                break
            start = int(frames[-1]["funding_time"].cast(pl.Int64)[-1]) + MINUTE
        return RestRows(frame=pl.concat(frames), pages=pages, notes={})

    def _request(self, path: str, query: dict[str, str | int], limit: int) -> Sequence[Any]:
        klines = path == self._endpoint.path
        for _ in range(2):
            response = self._transport.get(f"{self.base_url}{path}", query)
            if response is None:
                break
            self._throttle(response.headers.get(self._endpoint.used_header, "") if self._endpoint.used_header else "")
            try:
                decoded = orjson.loads(response.body)
            except orjson.JSONDecodeError:
                continue
            rows = self._exchange.rest_rows(decoded) if klines else decoded
            if isinstance(rows, list) and len(rows) <= limit:
                return rows
        rows_of = "klines" if klines else "settlements"
        raise ArchiveError(
            f"{self.base_url}{path}: the response must be a page of {rows_of}; check the URL of the endpoint"
        )

    def _throttle(self, used: str) -> None:
        # The used weight is reset with each minute of the clock.
        if used.isdigit() and int(used) >= _MAX_USED_FRACTION * self._endpoint.used_limit:
            self._transport.pause(60.0 - self._clock() % 60.0)


def _funding_query(symbol: str, start: int, end: int) -> dict[str, str | int]:
    return {"symbol": symbol, "startTime": start // 1000, "endTime": end // 1000 - 1, "limit": FUNDING_PAGE}
