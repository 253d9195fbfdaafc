"""Addresses of chat-completions endpoints, and the API keys they need."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from agent_bt.core.errors import AuthenticationFailed, ConfigError

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"
NO_KEY: Final = "none"
"""Sent where no key is needed: local servers expect the header and accept any value."""


def api_key_from_env(name: str, *, base_url: str | None = None) -> str:
    """Return the API key in an environment variable, or `NO_KEY` where an endpoint on this machine needs none.

    Args:
        name: the environment variable.
        base_url: the endpoint; None: OpenAI's own, which needs a key.

    Raises:
        AuthenticationFailed: the variable is not set or empty, and the endpoint is not on this machine.
    """
    key = os.environ.get(name, "").strip()
    if key:
        return key
    if base_url is not None and is_local(base_url):
        return NO_KEY
    raise AuthenticationFailed(
        f"no API key: the environment variable {name} is not set; export it, put it into .env, "
        "or name another one in llm.api_key_env"
    )


def fill_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with each `${NAME}` replaced by the environment variable of that name.

    Args:
        headers: as configured.

    Raises:
        AuthenticationFailed: a variable is not set or empty.
    """

    def value_of(found: re.Match[str]) -> str:
        value = os.environ.get(found[1], "").strip()
        if not value:
            raise AuthenticationFailed(
                f"llm.headers: the environment variable {found[1]} is not set; export it, or put it into .env"
            )
        return value

    return {name: _VARIABLE.sub(value_of, text) for name, text in headers.items()}


_VARIABLE = re.compile(r"\$\{(\w+)\}")


def endpoint_name(base_url: str) -> str:
    """Return the address without what may be secret in it: user, password, query.

    Raises:
        ConfigError: it is not an http(s) address.
    """
    try:
        parts = urlsplit(base_url)
        host = _host_of(parts.hostname, parts.port)
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError("llm.base_url is not an http(s) address; write it like http://localhost:11434/v1")
    return f"{parts.scheme}://{host}{parts.path}"


def endpoint_identity(base_url: str) -> str:
    """Return what an endpoint is called in cache keys: its host, port and path; a plain `/v1` is left out.

    >>> endpoint_identity("https://api.openai.com/v1")
    'api.openai.com'
    >>> endpoint_identity("https://gateway.example:8443/groq/v1/")
    'gateway.example:8443/groq/v1'

    Raises:
        ConfigError: it is not an http(s) address.
    """
    endpoint_name(base_url)
    parts = urlsplit(base_url)
    host = _host_of(parts.hostname, None if parts.port == (443 if parts.scheme == "https" else 80) else parts.port)
    path = parts.path.strip("/")
    return host if path in ("", "v1") else f"{host}/{path}"


def _host_of(hostname: str | None, port: int | None) -> str:
    """Return host and port as they stand in an address; empty without a host."""
    host = f"[{hostname}]" if hostname and ":" in hostname else hostname or ""
    return f"{host}:{port}" if host and port else host


def earlier_endpoint_identity(base_url: str) -> str:
    """Return what earlier versions called an endpoint: its host and port alone.

    Args:
        base_url: its address.
    """
    return urlsplit(base_url).netloc


def is_local(base_url: str) -> bool:
    """Return whether the address is on this machine."""
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
