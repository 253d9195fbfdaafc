"""A local chat-completions server for tests: real HTTP, fixed latency, and faults on demand.

In a test:     with ChatServer(lambda body: '{"action": "HOLD"}') as server: ... server.url ...
As a command:  python tests/support/chat_server.py --port 0 --latency-ms 200 --fault 429=0.05
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_S = 300.0
"""Upper limit of waits that are shorter on any machine; it only ends a hang."""

HOLD = '{"action": "HOLD", "note": "constant"}'
Answer = Callable[[dict[str, Any]], "str | dict[str, Any]"]

BAD_TEXTS = (
    "I would buy here.",
    '{"action": "BUY", "size_pct": 50}',
    '{"action": "buy", "size_pct": 0.5}',
    '{"action": "BUY", "action": "SELL", "size_pct": 1}',
    '{"action": "BUY", "size_pct": NaN}',
    '{"action": "BUY", "size_pct": 0.',
)
HTML = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"

FAULTS = (
    "bad_reply",  # 200 with a text that is not a valid reply
    "length",  # 200, finish_reason length, the text cut
    "refusal",  # 200, no content, a refusal
    "content_filter",  # 200, finish_reason content_filter
    "429",  # with Retry-After
    "500",
    "503",  # with Retry-After
    "stall",  # answers only after `stall_s`
    "cut",  # closes the connection in the middle of the answer
    "drop",  # closes the connection before any answer
    "html",  # 200 with an HTML page
    "truncated_json",  # 200 with half of the JSON
    "content_type",  # a good answer with content type text/plain
    "empty_choices",  # 200 with "choices": []
    "no_message",  # 200 with a choice that has no message
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """Random faults: name -> fraction of the calls.

    The draw depends on the seed, the request body and how often that body was seen, not on the order in which
    requests arrive: concurrent runs meet the same faults.
    """

    rates: Mapping[str, float]
    seed: int = 0

    def draw(self, body: bytes, repetition: int) -> str | None:
        digest = hashlib.sha256(f"{self.seed}/{repetition}/".encode() + body).digest()
        chance = int.from_bytes(digest[:8], "big") / 2**64
        for fault, rate in self.rates.items():
            if chance < rate:
                return fault
            chance -= rate
        return None


@dataclass(slots=True, kw_only=True)
class Record:
    """The requests so far; `bodies`, `headers` in order of arrival, GETs not counted."""

    calls: int = 0
    in_flight: int = 0
    peak: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)


class ChatServer:
    """POST /v1/chat/completions and GET /v1/models on 127.0.0.1.

    Args:
        answer: body -> reply text, or a dict that updates the choice (`content`, `refusal`, `finish_reason`).
            Default: the embedded stand-in policy where it is installed, else a constant HOLD.
        latency_ms: from the arrival of a request to its answer.
        faults: random faults.
        script: faults of the first calls, one by one (None: a good answer); then `faults` again.
        refuse: what the endpoint rejects with a 400: `json_schema`, `json_object`, or the name of a body key.
        api_key: the only key that is accepted (None: any).
        models: the models that exist (None: any).
        retry_after: the header sent with 429 and 503; None: no header.
        stall_s: how long a `stall` takes.
        usage: the usage object of every answer; None: counted from the text.
        members: further members of every answer, such as `service_tier`; an attribute.
        streams: answer in events where that is asked for; an attribute.
        answers: texts of further endpoints by their path, such as `/groq/v1`; an attribute.
        together: answers are held back until this number of calls have been in flight at once.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        latency_ms: float = 0.0,
        faults: FaultPlan | None = None,
        script: Sequence[str | None] = (),
        refuse: Sequence[str] = (),
        api_key: str | None = None,
        models: Sequence[str] | None = None,
        retry_after: str | None = "0.02",
        stall_s: float = 1.0,
        usage: dict[str, Any] | None = None,
        together: int = 0,
        port: int = 0,
    ) -> None:
        self.answer = answer or stand_in_answer()
        self.latency_ms = latency_ms
        self.faults = faults
        self.script = list(script)
        self.refuse = tuple(refuse)
        self.api_key = api_key
        self.models = models
        self.retry_after = retry_after
        self.stall_s = stall_s
        self.usage = usage
        self.members: dict[str, Any] = {}
        self.answers: dict[str, str] = {}
        self.streams = False
        self.together = together
        self.record = Record()
        self._lock = threading.Condition()
        self._held_after = math.inf
        self._seen: Counter[bytes] = Counter()
        self._http = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="chat-server", daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Value of `llm.base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> int:
        return self.record.calls

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return self.record.bodies

    @property
    def peak(self) -> int:
        """Largest number of requests in flight at once."""
        return self.record.peak

    def reset(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self.record = Record(in_flight=self.record.in_flight)
            self._seen.clear()

    def hold(self, *, after: int = 0) -> None:
        """From now on answer only the first `after` calls; the others wait for `release`."""
        with self._lock:
            self._held_after = after

    def release(self) -> None:
        """Answer what is held back, and every further call."""
        with self._lock:
            self._held_after = math.inf
            self._lock.notify_all()

    def wait_for_calls(self, count: int) -> None:
        """Wait until `count` calls have arrived."""
        with self._lock:
            if not self._lock.wait_for(lambda: self.record.calls >= count, HANG_S):
                raise AssertionError(f"{self.record.calls} calls came within {HANG_S:g} s, not {count}")

    def wait_for_turn(self, call: int) -> None:
        """Wait until the call with this number, from 1, may be answered."""
        with self._lock:
            self._lock.wait_for(lambda: call <= self._held_after and self.record.peak >= self.together, HANG_S)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join()

    def arrive(self, raw: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any], str | None]:
        """Count a request; return its number, its body and its fault."""
        body = json.loads(raw)
        with self._lock:
            record = self.record
            record.calls += 1
            record.in_flight += 1
            record.peak = max(record.peak, record.in_flight)
            record.bodies.append(body)
            record.headers.append(headers)
            repetition = self._seen[raw]
            self._seen[raw] += 1
            drawn = self.faults.draw(raw, repetition) if self.faults else None
            fault = self.script.pop(0) if self.script else drawn
            if fault is not None:
                record.faults[fault] += 1
            self._lock.notify_all()
            return record.calls, body, fault

    def leave(self, status: int) -> None:
        with self._lock:
            self.record.in_flight -= 1
            self.record.statuses[status] += 1

    def refusal_of(self, body: dict[str, Any], authorization: str) -> tuple[int, dict[str, Any]] | None:
        """Return the status and error object of a request that is rejected."""
        key = authorization.removeprefix("Bearer ")
        if self.api_key is not None and key != self.api_key:
            return 401, _error(f"Incorrect API key provided: {key}.", code="invalid_api_key")
        if self.models is not None and body.get("model") not in self.models:
            text = f"The model `{body.get('model')}` does not exist or you do not have access to it."
            return 404, _error(text, code="model_not_found")
        wanted = (body.get("response_format") or {}).get("type")
        if wanted in self.refuse:
            return 400, _error(f"This response_format type is unavailable now: {wanted}", param="response_format")
        for name in self.refuse:
            if name == "max_tokens" and name in body:
                text = "Unsupported parameter: 'max_tokens' is not supported with this model. "
                return 400, _error(text + "Use 'max_completion_tokens' instead.", param=name)
            if name == "temperature" and body.get(name, 1) != 1:
                text = f"Unsupported value: 'temperature' does not support {body[name]} with this model. "
                return 400, _error(text + "Only the default (1) value is supported.", param=name)
            if name not in ("temperature", "max_tokens") and name in body:
                return 400, _error(f"Unrecognized request argument supplied: {name}", param=name)
        if wanted == "json_object" and "json" not in json.dumps(body["messages"]).lower():
            return 400, _error("'messages' must contain the word 'json' in some form.", param="messages")
        return None


def completion(body: Mapping[str, Any], answer: str | dict[str, Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    """A chat.completion object with one choice."""
    parts = {"content": answer} if isinstance(answer, str) else dict(answer)
    finish_reason = parts.pop("finish_reason", "stop")
    prompt = sum(len(str(message.get("content"))) for message in body["messages"]) // 3 + 1
    written = len(str(parts.get("content") or "")) // 3 + 1
    counted = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    return {
        "id": "chatcmpl-local",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model", "local"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "refusal": None, **parts},
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage or counted,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], owner: ChatServer) -> None:
        super().__init__(address, _Handler)
        self.owner = owner
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that time out or are cancelled hang up: nothing to report.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _events(whole: dict[str, Any]) -> str:
    """A completion as server-sent events: one for each ten characters, the end, and the usage."""
    head = {key: value for key, value in whole.items() if key not in ("choices", "usage")}
    choice = whole["choices"][0]
    text = choice["message"].get("content") or ""
    deltas = [{"content": text[at : at + 10]} for at in range(0, len(text), 10)]
    parts = [{**head, "choices": [{"index": 0, "delta": delta}]} for delta in [{"role": "assistant"}, *deltas]]
    parts.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    parts.append({**head, "choices": [], "usage": whole["usage"]})
    return "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"


_REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "refused_400": (400, {"error": {"message": "Input data may contain inappropriate content.",
                                    "code": "data_inspection_failed"}}),
    "refused_403": (403, {"error": {"message": "Content violates usage guidelines. Failed check: SAFETY_CHECK"}}),
    "too_long": (400, {"error": {"message": "This model's maximum context length is 8192 tokens",
                                 "code": "context_length_exceeded"}}),
    "json_validate_failed": (400, {"error": {"message": "Failed to generate JSON.", "code": "json_validate_failed",
                                             "failed_generation": "BUY!"}}),
}  # fmt: skip
"""Faults of a script: requests that are not taken, in the shapes of several providers."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self._send(404, json.dumps(_error("no such path")))
        names = self.server.owner.models or ["baseline"]
        return self._send(200, json.dumps({"object": "list", "data": [{"id": n, "object": "model"} for n in names]}))

    def do_POST(self) -> None:
        arrived = time.perf_counter()
        owner = self.server.owner
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        base = self.path.partition("?")[0].removesuffix("/chat/completions")
        if base == self.path or (base != "/v1" and base not in owner.answers):
            return self._send(404, json.dumps(_error("no such path")))
        owner.record.paths[base] += 1
        call, body, fault = owner.arrive(raw, {name.lower(): value for name, value in self.headers.items()})
        status = 0
        try:
            status, text, content_type, headers = self._prepare(base, body, fault)
            owner.wait_for_turn(call)
            latency_s = owner.stall_s if fault == "stall" else owner.latency_ms / 1000
            time.sleep(max(0.0, arrived + latency_s - time.perf_counter()))
        finally:
            owner.leave(status)
        if fault in ("cut", "drop"):
            return self._hang_up(text if fault == "cut" else None)
        if owner.streams and status == 200 and body.get("stream"):
            text, content_type = _events(json.loads(text)), "text/event-stream"
        return self._send(status, text, content_type, headers)

    def _prepare(self, base: str, body: dict[str, Any], fault: str | None) -> tuple[int, str, str, dict[str, str]]:
        owner = self.server.owner
        refused = owner.refusal_of(body, self.headers.get("Authorization", ""))
        if refused is not None:
            return refused[0], json.dumps(refused[1]), "application/json", {}
        if fault in ("429", "500", "503"):
            wait = {"Retry-After": owner.retry_after} if owner.retry_after and fault != "500" else {}
            return int(fault), json.dumps(_error(f"fault {fault}")), "application/json", wait
        if fault in _REFUSALS:
            return int(_REFUSALS[fault][0]), json.dumps(_REFUSALS[fault][1]), "application/json", {}
        if fault == "html":
            return 200, HTML, "text/html", {}
        answer = owner.answers[base] if base in owner.answers else owner.answer(body)
        whole = completion(body, _spoil(answer, fault, body), owner.usage) | owner.members
        if fault == "empty_choices":
            whole["choices"] = []
        elif fault == "no_message":
            del whole["choices"][0]["message"]
        text = json.dumps(whole)
        if fault == "truncated_json":
            text = text[: len(text) // 2]
        return 200, text, "text/plain" if fault == "content_type" else "application/json", {}

    def _send(
        self, status: int, text: str, content_type: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        raw = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def _hang_up(self, text: str | None) -> None:
        if text is not None:
            raw = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2])
            self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _spoil(answer: str | dict[str, Any], fault: str | None, body: dict[str, Any]) -> str | dict[str, Any]:
    if fault == "bad_reply":
        return BAD_TEXTS[len(json.dumps(body)) % len(BAD_TEXTS)]
    if fault == "length":
        return {"content": str(answer)[:12], "finish_reason": "length"}
    if fault == "refusal":
        return {"content": None, "refusal": "I can't help with that."}
    if fault == "content_filter":
        return {"content": "", "finish_reason": "content_filter"}
    return answer


def _error(message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def stand_in_answer(**params: Any) -> Answer:
    """The embedded policy as an answer function; where the package is not installed, a constant HOLD."""
    try:
        from agent_bt.llm.stand_in import StandInParams, answer
    except ImportError:
        return lambda _: HOLD
    settings = StandInParams.parse(params)
    return lambda body: answer(body["messages"], settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=RATE", help=", ".join(FAULTS))
    parser.add_argument("--refuse", action="append", default=[], help="json_schema, json_object, or a body key")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eagerness", type=float, default=0.35, help="fraction of its signals the policy acts on")
    parser.add_argument("--stall-s", type=float, default=60.0)
    options = parser.parse_args()
    rates = {name: float(rate) for name, rate in (pair.split("=") for pair in options.fault)}
    unknown = rates.keys() - set(FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    server = ChatServer(
        stand_in_answer(eagerness=options.eagerness),
        port=options.port,
        latency_ms=options.latency_ms,
        faults=FaultPlan(rates=rates, seed=options.seed),
        refuse=options.refuse,
        stall_s=options.stall_s,
    )
    with server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stdout.write(json.dumps({"calls": server.calls, "peak": server.peak}) + "\n")


if __name__ == "__main__":
    main()
