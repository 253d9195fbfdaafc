"""The types of single settings: the values they accept, and the errors for others."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from agent_bt.config.secrets import ADVICE_ON_KEYS, holds_secret, names_secret, refuse_secrets
from agent_bt.core.clock import date_or_time, duration_us, time_us
from agent_bt.core.extensions import ExtensionPoint
from agent_bt.core.frequency import fixed_period

PROVIDERS = ExtensionPoint[Any]("llm.provider", "agent_bt.llm.providers")
"""Names that `llm.provider` accepts, each of an `agent_bt.llm.provider.Provider`."""


def _instant(value: Any) -> str:
    if not isinstance(value, str | date | datetime):
        raise ValueError(f"must be a date or time such as 2024-07-01 or 2024-07-01T12:00:00Z, got {value!r}")
    return date_or_time(time_us(value))


def _duration(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must have a unit, got {value!r}; write an integer and a unit: 30s, 15m, 1h, 7d")
    if value.endswith("M"):
        raise ValueError(f"must not be in months, which have no fixed length, got {value!r}; m is minutes, d is days")
    duration_us(value)
    return value


def _frequency(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a frequency such as W-MON, MS, QS, D or 4h, got {value!r}")
    fixed_period(value)
    return value


def _symbol(value: str) -> str:
    if not value.isalnum() or not value.isascii():
        raise ValueError(f"must be a symbol as the exchange writes it, such as BTCUSDT, got {value!r}")
    return value.upper()


def _variable(value: str) -> str:
    if re.fullmatch(r"[A-Z_][A-Z0-9_]*", value) is None:
        raise ValueError(
            "must be the name of an environment variable in capitals, such as OPENAI_API_KEY, not the key itself"
        )
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("must be a URL: https://host/path") from None
    if (
        parts.username is not None
        or parts.password is not None
        or any(names_secret(k) for k, _ in parse_qsl(parts.query))
    ):
        raise ValueError(f"must not contain credentials: {ADVICE_ON_KEYS}")
    if parts.scheme not in ("http", "https", "file") or not (parts.netloc or parts.scheme == "file"):
        raise ValueError(f"must be a URL: https://host/path, got {value!r}")
    return value


def _web_url(value: str) -> str:
    if value.startswith("file:"):
        raise ValueError(f"must be a URL with http:// or https://, got {value!r}")
    return _url(value)


def _sizes(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value:
        raise ValueError(
            "must list at least one size, got an empty list; write [0.25, 0.5, 0.75, 1], or null for any number from "
            "0 to 1"
        )
    for size in value:
        if not 0 < size <= 1:
            percent = f" ({size:g} % is {size / 100:g})" if 1 < size <= 100 else ""
            raise ValueError(f"must list numbers above 0 and at most 1, got {size:g}{percent}")
    if twice := sorted({size for size in value if value.count(size) > 1}):
        raise ValueError(f"must list each size once, got {', '.join(f'{size:g}' for size in twice)} twice")
    return value


def _provider(value: str) -> str:
    if holds_secret(value):
        raise ValueError("must be the name of a provider, got a value that looks like an API key (not shown)")
    PROVIDERS.check(value)
    return value


Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Instant = Annotated[str, BeforeValidator(_instant), Field(examples=["2024-07-01", "2024-07-01T12:00Z"])]
Duration = Annotated[str, BeforeValidator(_duration), Field(examples=["15m", "1h", "7d"])]
Frequency = Annotated[str, BeforeValidator(_frequency), Field(examples=["W-MON", "MS", "QS", "D", "4h"])]
Interval = Literal["1m", "5m", "15m", "1h", "4h", "1d"]
Symbol = Annotated[str, AfterValidator(_symbol), Field(examples=["BTCUSDT"])]
Symbols = Annotated[tuple[Symbol, ...], Field(strict=False)]
Sizes = Annotated[tuple[float, ...], Field(strict=False), AfterValidator(_sizes)]
Url = Annotated[str, AfterValidator(_url)]


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"must name HTTP headers, got {name!r}")
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name}: must be printable ASCII text")
        named = "${" in text
        if (names_secret(name) and not named) or holds_secret(text):
            raise ValueError(f"{name}: must not contain a key; write ${{NAME}} and set the environment variable NAME")
    return value


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

Headers = Annotated[dict[str, str], AfterValidator(_headers)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
VariableName = Annotated[str, AfterValidator(_variable)]
ProviderName = Annotated[
    str, AfterValidator(_provider), Field(examples=["stand_in", "openai", "scripted", "my_module:MyProvider"])
]
Params = Annotated[dict[str, Any], AfterValidator(refuse_secrets)]
