"""The exchange's REST endpoint: minutes that no archive has (yet), page by page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import polars as pl

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import ArchiveError
from agent_bt.core.schema import STORE_SCHEMA
from agent_bt.data.klines import parse_rows
from agent_bt.data.spans import Span
from agent_bt.data.transport import Transport

PAGE = 1000
"""Most rows of one answer."""

WEIGHT_LIMIT = 6000
"""What an address may use in a minute (one page weighs 2); the endpoint reports the use in its headers."""

_USED = "x-mbx-used-weight-1m"
_COURTESY = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRows:
    """All bars the endpoint has in a span, and what was odd about them."""

    frame: pl.DataFrame
    pages: int
    notes: dict[str, int]


class Rest:
    """`/api/v3/klines` behind a base URL."""

    def __init__(self, base_url: str, transport: Transport, *, clock: Callable[[], float] = time.time) -> None:
        self.base_url = base_url.rstrip("/")
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
            rows = self._page(symbol, start, span.end)
            pages += 1
            if rows:
                klines = parse_rows(rows, Span(start, span.end), f"{self.base_url}: page from {start // 1000} ms")
                frames.append(klines.frame)
                notes = {key: notes.get(key, 0) + klines.notes.get(key, 0) for key in notes | klines.notes}
            if len(rows) < PAGE:
                break
            start = int(frames[-1]["open_time"].cast(pl.Int64)[-1]) + MINUTE
        return RestRows(frame=pl.concat(frames), pages=pages, notes=notes)

    def _page(self, symbol: str, start: int, end: int) -> list[list[object]]:
        query: dict[str, str | int] = {
            "symbol": symbol,
            "interval": "1m",
            "startTime": start // 1000,
            "endTime": end // 1000 - 1,
            "limit": PAGE,
        }
        for _ in range(2):
            answer = self._transport.get(f"{self.base_url}/api/v3/klines", query)
            if answer is None:
                break
            self._spare(answer.headers.get(_USED, ""))
            try:
                rows = orjson.loads(answer.body)
            except orjson.JSONDecodeError:
                continue
            if isinstance(rows, list) and len(rows) <= PAGE:
                return rows
        raise ArchiveError(f"{self.base_url}/api/v3/klines: the answer is not a page of klines; is this the endpoint?")

    def _spare(self, used: str) -> None:
        # The count starts anew with each minute of the clock.
        if used.isdigit() and int(used) >= _COURTESY * WEIGHT_LIMIT:
            self._transport.pause(60.0 - self._clock() % 60.0)
