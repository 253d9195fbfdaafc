"""Packed values are restored by an independent slow reader; JSON in a script element cannot end it."""

from __future__ import annotations

import base64
import json
import math
import zlib
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import MINUTE, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.reports.html_curves import MAX_CANDLES, pack_candles
from agent_bt.reports.html_pack import (
    Column,
    decimals_of,
    pack_columns,
    pack_json,
    quantise,
    script_json,
    significant_decimals,
)


def unpack(block: str) -> dict[str, list[float | None]]:
    """Decode one value after another, as described in `pack_columns`."""
    data = zlib.decompress(base64.b64decode(block))
    length = int.from_bytes(data[:4], "little")
    at, out = 4 + length, {}
    for head in json.loads(data[4:at]):
        values: list[float | None] = []
        total = 0
        for row in range(head["count"]):
            places = range(head["width"])
            code = sum(data[at + plane * head["count"] + row] << (8 * plane) for plane in places)
            if head["nullable"]:
                if code == 0:
                    values.append(None)
                    continue
                code -= 1
            value = -(code + 1) // 2 if code % 2 else code // 2
            total = total + value if head["delta"] else value
            values.append(total / 10 ** head["decimals"])
        out[head["name"]] = values
        at += head["width"] * head["count"]
    assert at == len(data)
    return out


whole = st.integers(-(2**50), 2**50)


@settings(max_examples=50)
@given(codes=st.lists(whole, max_size=20), delta=st.booleans())
def test_integers_are_restored(codes: list[int], delta: bool) -> None:
    column = Column(name="a", codes=np.array(codes, np.int64), delta=delta)
    assert unpack(pack_columns([column, column]))["a"] == codes


@settings(max_examples=50)
@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), max_size=20),
    decimals=st.integers(0, 6),
    delta=st.booleans(),
)
def test_floats_are_restored_rounded_and_missing_ones_stay_missing(
    values: list[float], decimals: int, delta: bool
) -> None:
    out = unpack(pack_columns([quantise("a", np.array(values), decimals, delta=delta)]))["a"]
    for value, back in zip(values, out, strict=True):
        if math.isnan(value):
            assert back is None
        else:
            assert back is not None
            assert abs(back - value) <= 0.5000001 * 10.0**-decimals


def test_prices_keep_the_decimals_they_have() -> None:
    assert decimals_of(np.array([57893.12, 1.5])) == 2
    assert decimals_of(np.array([0.00001234, 1.0])) == 8
    assert decimals_of(np.array([0.000012345, 0.00001])) == 9
    assert decimals_of(np.array([3.0])) == 0
    assert decimals_of(np.array([math.pi, math.nan])) == 7
    assert significant_decimals(np.array([12345.678]), 8) == 3


@settings(max_examples=50)
@given(st.text())
def test_json_in_a_script_element_cannot_end_it(text: str) -> None:
    value: Any = {"a": text + "</script><!--\u2028\u2029&"}
    written = script_json(value)
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == value


def test_json_blocks_are_restored() -> None:
    value = [{"a": "</script>", "b": [1, None, True], "c": "\x00漢"}]
    assert json.loads(zlib.decompress(base64.b64decode(pack_json(value)))) == value


def bars_of(count: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    o, c = np.round(rng.uniform(99, 101, (2, count)), 2)
    times = time_us("2024-01-01") + np.arange(count) * MINUTE
    return pl.DataFrame(
        {
            "open_time": times, "close_time": times + MINUTE, "open": o, "high": np.round(np.maximum(o, c) + 0.5, 2),
            "low": np.round(np.minimum(o, c) - 0.25, 2), "close": c, "volume": rng.integers(0, 50, count),
            "quote_asset_volume": c, "trades": np.ones(count), "taker_base": c, "taker_quote": c,
            "filled": np.zeros(count, bool),
        }
    ).cast(BAR_SCHEMA)  # fmt: skip


def candles(block: str) -> dict[str, np.ndarray]:
    raw = {name: np.array(values, float) for name, values in unpack(block).items()}
    before = np.concatenate([[0.0], raw["close"][:-1]])
    o = np.concatenate([raw["first_open"], (before + raw["open"])[1:]])
    body_top, body_bottom = np.maximum(o, raw["close"]), np.minimum(o, raw["close"])
    return {**raw, "open": o, "high": body_top + raw["high"], "low": body_bottom - raw["low"]}


def test_candles_are_restored_exactly() -> None:
    bars = bars_of(500)
    out = candles(pack_candles(bars))
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_allclose(out[name], bars[name].to_numpy(), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(out["time"], bars["open_time"].to_physical().to_numpy() // 1000)
    assert out["span"].tolist() == [60_000]


def test_too_many_bars_are_merged_as_polars_would(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_CANDLES >= 366 * 1440 / 2
    monkeypatch.setattr("agent_bt.reports.html_curves.MAX_CANDLES", 100)
    bars = bars_of(403)
    expected = bars.group_by_dynamic("open_time", every="5m").agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    out = candles(pack_candles(bars))
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_allclose(out[name], expected[name].to_numpy(), rtol=0, atol=1e-9)
    assert out["span"].tolist() == [300_000]
