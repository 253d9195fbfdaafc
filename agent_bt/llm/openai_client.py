"""A client of the OpenAI chat-completions API as an `LLM`, on an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any, Final, Protocol, cast

import httpx
import openai

from agent_bt.core.errors import AuthenticationFailed, EndpointDown
from agent_bt.core.futures import result_of
from agent_bt.core.types import Reply, Request
from agent_bt.llm.address import NO_KEY, OPENAI_BASE_URL, endpoint_name, is_local
from agent_bt.llm.chat_response import read_answer, read_failure
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
)
"""Failures before the first byte of a request has left: nothing can have been computed."""

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


class FixedLimiter:
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

    Args:
        base_url: the endpoint up to and including `/v1`; None: OpenAI's own.
        api_key: None where the endpoint needs none.
        timeout_s: of a request, from sending to the last byte, in seconds.
        max_in_flight: upper limit of requests in flight, unless a `limiter` is given.
        limiter: decides instead of `max_in_flight` when a request is sent.

    Raises:
        ConfigError: `base_url` is not an http(s) address.
        AuthenticationFailed: `api_key` cannot be sent in a header.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
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
        self._base_url = base_url
        self._tls = httpx.create_ssl_context()
        self._clients: list[openai.AsyncOpenAI] = []
        self._idle: list[openai.AsyncOpenAI] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = threading.Lock()
        self._closed = False
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
            await client.close()
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
        return replace(reply, latency_ms=latency_ms, retry_after_s=retry_after_s(headers) if reply.failure else None)

    def _client(self) -> openai.AsyncOpenAI:
        # One for each call in flight: a shared pool scans all of its connections at every request.
        timeout = httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, CONNECT_TIMEOUT_S))
        # A proxy that the environment names is not used for endpoints on this machine.
        http = httpx.AsyncClient(timeout=timeout, verify=self._tls, trust_env=not is_local(self._base_url))
        client = openai.AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._key,
            http_client=cast(Any, http),  # typed for httpx2, made for both
            max_retries=0,
            timeout=cast(Any, timeout),
        )
        self._clients.append(client)
        return client

    async def _send(self, request: Request) -> httpx.Response | Reply:
        client = self._idle.pop() if self._idle else self._client()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await client.post("/chat/completions", cast_to=httpx.Response, body=dict(request.body))
        except openai.APIStatusError as error:
            return cast(httpx.Response, error.response)
        except (TimeoutError, openai.APITimeoutError) as error:
            words = f"no answer from {self._endpoint} within {self._timeout_s:g} s"
            return Reply(failure="timeout", error=words, attempts=_attempts(error))
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            words = self._scrub(f"{type(cause).__name__}: {cause}".rstrip(": "))
            words = f"no answer from {self._endpoint} ({words})"
            return Reply(failure="connection", error=words, attempts=_attempts(error))
        finally:
            self._idle.append(client)

    def _read(self, request: Request, response: httpx.Response) -> Reply:
        if response.is_success:
            try:
                body = response.content.decode()
            except UnicodeDecodeError:
                return Reply(failure="bad_response", error=f"the answer from {self._endpoint} is not UTF-8")
            # A short key is not a secret, but may well be a word of the answer.
            return read_answer(body.replace(self._key, "***") if len(self._key) >= 16 else body)
        body = self._scrub(response.content.decode(errors="replace"))
        return read_failure(response.status_code, body, endpoint=self._endpoint, model=str(request.body.get("model")))

    def _scrub(self, text: str) -> str:
        if self._key != NO_KEY:
            text = text.replace(self._key, "***")
        return _SECRET.sub(r"\1***", text)


def _attempts(error: Exception) -> int:
    """Return 0 for a request that never left this machine, else 1: it may have been computed, and billed."""
    return 0 if isinstance(error.__cause__, _NEVER_SENT) else 1
