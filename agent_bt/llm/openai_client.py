"""A client of the OpenAI chat-completions API as an `LLM`, on an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
import orjson

from agent_bt import __version__
from agent_bt.core.errors import AuthenticationFailed, ConfigError, EndpointDown
from agent_bt.core.futures import result_of
from agent_bt.core.types import Reply, Request
from agent_bt.llm.address import NO_KEY, OPENAI_BASE_URL, endpoint_name, is_local
from agent_bt.llm.chat_response import read_answer, read_failure
from agent_bt.llm.chat_stream import join_stream
from agent_bt.llm.retry import retry_after_s

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 5.0

_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
)
"""Failures before the first byte of a request has left: nothing can have been computed."""

_PROXY_VARIABLES: Final = tuple(
    name for upper in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())
)
_TLS_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_SECRET = re.compile(r"(?i)(\bbearer\s+|\bsk-)[^\s\"',}]+")


class Limiter(Protocol):
    """Decides when a request may be sent; each one passes it once, on the client's event loop."""

    async def acquire(self) -> None:
        """Wait until one attempt may be sent."""
        ...

    def release(self, status: int | None, headers: Mapping[str, str]) -> None:
        """Report how the attempt ended.

        Args:
            status: its HTTP status; None: no response came.
            headers: of the response; lookups ignore the case of names.
        """
        ...


class FixedLimiter(Limiter):
    """A limiter with a fixed number of attempts in flight.

    Args:
        max_in_flight: the number.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._semaphore = asyncio.Semaphore(max_in_flight)

    async def acquire(self) -> None:
        """Wait until fewer attempts are in flight."""
        await self._semaphore.acquire()

    def release(self, status: int | None, headers: Mapping[str, str]) -> None:  # noqa: ARG002
        """Let the next attempt go."""
        self._semaphore.release()


class OpenAILLM:
    """A client of OpenAI, vLLM, Ollama, llama.cpp, DeepSeek, OpenRouter and every endpoint with the same API.

    The body of a request is sent as it is, once: repeating it is the work of `agent_bt.llm.retry`. A transport failure
    is a `Reply` with `failure` set. A future can be cancelled until its request is sent, and then is not sent.

    Only what is given here is sent: no header of the environment, and no redirect is followed. A proxy that the
    environment names is used, except for endpoints on this machine.

    Args:
        base_url: the endpoint up to and including `/v1`; its query is sent with every request. None: OpenAI's own.
        api_key: None where the endpoint needs none.
        headers: further headers of every request; their values appear in no message.
        timeout_s: of a request, from sending to the last byte, in seconds.
        max_in_flight: upper limit of requests in flight, unless a `limiter` is given.
        limiter: decides instead of `max_in_flight` when a request is sent.

    Raises:
        ConfigError: `base_url` is not an http(s) address, or the environment names a proxy or certificates that cannot
            be used.
        AuthenticationFailed: `api_key` cannot be sent in a header.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        max_in_flight: int = 16,
        limiter: Limiter | None = None,
    ) -> None:
        base_url = base_url or OPENAI_BASE_URL
        self._endpoint = endpoint_name(base_url)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
            raise AuthenticationFailed("the API key is empty or holds characters that no key has; copy it again")
        self._key = api_key or NO_KEY
        self._timeout_s = timeout_s
        self._limiter: Limiter = limiter or FixedLimiter(max_in_flight)
        self._url = _chat_url(base_url)
        self._local = is_local(base_url)
        self._headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "User-Agent": f"agent-bt/{__version__}",
            **(headers or {}),
        }
        self._secrets = [self._key] if self._key != NO_KEY else []
        # A short value is no secret, but may well be a word of an answer.
        self._secrets += [value for value in (headers or {}).values() if len(value) >= 8]
        self._tls = _certificates(base_url)
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = [self._client()]
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = threading.Lock()
        self._closed = False
        self._answered = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agent-bt-llm", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"OpenAILLM(base_url={self._endpoint!r})"

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request and return its future at once."""
        future: Future[Reply] = Future()
        with self._closing:
            if self._closed:
                raise EndpointDown(f"the client of {self._endpoint} is closed")
            self._loop.call_soon_threadsafe(self._start, request, future)
        return future

    def complete(self, request: Request) -> Reply:
        """Send the request and wait for its reply.

        Raises:
            ModelError: the model cannot be used at all, or the client was closed meanwhile.
        """
        future = self.submit(request)
        try:
            return result_of(future)
        except CancelledError:
            raise EndpointDown(f"the client of {self._endpoint} was closed") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        """Abort the calls in flight, release the thread and the connections; idempotent."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _shut_down(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients:
            await client.aclose()
        await self._loop.shutdown_asyncgens()

    def _start(self, request: Request, future: Future[Reply]) -> None:
        task = self._loop.create_task(self._answer(request, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        future.add_done_callback(lambda f: self._loop.call_soon_threadsafe(task.cancel) if f.cancelled() else None)

    async def _answer(self, request: Request, future: Future[Reply]) -> None:
        outcome: Reply | BaseException
        try:
            outcome = await self._ask(request, future)
        except asyncio.CancelledError:
            outcome = EndpointDown(f"the client of {self._endpoint} was closed while the call was in flight")
        except Exception as error:  # any exception belongs to the caller who waits for the future
            outcome = error
        if future.cancelled() or not (future.running() or future.set_running_or_notify_cancel()):
            return
        if isinstance(outcome, Reply):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    async def _ask(self, request: Request, future: Future[Reply]) -> Reply:
        await self._limiter.acquire()
        status: int | None = None
        headers: Mapping[str, str] = {}
        try:
            # From here on the future counts as running and cannot be cancelled: the call is about to cost money.
            if future.cancelled() or not (future.running() or future.set_running_or_notify_cancel()):
                raise asyncio.CancelledError
            sent = time.perf_counter()
            response = await self._send(request)
            latency_ms = (time.perf_counter() - sent) * 1000
            if isinstance(response, Reply):
                logger.debug("%s: %s after %.0f ms", self._endpoint, response.failure, latency_ms)
                return replace(response, latency_ms=latency_ms)
            status, headers = response.status_code, response.headers
            logger.debug("%s: HTTP %d after %.0f ms", self._endpoint, status, latency_ms)
        finally:
            self._limiter.release(status, headers)
        reply = self._read(request, response)
        if reply.failure is None:
            return replace(reply, latency_ms=latency_ms)
        asked_s = retry_after_s(headers)
        return replace(reply, latency_ms=latency_ms, retry_after_s=reply.retry_after_s if asked_s is None else asked_s)

    def _client(self) -> httpx.AsyncClient:
        # One for each call in flight: a shared pool scans all of its connections at every request.
        timeout = httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, CONNECT_TIMEOUT_S))
        try:
            client = httpx.AsyncClient(
                headers=self._headers, timeout=timeout, verify=self._tls, trust_env=not self._local
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            named = ", ".join(name for name in _PROXY_VARIABLES if os.environ.get(name))
            raise ConfigError(
                f"the proxy settings of the environment ({named}) cannot be used: {_first_line(error)}; correct or "
                "unset them. A proxy is an address with http://, https://, or socks5:// (with the package socksio); "
                "NO_PROXY is a list of hosts"
            ) from None
        self._clients.append(client)
        return client

    async def _send(self, request: Request) -> httpx.Response | Reply:
        client = self._idle.pop() if self._idle else self._client()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await client.post(self._url, content=orjson.dumps(request.body))
        except (TimeoutError, httpx.TimeoutException) as error:
            words = f"no answer from {self._endpoint} within {self._timeout_s:g} s"
            return Reply(failure="timeout", error=words, attempts=_attempts(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            words = self._scrub(f"{type(error).__name__}: {_first_line(error)}".rstrip(": "))
            words = f"no answer from {self._endpoint} ({words}){self._advise(error)}"
            return Reply(failure="connection", error=words, attempts=_attempts(error))
        finally:
            self._idle.append(client)

    def _advise(self, error: Exception) -> str:
        """Return what to look at when no connection came about; empty where there is nothing to say."""
        words = str(error)
        if "WRONG_VERSION_NUMBER" in words:
            return "; the server does not speak TLS: is llm.base_url an address with http://?"
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return "; name the certificate of its issuer in SSL_CERT_FILE, if it is one that you trust"
        scheme = self._url.scheme.upper()
        named = [name for name in _PROXY_VARIABLES if name.upper() in (f"{scheme}_PROXY", "ALL_PROXY")]
        used = [name for name in named if os.environ.get(name)]
        if self._local or not used or not isinstance(error, _NEVER_SENT):
            return ""
        return f"; the environment names a proxy ({', '.join(used)}): is it running, and meant for this endpoint?"

    def _read(self, request: Request, response: httpx.Response) -> Reply:
        model = str(request.body.get("model"))
        if response.is_success:
            try:
                body = response.content.decode()
            except UnicodeDecodeError:
                return Reply(failure="bad_response", error=f"the answer from {self._endpoint} is not UTF-8")
            for secret in self._secrets:
                # A short key is not a secret, but may well be a word of the answer.
                body = body.replace(secret, "***") if len(secret) >= 16 else body
            reply = read_answer(
                join_stream(body) if request.body.get("stream") else body, endpoint=self._endpoint, model=model
            )
            self._answered = self._answered or reply.failure is None
            return reply
        body = self._scrub(response.content.decode(errors="replace"))
        return read_failure(response.status_code, body, endpoint=self._endpoint, model=model, answered=self._answered)

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _SECRET.sub(r"\1***", text)


def _attempts(error: Exception) -> int:
    """Return 0 for a request that never left this machine, else 1: it may have been computed, and billed."""
    return 0 if isinstance(error, _NEVER_SENT) else 1


def _chat_url(base_url: str) -> httpx.URL:
    """Return the address of chat completions, the query of the base URL kept."""
    url = httpx.URL(base_url)
    # As written: a decoded path would make two parts of one with %2F in it.
    path, mark, query = url.raw_path.partition(b"?")
    return url.copy_with(raw_path=path.rstrip(b"/") + b"/chat/completions" + mark + query)


def _certificates(base_url: str) -> ssl.SSLContext | bool:
    """Return what certificates are checked with; nothing is read for plain http.

    Raises:
        ConfigError: the environment names a file that cannot be read.
    """
    if urlsplit(base_url).scheme == "http":
        return False
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        named = " and ".join(f"{name}={os.environ[name]}" for name in _TLS_VARIABLES if os.environ.get(name))
        raise ConfigError(
            f"the certificates that the environment names ({named}) cannot be read: {error.strerror or error}; correct "
            "the variable, or unset it"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
