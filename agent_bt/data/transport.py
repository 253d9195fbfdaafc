"""Download files from http(s):// and file:// URLs with size limits, retries and rate limits."""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from agent_bt.core.errors import DataError

logger = logging.getLogger(__name__)

MAX_DOWNLOAD = 64 * 2**20
"""Largest file that is accepted, bytes; a month of one-minute bars is 2 to 3 MB."""

LONGEST_WAIT_S = 120.0
"""A host whose Retry-After is longer than this is not contacted again by the same transport."""


class Unreachable(DataError):
    """The server could not be reached, or failed at every attempt."""


class Banned(DataError):
    """The server banned this IP address (HTTP 418) or demands a long wait; no more requests are sent to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A complete response.

    Attributes:
        body: the whole content.
        headers: response headers; empty for files.
    """

    body: bytes
    headers: Mapping[str, str]


class Transport:
    """Download complete responses; thread-safe.

    Retried with exponential backoff: broken and refused connections, time-outs, HTTP 429 (after Retry-After) and 5xx.
    A host that cannot be reached, or bans this address, is not contacted again by this transport.
    """

    def __init__(
        self, *, retries: int = 4, timeout_s: float = 15.0, sleep: Callable[[float], object] | None = None
    ) -> None:
        """Create a transport; connections are opened on first use.

        Args:
            retries: number of retries of a request; default 4.
            timeout_s: time-out of connecting, and of each read, seconds; default 15.
            sleep: waits for a number of seconds; default: until then, or until `cancel`.
        """
        self._retries = retries
        self._cancelled = threading.Event()
        self._sleep = sleep or self._cancelled.wait
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._timeout_s = timeout_s
        self._given_up: dict[str, DataError] = {}

    def get(self, url: str, params: Mapping[str, str | int] | None = None) -> Response | None:
        """Download `url`; return None if the server has no such file (404).

        Args:
            url: an http://, https:// or file:// URL.
            params: query parameters; default: none.

        Raises:
            Unreachable: no complete response after all retries.
            Banned: the server banned this address, or demands a long wait.
            DataError: the server rejects the request, the response is too large, or the URL is not valid.
        """
        parts = urlsplit(url)
        if parts.scheme == "file":
            return _read_file(Path(unquote(parts.path)))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise DataError(f"a URL must begin with http://, https:// or file:///, got {url!r}")
        problem = ""
        for attempt in range(self._retries + 1):
            if self._cancelled.is_set():
                raise Unreachable(f"{url}: stopped")
            if parts.netloc in self._given_up:
                raise self._given_up[parts.netloc]
            pause = min(0.5 * 2**attempt, 8.0) * random.uniform(0.75, 1.25)
            connected = True
            try:
                with self._http().stream("GET", url, params=params) as response:
                    status = response.status_code
                    logger.debug("GET %s: HTTP %d", _loggable(url), status)
                    if status == 200:
                        return Response(body=_read_capped(response, url), headers=dict(response.headers))
                    if status == 404:
                        return None
                    problem, wait = f"HTTP {status}", _retry_after_s(response)
                    if status == 418 or (status in (429, 503) and wait is not None and wait > LONGEST_WAIT_S):
                        raise self._give_up(parts.netloc, _ban(parts.netloc, status, wait))
                    if status != 429 and status < 500:
                        raise DataError(f"{url}: HTTP {status}: {_excerpt(response)}")
                    pause = pause if wait is None else wait
            except httpx.HTTPError as error:
                connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if attempt < self._retries:
                logger.info("GET %s: %s; again in %.1f s", _loggable(url), problem, pause)
                self._sleep(pause)
        if not connected:
            raise self._give_up(parts.netloc, Unreachable(f"{parts.netloc} cannot be reached ({problem})"))
        raise Unreachable(f"{url}: {problem}, in each of {self._retries + 1} attempts")

    def cancel(self) -> None:
        """Interrupt all waits; every later call fails immediately."""
        self._cancelled.set()

    def close(self) -> None:
        """Close all connections; idempotent."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def pause(self, seconds: float) -> None:
        """Wait for `seconds` with the `sleep` of this transport."""
        self._sleep(seconds)

    def _http(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(verify=_tls(), timeout=self._timeout_s, follow_redirects=True)
            return self._client

    def _give_up(self, host: str, error: DataError) -> DataError:
        # Hundreds of files may be requested from this host: one attempt for all of them is enough.
        self._given_up[host] = error
        return error


def _loggable(url: str) -> str:
    """Return the URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # Loading all root certificates takes longer than most requests.
    return httpx.create_ssl_context()


def _ban(host: str, status: int, wait: float | None) -> Banned:
    until = "some minutes" if wait is None else f"{wait:.0f} s"
    return Banned(f"{host} banned or throttled this address (HTTP {status}); wait {until}, then run the command again")


def _read_file(path: Path) -> Response | None:
    try:
        if path.stat().st_size > MAX_DOWNLOAD:
            raise DataError(f"{path}: must be at most {MAX_DOWNLOAD >> 20} MiB; check that it is a file of the archive")
        return Response(body=path.read_bytes(), headers={})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _read_capped(response: httpx.Response, url: str) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_DOWNLOAD:
            raise DataError(f"{url}: must be at most {MAX_DOWNLOAD >> 20} MiB; check that it is a file of the archive")
    return bytes(body)


def _retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after")
    if text is None:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _excerpt(response: httpx.Response) -> str:
    text = b"".join(chunk for chunk, _ in zip(response.iter_bytes(300), range(1), strict=False))
    return " ".join(text.decode("utf-8", "replace").split()) or "empty response"
