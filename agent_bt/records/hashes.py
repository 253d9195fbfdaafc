"""The hashes by which two runs are compared: over canonical content, never over file bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.canonical import canonical, content_hash, tagged_hash
from agent_bt.records.schema import FILL, json_schema

DECISION_TAG = "agent-bt/decision/v1"
TELEMETRY_TAG = "agent-bt/telemetry/v1"


def content_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a decision's content, with the features window replaced by its hash.

    A window is thousands of numbers: hashing them as bytes takes a tenth of the time of hashing them as text.
    """
    if content.get("window") is None:
        return canonical(content)
    return canonical({**content, "window": window_hash(content["window"])})


def window_hash(window: Mapping[str, Any]) -> str:
    """Hash a features window: `close_time` (us) and columns of numbers, each a list or an array; None is NaN."""
    names = sorted(name for name in window if name != "close_time")
    times = np.asarray(window["close_time"], "<i8")
    values = np.concatenate([np.asarray(window[name], "<f8") for name in names])
    values[np.isnan(values)] = np.nan  # one NaN: its sign and payload differ between machines
    return tagged_hash("agent-bt/window/v1", canonical(names), times.tobytes(), values.tobytes())


def config_hash(identity: Mapping[str, Any]) -> str:
    """Hash the identity of a run: the part of its configuration that determines its result, as plain data."""
    return content_hash("agent-bt/config/v1", identity)


def data_hash(bars: pl.DataFrame) -> str:
    """Hash the bars of a run: names and values of all columns."""
    return _frame_hash("agent-bt/data/v1", bars)


def equity_hash(equity: pl.DataFrame) -> str:
    """Hash the equity curve: names and values of all columns."""
    return _frame_hash("agent-bt/equity/v1", equity)


def fills_hash(fills: pl.DataFrame) -> str:
    """Hash the fills, in order."""
    return content_hash("agent-bt/fills/v1", fills.select(list(FILL)).cast(json_schema(fills.schema)).to_dicts())


def _frame_hash(tag: str, frame: pl.DataFrame) -> str:
    parts: list[bytes] = []
    for column in frame:
        parts += [column.name.encode(), _values(column.to_physical())]
    return tagged_hash(tag, *parts)


def _values(column: pl.Series) -> bytes:
    """Return the little-endian bytes of a numeric column without nulls, or the canonical JSON of any other."""
    if column.null_count() or not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        return canonical(column.to_list())
    values = column.to_numpy()
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
