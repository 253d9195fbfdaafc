"""Define what an exchange must provide for its history to be downloaded; each is a module of `data.exchanges`."""

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
"""Used as the interval of the funding settlements of a perpetual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestPages:
    """The REST endpoint that serves the bars of one kind of market page by page.

    Attributes:
        path: path below the base URL.
        page: maximum number of rows of one page.
        used_header: response header with the request weight that this IP address has used in this minute; empty
            (default): none.
        used_limit: request weight that an IP address may use in a minute; default 0, unused without `used_header`.
    """

    path: str
    page: int
    used_header: str = ""
    used_limit: int = 0


class Exchange(ABC):
    """Base class of exchanges: the URLs and formats of their history.

    A subclass registers itself with `register_exchange` in a module of `agent_bt.data.exchanges` that has its name.
    Callers validate the rows of every exchange in the same way.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spot",)
    """Kinds of markets: `spot`, and `um` for perpetuals margined in USD."""
    archive_url: ClassVar[str]
    """Base URL of the archive."""
    rest_urls: ClassVar[Mapping[str, str]] = {}
    """Kind of market -> base URL of the REST API; a kind without one is read from the archive only."""
    has_checksums: ClassVar[bool] = True
    """Whether each file has a `.CHECKSUM` beside it: `<SHA-256>  <file name>`."""

    @abstractmethod
    def archive_path(self, kind: str, symbol: str, interval: str, period: str) -> str:
        """Return the path, below the base URL of the archive, of a ZIP with one CSV.

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
            span: the time that the file should cover, UTC us.
            name: name of the file in error messages.

        Raises:
            ArchiveError: the text is not a table of bars in `span`.
        """

    def rest(self, kind: str) -> RestPages:
        """Return the REST endpoint for the bars of a kind of market.

        Raises:
            ConfigError: this exchange has no REST API for it.
        """
        raise ConfigError(f"data.exchange: {type(self).__name__} has no REST API for {kind}; run with --no-rest")

    def rest_query(self, symbol: str, start: int, end: int, limit: int) -> dict[str, str | int]:
        """Return the query parameters of one page of one-minute bars.

        Args:
            symbol: as the exchange writes it.
            start: earliest open time, UTC us.
            end: end of the range of open times, exclusive, UTC us.
            limit: maximum number of rows of the page.
        """
        raise NotImplementedError

    def rest_rows(self, answer: Any) -> Sequence[Sequence[Any]] | None:
        """Return the rows of a decoded response, columns as `data.klines.RAW_COLUMNS`; None if it is not a page."""
        return answer if isinstance(answer, list) else None


EXCHANGES: ExtensionPoint[type[Exchange]] = ExtensionPoint("data.exchange", "agent_bt.data.exchanges")


def register_exchange(name: str) -> Any:
    """Return a decorator that registers an exchange under the name that `data.exchange` selects it by."""
    return EXCHANGES.register(name)


def exchange_of(name: str) -> Exchange:
    """Return the exchange that `data.exchange` names: a registered name, or `module:Class`.

    Raises:
        ConfigError: there is no such exchange, or the class is not an `Exchange`.
    """
    exchange = EXCHANGES.load(name)
    if not (isinstance(exchange, type) and issubclass(exchange, Exchange)):
        raise ConfigError(
            f"data.exchange {name} must be an exchange; derive the class from agent_bt.data.exchange.Exchange"
        )
    return exchange()
