"""Read the archive Binance Vision and the REST APIs of Binance spot and USD-margined perpetuals."""

from __future__ import annotations

from agent_bt.data.exchange import FUNDING, Exchange, RestPages, register_exchange
from agent_bt.data.klines import Klines, parse_csv
from agent_bt.data.spans import Span

_FOLDERS = {"spot": "spot", "um": "futures/um"}
_USED = "x-mbx-used-weight-1m"


@register_exchange("binance")
class Binance(Exchange):
    """Provide Binance's spot market as `spot`, and its USD-margined perpetuals as `um`."""

    kinds = ("spot", "um")
    archive_url = "https://data.binance.vision/data"
    rest_urls = {"spot": "https://data-api.binance.vision", "um": "https://fapi.binance.com"}  # noqa: RUF012

    def archive_path(self, kind: str, symbol: str, interval: str, period: str) -> str:
        """Return a path such as `spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-07.zip`.

        Args:
            kind: `spot` or `um`.
            symbol: such as `BTCUSDT`.
            interval: `1m`, or `FUNDING`.
            period: a month, `2024-07`, or a UTC day, `2024-07-01`.
        """
        frequency = "monthly" if len(period) == len("2024-07") else "daily"
        below = f"{FUNDING}/{symbol}" if interval == FUNDING else f"klines/{symbol}/{interval}"
        return f"{_FOLDERS[kind]}/{frequency}/{below}/{symbol}-{interval}-{period}.zip"

    def parse_klines(self, text: bytes, span: Span, name: str) -> Klines:
        """Read a CSV of klines, with or without a header line, in milliseconds or microseconds.

        Args:
            text: the CSV.
            span: the time that the file should cover, UTC us.
            name: name of the file in error messages.

        Raises:
            ArchiveError: the text is not a table of klines in `span`.
        """
        return parse_csv(text, span, name)

    def rest(self, kind: str) -> RestPages:
        """Return the klines endpoint; the request weight of a page is 2 for `spot`, 10 for `um`."""
        if kind == "um":
            return RestPages(path="/fapi/v1/klines", page=1500, used_header=_USED, used_limit=2400)
        return RestPages(path="/api/v3/klines", page=1000, used_header=_USED, used_limit=6000)

    def rest_query(self, symbol: str, start: int, end: int, limit: int) -> dict[str, str | int]:
        """Return the query parameters of one page of klines.

        Args:
            symbol: such as `BTCUSDT`.
            start: earliest open time, UTC us.
            end: end of the range of open times, exclusive, UTC us.
            limit: maximum number of rows of the page.
        """
        times = {"startTime": start // 1000, "endTime": end // 1000 - 1}
        return {"symbol": symbol, "interval": "1m", **times, "limit": limit}
