"""The result of a run as CSV and JSON for other programs, derived from its tables and summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import polars as pl

_PERIOD = ("start", "end", "interval")
_ISO = pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def build_exports(summary: Mapping[str, Any], equity: pl.DataFrame, fills: pl.DataFrame) -> dict[str, bytes]:
    """Build the files, by name; none for a run of one symbol whose decisions a model made.

    Args:
        summary: of the run.
        equity: columns of `EQUITY_SCHEMA`.
        fills: columns of `FILL_SCHEMA`.
    """
    if summary.get("portfolio") is None and summary["about"].get("model"):
        return {}
    return {
        "nav_history.csv": build_nav_history(equity, summary["about"]["initial_cash"]),
        "trade_log.json": build_trade_log(fills),
        "backtest_summary.json": build_backtest_summary(summary),
    }


def build_nav_history(equity: pl.DataFrame, initial_cash: float) -> bytes:
    """Build `nav_history.csv`, one row per bar.

    `time` is the close of the bar, `nav` the equity, `return` its change since the previous row (in the first row:
    since the starting cash), `drawdown` <= 0, `cash` in quote units, `exposure` a fraction of equity.

    Args:
        equity: columns of `EQUITY_SCHEMA`.
        initial_cash: starting cash, quote units.
    """
    before = pl.col("equity").shift(1, fill_value=initial_cash)
    table = equity.select(
        time=_ISO,
        nav=pl.col("equity"),
        **{"return": pl.col("equity") / before - 1.0},
        drawdown=pl.col("drawdown"),
        cash=pl.col("cash"),
        exposure=pl.col("exposure"),
    )
    return table.write_csv().encode()


def build_trade_log(fills: pl.DataFrame) -> bytes:
    """Build `trade_log.json`: every fill in order, columns of `FILL_SCHEMA`, times in ISO 8601."""
    return _json(fills.with_columns(time=_ISO).to_dicts())


def build_backtest_summary(summary: Mapping[str, Any]) -> bytes:
    """Build `backtest_summary.json`: the results in `summary.json`."""
    about = summary["about"]
    return _json(
        {
            "name": about.get("name"),
            "strategy": about.get("strategy"),
            "period": {key: about.get(key) for key in _PERIOD},
            **{key: summary.get(key) for key in ("performance", "portfolio", "decisions", "hashes")},
        }
    )


def _json(data: Any) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
