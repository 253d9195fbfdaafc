"""Serve a small exchange on 127.0.0.1: an archive and a REST endpoint over real HTTP, with faults on demand."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import polars as pl

from agent_bt.core.clock import HOUR, MINUTE, time_us

Fault = Callable[[BaseHTTPRequestHandler, bytes], None]
KLINES = "/api/v3/klines"
UM_KLINES = "/fapi/v1/klines"
FUNDING = "/fapi/v1/fundingRate"


def us(text: str) -> int:
    return time_us(text)


def rows(start: str, end: str, *, unit: str = "ms", without: tuple[tuple[str, str], ...] = ()) -> pl.DataFrame:
    """Return valid rows as an exchange writes them, for every minute of [start, end) except those in `without`."""
    opened = np.arange(us(start), us(end), MINUTE)
    rng = np.random.default_rng(opened[0] // MINUTE)
    close = np.round(30_000 + np.cumsum(rng.normal(0, 5, len(opened))), 2)
    start_price = np.concatenate(([30_000.0], close[:-1]))
    volume = np.round(rng.gamma(2.0, 3.0, len(opened)) + 0.1, 5)
    taker = np.round(volume * rng.uniform(0.2, 0.8, len(opened)), 5)
    scale = 1000 if unit == "ms" else 1
    table = pl.DataFrame(
        {
            "open_time": opened // scale,
            "open": start_price,
            "high": np.round(np.maximum(start_price, close) + rng.uniform(0, 3, len(opened)), 2),
            "low": np.round(np.minimum(start_price, close) - rng.uniform(0, 3, len(opened)), 2),
            "close": close,
            "volume": volume,
            "close_time": (opened + MINUTE) // scale - 1,
            "quote": np.round(volume * close, 5),
            "trades": rng.integers(1, 500, len(opened)),
            "taker_base": taker,
            "taker_quote": np.round(taker * close, 5),
            "ignore": np.zeros(len(opened), dtype=np.int64),
        }
    )
    for first, last in without:
        table = table.filter(~pl.col("open_time").is_between(us(first) // scale, us(last) // scale, closed="left"))
    return table


def settled(start: str, end: str, *, hours: int = 8, late_ms: int = 3) -> pl.DataFrame:
    """Return settlements as an exchange writes them: every `hours` in [start, end), recorded a few ms late."""
    due = np.arange(-(-us(start) // (hours * HOUR)) * hours * HOUR, us(end), hours * HOUR)
    rng = np.random.default_rng(due[0] // HOUR)
    return pl.DataFrame(
        {
            "calc_time": due // 1000 + rng.integers(0, late_ms + 1, len(due)),
            "funding_interval_hours": np.full(len(due), hours),
            "last_funding_rate": np.round(rng.normal(0.0001, 0.0003, len(due)), 8),
        }
    )


def csv(table: pl.DataFrame, *, header: bool = False) -> bytes:
    text = io.BytesIO()
    table.write_csv(text, include_header=header)
    return text.getvalue()


def zipped(member: str, text: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as container:
        container.writestr(member, text)
    return content.getvalue()


def path_of(period: str, symbol: str = "BTCUSDT", kind: str = "spot") -> str:
    frequency = "monthly" if len(period) == 7 else "daily"
    folder = {"spot": "spot", "um": "futures/um"}[kind]
    return f"/data/{folder}/{frequency}/klines/{symbol}/1m/{symbol}-1m-{period}.zip"


def funding_path(period: str, symbol: str = "BTCUSDT") -> str:
    return f"/data/futures/um/monthly/fundingRate/{symbol}/{symbol}-fundingRate-{period}.zip"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that close the connection."""


class FakeExchange:
    """An exchange whose content can be changed while it serves; `requested` lists the requested paths in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.listed = rows("2021-02-01", "2021-02-01T00:01").clear()
        self.settled = settled("2021-02-01", "2021-02-02").clear()
        self.faults: dict[str, list[Fault]] = {}
        self.requested: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.weight = "2"
        self._server = Server(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def archive_url(self) -> str:
        return f"{self.url}/data"

    def publish(self, period: str, table: pl.DataFrame | bytes, *, header: bool = False, kind: str = "spot") -> bytes:
        """Publish a month or a day in the archive, with its checksum; bytes are the ZIP itself."""
        return self._put(path_of(period, kind=kind), table, header)

    def publish_funding(self, month: str, table: pl.DataFrame | bytes, *, header: bool = True) -> bytes:
        """Publish the settlements of a month in the archive, with their checksum."""
        return self._put(funding_path(month), table, header)

    def _put(self, path: str, table: pl.DataFrame | bytes, header: bool) -> bytes:
        name = path.rpartition("/")[2].removesuffix(".zip")
        content = table if isinstance(table, bytes) else zipped(f"{name}.csv", csv(table, header=header))
        self.files[path] = content
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"{path}.CHECKSUM"] = f"{digest}  {name}.zip\n".encode()
        return content

    def zips_requested(self) -> list[str]:
        return [path for path in self.requested if path.endswith(".zip")]

    def klines(self, query: dict[str, str]) -> bytes:
        first, last, limit = int(query["startTime"]), int(query["endTime"]), int(query["limit"])
        page = self.listed.filter(pl.col("open_time").is_between(first, last)).head(limit)
        integers = {0, 6, 8}
        answer = [[v if i in integers else str(v) for i, v in enumerate(row)] for row in page.iter_rows()]
        return json.dumps(answer).encode()

    def funding(self, query: dict[str, str]) -> bytes:
        first, last, limit = int(query["startTime"]), int(query["endTime"]), int(query["limit"])
        page = self.settled.filter(pl.col("calc_time").is_between(first, last)).head(limit)
        answer = [
            {"symbol": query["symbol"], "fundingTime": at, "fundingRate": f"{rate:.8f}", "markPrice": "30000.1"}
            for at, _, rate in page.iter_rows()
        ]
        return json.dumps(answer).encode()

    @contextmanager
    def serving(self) -> Iterator[FakeExchange]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _handler(exchange) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # otherwise every response of two packets takes 40 ms

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                exchange.requested.append(url.path)
                rest = {KLINES: exchange.klines, UM_KLINES: exchange.klines, FUNDING: exchange.funding}
                if url.path in rest:
                    query = {key: values[0] for key, values in parse_qs(url.query).items()}
                    exchange.queries.append(query)
                    body = rest[url.path](query)
                else:
                    body = exchange.files.get(url.path, b"")
                if exchange.faults.get(url.path):
                    exchange.faults[url.path].pop(0)(self, body)
                elif url.path in rest:
                    answer(self, 200, body, {"X-MBX-USED-WEIGHT-1M": exchange.weight})
                elif url.path in exchange.files:
                    answer(self, 200, body)
                else:
                    answer(self, 404, b"<Error><Code>NoSuchKey</Code></Error>")

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def answer(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def status(code: int, headers: dict[str, str] | None = None) -> Fault:
    return lambda request, _: answer(request, code, b"no", headers)


def html(request: BaseHTTPRequestHandler, _: bytes) -> None:
    answer(request, 200, b"<!DOCTYPE html><html><body>Please sign in</body></html>", {"Content-Type": "text/html"})


def cut(request: BaseHTTPRequestHandler, body: bytes) -> None:
    """Close the connection in the middle of the body."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[: len(body) // 2])
    request.close_connection = True


def short(request: BaseHTTPRequestHandler, body: bytes) -> None:
    """Send a truncated body whose Content-Length matches, so that the response looks complete."""
    answer(request, 200, body[:-100])


def flipped(request: BaseHTTPRequestHandler, body: bytes) -> None:
    """Send the body with one bit flipped."""
    answer(request, 200, body[:200] + bytes([body[200] ^ 1]) + body[201:])
