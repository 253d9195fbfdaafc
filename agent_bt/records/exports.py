"""The result of a run in files that any other program reads: CSV and JSON, told from the tables and the summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import polars as pl

_PERIOD = ("start", "end", "interval")
_ISO = pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def exports_of(summary: Mapping[str, Any], equity: pl.DataFrame, fills: pl.DataFrame) -> dict[str, bytes]:
    """The files by name; none for a run of one symbol whose decisions a model made, which has its report and tables."""
    if summary.get("portfolio") is None and summary["about"].get("model"):
        return {}
    return {
        "nav_history.csv": nav_history(equity, summary["about"]["initial_cash"]),
        "trade_log.json": trade_log(fills),
        "backtest_summary.json": backtest_summary(summary),
    }


def nav_history(equity: pl.DataFrame, initial_cash: float) -> bytes:
    """`nav_history.csv`: one row a bar, from the columns of `EQUITY_SCHEMA`.

    `time` is the close of the bar, `nav` the equity, `return` its change since the row before (at first: since the
    starting cash), `drawdown` <= 0; `cash` in quote units, `exposure` a share of the equity.
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


def trade_log(fills: pl.DataFrame) -> bytes:
    """`trade_log.json`: every fill in order, its columns those of `FILL_SCHEMA`, times in ISO 8601."""
    return _json(fills.with_columns(time=_ISO).to_dicts())


def backtest_summary(summary: Mapping[str, Any]) -> bytes:
    """`backtest_summary.json`: the part of `summary.json` that says what came out."""
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
