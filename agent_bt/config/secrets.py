"""Recognise API keys and passwords, which a configuration must not hold."""

from __future__ import annotations

import re
from typing import Any

ADVICE_ON_KEYS = "keys come from the environment or `.env`; name the variable in llm.api_key_env"
_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|access_?key|secret(_key)?|password|passwd|authorization|bearer|credentials?|private_key"
    r"|(access|auth|api|bearer|refresh|id)_?token)$|^(token|key)$"
)
_SECRET_VALUE = re.compile(r"\b(sk|pk|xai|gsk|hf|ghp|AIza)[-_][A-Za-z0-9_-]{12,}|\bbearer\s+\S{8,}", re.IGNORECASE)


def names_secret(key: str) -> bool:
    """Return whether a setting of that name would hold a key or password: `api_key`, `Authorization`, `x-api-key`."""
    return _SECRET_NAME.search(key.lower().replace("-", "_")) is not None


def holds_secret(text: str) -> bool:
    """Return whether a text looks like an API key or contains one; such text is never shown."""
    return _SECRET_VALUE.search(text) is not None


def refuse_secrets(value: Any) -> Any:
    """Return a value of any form unchanged if it contains no key or password.

    Raises:
        ValueError: it contains one; the message does not repeat it.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if names_secret(key):
                raise ValueError(f"must not contain {key}: {ADVICE_ON_KEYS}")
            refuse_secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            refuse_secrets(inner)
    elif isinstance(value, str) and holds_secret(value):
        raise ValueError(f"must not contain what looks like an API key: {ADVICE_ON_KEYS}")
    return value
