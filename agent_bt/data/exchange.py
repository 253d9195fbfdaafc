"""What differs between the exchanges whose history is downloaded: each is a module of `data.exchanges`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from agent_bt.core.errors import ConfigError
from agent_bt.core.extensions import ExtensionPoint

if TYPE_CHECKING:
    from agent_bt.data.klines import Klines
    from agent_bt.data.spans import Span

FUNDING = "fundingRate"
"""Stands in the place of the interval for the funding settlements of a perpetual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestPages:
    """How the bars of one kind of market are read from a REST API, page by page.

    Attributes:
        path: below the base URL.
        page: most rows of one answer.
        used_header: header in which the API reports what an address has used in this minute; empty: none.
        used_limit: what an address may use in a minute, in the units of that header.
    """

    path: str
    page: int
    used_header: str = ""
    used_limit: int = 0


class Exchange(ABC):
    """Where an exchange keeps its history, and in which form.

    A subclass registers itself with `register_exchange` in a module of `agent_bt.data.exchanges` that has its name.
    Rows that cannot be bars are found by the caller, whatever the exchange.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spot",)
    """Kinds of markets: `spot`, and `um` for perpetuals margined in USD."""
    archive_url: ClassVar[str]
    """Base URL of the archive."""
    rest_urls: ClassVar[Mapping[str, str]] = {}
    """Kind of market -> base URL of the REST API; a kind without one is read from the archive alone."""
    has_checksums: ClassVar[bool] = True
    """Whether each file has a `.CHECKSUM` beside it: `<SHA-256>  <file name>`."""

    @abstractmethod
    def archive_path(self, kind: str, symbol: str, interval: str, period: str) -> str:
        """Return where the archive keeps a ZIP with one CSV, below its base URL.

        Args:
            kind: one of `kinds`.
            symbol: as the exchange writes it.
            interval: `1m`, or `FUNDING`.
            period: a month, `2024-07`, or a UTC day, `2024-07-01`.
        """

    @abstractmethod
    def parse_klines(self, text: bytes, span: Span, name: str) -> Klines:
        """Read the CSV of an archive file of one-minute bars.

        Args:
            text: the CSV.
            span: the time that the file is of.
            name: names the file in messages.

        Raises:
            ArchiveError: the text is not a table of bars of `span`.
        """

    def rest(self, kind: str) -> RestPages:
        """Return how bars of a kind of market are read from the REST API.

        Raises:
            ConfigError: this exchange has none.
        """
        raise ConfigError(f"data.exchange: {type(self).__name__} has no REST API for {kind}; run with --no-rest")

    def rest_query(self, symbol: str, start: int, end: int, limit: int) -> dict[str, str | int]:
        """Return the query of one page of one-minute bars that open in [start, end), UTC us."""
        raise NotImplementedError

    def rest_rows(self, answer: Any) -> Sequence[Sequence[Any]] | None:
        """Return the rows of a decoded answer in the order of `data.klines.RAW_COLUMNS`; None if it is no page."""
        return answer if isinstance(answer, list) else None


EXCHANGES: ExtensionPoint[type[Exchange]] = ExtensionPoint("data.exchange", "agent_bt.data.exchanges")


def register_exchange(name: str) -> Any:
    """Return a decorator that registers an exchange under the name that `data.exchange` gives."""
    return EXCHANGES.register(name)


def exchange_of(name: str) -> Exchange:
    """Return the exchange that `data.exchange` names: a registered name, or `module:Class`.

    Raises:
        ConfigError: there is no such exchange, or the class is not an `Exchange`.
    """
    found = EXCHANGES.load(name)
    if not (isinstance(found, type) and issubclass(found, Exchange)):
        raise ConfigError(f"data.exchange {name} is not an exchange; derive it from agent_bt.data.exchange.Exchange")
    return found()
