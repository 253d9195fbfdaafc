"""What goes out to an endpoint, and over what: headers, queries, proxies, certificates, streams."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import respx
from chat_server import HOLD, ChatServer
from small_run import cli, small_config

from agent_bt.config.load import load_config
from agent_bt.config.model import LLMConfig
from agent_bt.core.errors import AuthenticationFailed, ConfigError, RequestRejected
from agent_bt.core.types import Request, Usage
from agent_bt.llm.chat_response import read_answer
from agent_bt.llm.chat_stream import join_stream
from agent_bt.llm.openai_client import OpenAILLM, _certificates
from agent_bt.llm.provider import get_provider

URL = "https://llm.example/v1"
KEY = "a-key-of-a-test-0123456789"
REQUEST = Request(
    provider="openai", endpoint_id="e", body={"model": "m", "messages": [{"role": "user", "content": "json?"}]}
)
SENT_ALWAYS = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type",
               "authorization"}  # fmt: skip


@pytest.fixture
def chat() -> Iterator[respx.Route]:
    with respx.mock(base_url="https://llm.example", assert_all_called=False) as router:
        yield router.post(path__regex=".*/chat/completions")


def completion(text: str = HOLD) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def test_headers_of_the_environment_are_not_sent(chat: respx.Route, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_CUSTOM_HEADERS": "X-Secret: of-openai",
        "OPENAI_ORG_ID": "org-of-openai",
        "OPENAI_PROJECT_ID": "proj-of-openai",
        "OPENAI_BASE_URL": "https://elsewhere.example/v1",
        "OPENAI_WEBHOOK_SECRET": "hook-of-openai",
        "OPENAI_ADMIN_KEY": "admin-of-openai",
    }.items():
        monkeypatch.setenv(name, value)
    chat.respond(200, json=completion())
    with closing(OpenAILLM(base_url=URL, api_key=KEY)) as llm:
        assert llm.complete(REQUEST).text == HOLD
    sent = chat.calls.last.request
    assert set(sent.headers) == SENT_ALWAYS
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["user-agent"].startswith("agent-bt/")
    assert "of-openai" not in repr(sent.headers.raw) and str(sent.url) == f"{URL}/chat/completions"


def test_configured_headers_are_sent_with_secrets_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "the-secret-of-the-gateway")
    headers = {"X-Gateway-Key": "Token ${GATEWAY_KEY}", "HTTP-Referer": "https://my.example", "X-Title": "backtest"}
    with ChatServer(lambda _: HOLD) as server:
        config = small_config(tmp_path, server.url, llm__headers=headers, prefetch__depth=0)
        assert cli("run", config, "-q", "--limit", 2).code == 0
        for sent in server.record.headers:
            assert sent["x-gateway-key"] == "Token the-secret-of-the-gateway"
            assert (sent["http-referer"], sent["x-title"]) == ("https://my.example", "backtest")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"the-secret-of-the-gateway" not in written and b"${GATEWAY_KEY}" in written
    # Headers do not shape a reply: the same requests are answered from the cache.
    config = small_config(tmp_path, "http://127.0.0.1:9/v1", prefetch__depth=0)
    assert cli("run", config, "-q", "--limit", 2, "--offline", "--fresh").code == 0


def test_a_header_of_ones_own_replaces_the_usual_one(chat: respx.Route) -> None:
    chat.respond(200, json=completion())
    with closing(OpenAILLM(base_url=URL, api_key=KEY, headers={"Authorization": "Basic other-secret"})) as llm:
        llm.complete(REQUEST)
        chat.respond(400, json={"error": "not with Basic other-secret"})
        with pytest.raises(RequestRejected) as refused:
            llm.complete(REQUEST)
    assert chat.calls[0].request.headers.get_list("authorization") == ["Basic other-secret"]
    assert "other-secret" not in str(refused.value)


def test_a_variable_of_a_header_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    provider = get_provider(LLMConfig(provider="openai", base_url=URL, headers={"X-Key": "${NO_SUCH_VARIABLE}"}))
    with pytest.raises(AuthenticationFailed, match=r"llm\.headers: the environment variable NO_SUCH_VARIABLE"):
        provider.open()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("'X-Api-Key': plainly-written", "must not contain a key; write ${NAME}"),
        ("Authorization: Bearer abcdefghijkl", "must not contain a key"),
        ("X-Note: sk-0123456789abcdef", "must not contain a key"),
        ("'X Y': a", "must name HTTP headers"),
        ('"X-Y": "a\\nb"', "must be printable ASCII text"),
        ("'X-Y': 'ä'", "must be printable ASCII text"),
    ],
)
def test_a_header_that_cannot_be_sent_or_holds_a_key_is_refused(header: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(None, [f"llm.headers={{{header}}}"], env={})
    assert said in str(refused.value) and "abcdefghijkl" not in str(refused.value)


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        (f"{URL}?api-version=2024-10-21", f"{URL}/chat/completions?api-version=2024-10-21"),
        ("https://llm.example/openai/deployments/a/?api-version=1&b=%20", None),
        ("https://llm.example", "https://llm.example/chat/completions"),
        ("https://llm.example/v1/", f"{URL}/chat/completions"),
        ("https://llm.example/a%2Fb/v1?c=%2F", "https://llm.example/a%2Fb/v1/chat/completions?c=%2F"),
    ],
)
def test_the_query_of_a_base_url_is_kept(chat: respx.Route, base_url: str, asked: str | None) -> None:
    chat.respond(200, json=completion())
    with closing(OpenAILLM(base_url=base_url, api_key=KEY)) as llm:
        llm.complete(REQUEST)
    expected = asked or "https://llm.example/openai/deployments/a/chat/completions?api-version=1&b=%20"
    assert str(chat.calls.last.request.url) == expected


def test_a_redirect_is_not_followed(chat: respx.Route) -> None:
    chat.respond(307, headers={"Location": "https://elsewhere.example/v1/chat/completions"})
    with closing(OpenAILLM(base_url=URL, api_key=KEY)) as llm, pytest.raises(RequestRejected, match="HTTP 307"):
        llm.complete(REQUEST)
    assert chat.call_count == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1080"),
        ("HTTPS_PROXY", "socks4://127.0.0.1:1080"),
        ("https_proxy", "ftp://proxy.example"),
        ("HTTPS_PROXY", "http://proxy:not-a-port"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"the proxy settings of the environment \(.*{name}.*\) cannot be used"):
        OpenAILLM(base_url=URL, api_key=KEY)


def test_settings_for_remote_endpoints_do_not_disturb_local_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "[::1],localhost")
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with ChatServer(lambda _: HOLD) as server, closing(OpenAILLM(base_url=server.url)) as llm:
        assert llm.complete(REQUEST).text == HOLD


@pytest.mark.parametrize("no_proxy", ["[::1]", "localhost,[::1],127.0.0.1", "::1", "*.internal, .example.com"])
def test_no_proxy_with_an_ipv6_address_is_understood_or_told(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    try:
        OpenAILLM(base_url=URL, api_key=KEY).close()
    except ConfigError as error:
        assert "NO_PROXY" in str(error)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "SSL_CERT_DIR":
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    gone = tmp_path / "gone.pem"
    monkeypatch.setenv(name, str(gone))
    try:
        OpenAILLM(base_url=URL, api_key=KEY).close()
    except ConfigError as error:
        assert f"{name}={gone}" in str(error) and "unset it" in str(error)
    else:
        # An empty folder of certificates is no error of its own.
        assert name == "SSL_CERT_DIR"


def test_a_file_without_certificates_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE=.*cannot be read"):
        OpenAILLM(base_url=URL, api_key=KEY)
    assert issubclass(ssl.SSLError, OSError)


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https", " https"])
def test_certificates_are_checked_however_the_scheme_is_written(scheme: str) -> None:
    checked = _certificates(f"{scheme}://llm.example/v1")
    assert isinstance(checked, ssl.SSLContext)
    assert (checked.verify_mode, checked.check_hostname) == (ssl.CERT_REQUIRED, True)


def serve_once(context: ssl.SSLContext | None, received: list[bytes]) -> tuple[int, threading.Thread]:
    """Accept one connection on a port of its own and keep what is received; return the port and the thread."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as plain:
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) if context else plain as connection:
                    received.append(connection.recv(1000))
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return listening.getsockname()[1], thread


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with the program openssl")
@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_server_with_a_certificate_of_nobody_gets_no_key(scheme: str, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2",
         "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    received: list[bytes] = []
    port, thread = serve_once(context, received)
    with closing(OpenAILLM(base_url=f"{scheme}://127.0.0.1:{port}/v1", api_key=KEY)) as llm:
        reply = llm.complete(REQUEST)
    thread.join()
    assert (reply.failure, reply.attempts, received) == ("connection", 0, [])
    assert "CERTIFICATE_VERIFY_FAILED" in str(reply.error) and "SSL_CERT_FILE" in str(reply.error)


def test_a_server_without_tls_is_told_as_such() -> None:
    port, thread = serve_once(None, [])
    with closing(OpenAILLM(base_url=f"https://127.0.0.1:{port}/v1", api_key=KEY)) as llm:
        reply = llm.complete(REQUEST)
    thread.join()
    assert "llm.base_url an address with http://" in str(reply.error)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
def test_a_proxy_that_is_down_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv(name, f"http://user:password-of-a-proxy@127.0.0.1:{port}")
    with closing(OpenAILLM(base_url=URL, api_key=KEY)) as llm:
        reply = llm.complete(REQUEST)
    assert (reply.failure, reply.attempts) == ("connection", 0)
    assert f"the environment names a proxy ({name})" in str(reply.error)
    assert "password" not in str(reply.error)


PARTS = [
    {
        "id": "x",
        "model": "served-1",
        "system_fingerprint": "fp",
        "choices": [{"index": 0, "delta": {"role": "assistant"}}],
    },
    {"choices": [{"index": 0, "delta": {"reasoning_content": "so "}}]},
    {"choices": [{"index": 0, "delta": {"content": HOLD[:9]}}]},
    {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
    {"choices": [{"index": 0, "delta": {"content": HOLD[9:]}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
]


def events(parts: list[Any], end: str = "data: [DONE]\n\n") -> str:
    return "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + end


def test_a_stream_becomes_the_reply_that_it_is_the_parts_of() -> None:
    reply = read_answer(join_stream(": a comment\n\n" + events(PARTS)))
    assert (reply.text, reply.finish_reason, reply.failure) == (HOLD, "stop", None)
    assert reply.usage == Usage(prompt_tokens=7, completion_tokens=3)
    body = json.loads(reply.body)
    assert (body["model"], body["system_fingerprint"]) == ("served-1", "fp")
    assert body["choices"][0]["message"]["reasoning_content"] == "so "


@pytest.mark.parametrize(
    "text",
    [
        events(PARTS[:4], end=""),  # it was cut
        events([*PARTS[:3], {"error": {"message": "overloaded", "code": 503}}], end=""),
        events(PARTS[:3], end='data: {"choices": [{"index": 0, "del'),
        events([], end="data: [DONE]\n\n"),
        events([[1, 2]], end=""),
        "event: ping\n\n",
        "",
    ],
)
def test_a_stream_that_was_cut_or_failed_is_no_reply(text: str) -> None:
    reply = read_answer(join_stream(text))
    assert reply.text is None
    assert reply.failure == "bad_response" or reply.finish_reason is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # Characters that end a line for str.splitlines, but not in server-sent events.
        ('data: {"choices": [{"delta": {"content": "a\u2028b\x85c"}}]}\n\n', "a\u2028b\x85c"),
        ('\ufeffdata:{"choices": [{"delta": {"content": "a"}}]}\r\rdata: \r\r', "a"),
        ('data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "null"}], "error": null}\r\n\r\n', "a"),
        ('data: {"choices": [{"message": {"content": "whole"}, "finish_reason": ""}]}\n\n', "whole"),
        ('data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
         'data: {"choices": [{"delta": {"content": [{"type": "text", "text": "b"}]}}]}\n\n', "ab"),
        ('data: {"choices": [{"delta": "no object"}]}\n\ndata: {"choices": "no list"}\n\n', None),
    ],
)  # fmt: skip
def test_streams_of_other_servers_are_read(text: str, answer: str | None) -> None:
    reply = read_answer(join_stream(text + "data: [DONE]\n\n"))
    assert (reply.text, reply.failure, reply.finish_reason) == (answer, None, None)


def test_an_error_in_the_last_part_of_a_stream_is_a_failure() -> None:
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 429, "message": "slow"}}]}
    assert read_answer(join_stream(events([*PARTS[:3], last]))).failure == "rate_limit"


def test_a_server_that_only_streams_is_asked_to(tmp_path: Path) -> None:
    with ChatServer(lambda _: HOLD) as server:
        server.streams = True
        config = small_config(tmp_path, server.url, llm__stream=True, prefetch__depth=0)
        done = cli("run", config, "--json", "--limit", 3)
        assert done.code == 0, done.err
        assert done.json["decisions"]["model"] == 3
        assert all(body["stream"] and body["stream_options"] for body in server.record.bodies)
        (folder,) = tmp_path.glob("runs/2*")
        assert cli("replay", folder, "--json").json["identical"]
        # It is another request than the one that is answered in one piece.
        plain = small_config(tmp_path, server.url, prefetch__depth=0)
        assert cli("run", plain, "--offline", "--limit", 3).code == 5


def test_stream_options_that_are_refused_are_left_out(tmp_path: Path) -> None:
    with ChatServer(lambda _: HOLD, refuse=["stream_options"]) as server:
        server.streams = True
        config = small_config(tmp_path, server.url, llm__stream=True, prefetch__depth=0)
        assert cli("run", config, "-q", "--limit", 2).code == 0
        assert "stream_options" not in server.record.bodies[-1] and server.record.bodies[-1]["stream"]
