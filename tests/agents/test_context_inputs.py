"""Inputs of a template: tables, summary and account, against an independent computation of every cell."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_cases import COLUMNS, FLAT, NOW, holding, make_view

from agent_bt.agents.context import prompt_context
from agent_bt.core.clock import DAY, HOUR, MINUTE
from agent_bt.core.errors import PromptError
from agent_bt.core.types import Portfolio, Position
from agent_bt.core.view import BAR_COLUMNS, MarketView

WRITTEN = ("close", "high", "volume", "ema_fast", "rsi", "cmf", "macd_hist", "atr", "filled")
DECIMALS = {
    "close": 1,
    "high": 1,
    "volume": 0,
    "ema_fast": 1,
    "rsi": 1,
    "cmf": 0,
    "macd_hist": 2,
    "atr": 2,
    "filled": 0,
}


def inputs(view: MarketView, portfolio: Portfolio = FLAT, **more: Any) -> dict[str, Any]:
    return prompt_context(view, portfolio, **{"window": 60, "every": HOUR, **more})


def expected(name: str, values: list[float], last: float) -> list[float]:
    """Return the value of a cell by the definition of its column."""
    if name in ("close", "high", "ema_fast"):
        return [(value / last - 1) * 10_000 for value in values]
    if name in ("macd_hist", "atr"):
        return [value / last * 10_000 for value in values]
    if name == "volume":
        mean = sum(values) / len(values)
        return [value / mean * 100 for value in values]
    return [value * 100 for value in values] if name == "cmf" else values


@given(st.integers(0, 1_000), st.integers(1, 60), st.sampled_from([1e-5, 5e-4, 0.02]))
@settings(max_examples=25)
def test_every_cell_of_the_window_is_correct_to_its_last_decimal(seed: int, rows: int, step: float) -> None:
    view = make_view(seed, rows=rows, step=step)
    header, *lines = inputs(view)["window"].table(*WRITTEN).split("\n")
    assert header == ",".join(WRITTEN)
    assert len(lines) == rows
    for at, name in enumerate(WRITTEN):
        cells = [line.split(",")[at] for line in lines]
        shape = rf"-?\d+\.\d{{{DECIMALS[name]}}}" if DECIMALS[name] else r"-?\d+"
        assert all(re.fullmatch(shape, cell) for cell in cells), name
        assert not any(re.fullmatch(r"-0(\.0*)?", cell) for cell in cells), name
        wanted = expected(name, view.column(name).tolist(), view.prices["BTCUSDT"])
        np.testing.assert_allclose([float(cell) for cell in cells], wanted, atol=0.5 / 10 ** DECIMALS[name] + 1e-6)


def test_last_row_is_the_last_line_of_the_table_with_names() -> None:
    window = inputs(make_view())["window"]
    cells = window.table("rsi", "volume", "atr").split("\n")[-1].split(",")
    assert window.last("rsi", "volume", "atr") == f"rsi {cells[0]}, volume {cells[1]}, atr {cells[2]}"


def test_undefined_values_are_na_and_an_outage_has_no_volume() -> None:
    view = make_view(rows=3, warm=10)
    view._data.flags.writeable = True
    view.matrix()[:, BAR_COLUMNS.index("volume")] = 0.0
    assert inputs(view)["window"].table("volume", "rsi").split("\n")[1:] == ["0,na", "0,na", "0,na"]


def test_window_is_the_last_rows_of_the_view() -> None:
    view = make_view(rows=60)
    short = inputs(view, window=10)["window"]
    assert short.rows == 10
    assert short.column("close") == view.column("close")[-10:].tolist()


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(PromptError, match=r"no column 'ema_fats' .*; did you mean '?ema_fast'?\?"):
        inputs(make_view())["window"].table("ema_fats")


def test_features_are_the_last_values() -> None:
    view = make_view()
    assert inputs(view)["features"] == {name: view.latest(name) for name in COLUMNS[len(BAR_COLUMNS) :]}


def test_summary_counts_its_days_back_from_now() -> None:
    view = make_view(days=3, price=100.0)
    summary = inputs(view)["summary"]
    header, *lines = summary.table("day", "high", "low", "close", "volume", "taker_share", "filled_share").split("\n")
    assert header.startswith("day,high,low,close")
    assert [line.split(",")[0] for line in lines] == ["-3", "-2", "-1"]
    assert [line.split(",")[4:] for line in lines] == [["50", "48", "0"], ["100", "48", "0"], ["150", "48", "0"]]
    last = view.prices["BTCUSDT"]
    for line, day in zip(lines, view.summary, strict=True):
        wanted = [(value / last - 1) * 10_000 for value in (day.high, day.low, day.close)]
        np.testing.assert_allclose([float(cell) for cell in line.split(",")[1:4]], wanted, atol=0.5 + 1e-9)


def test_rolling_days_end_now_and_the_last_one_is_minus_one() -> None:
    view = make_view(days=2)
    view.summary = tuple(
        replace(day, start=view.now - back * DAY) for day, back in zip(view.summary, (2, 1), strict=True)
    )
    assert inputs(view)["summary"].table("day") == "day\n-2\n-1"


def test_the_place_of_the_price_in_the_range_of_the_days() -> None:
    view = make_view(days=1)
    price = view.prices["BTCUSDT"]
    for low, high, place in ((price - 3, price + 1, 75), (price + 10, price + 20, -100), (price, price, None)):
        view.summary = (replace(view.summary[0], low=low, high=high),)
        assert inputs(view)["summary"].place == place
    view.summary = ()
    empty = inputs(view)["summary"]
    assert (empty.days, empty.high, empty.low, empty.place) == (0, None, None, None)
    assert empty.table("day", "close") == "day,close"


def test_account_is_coarse_where_it_is_shown_and_exact_beside_it() -> None:
    view = make_view()
    price = view.prices["BTCUSDT"]
    account = inputs(view, holding(view, 0.256, gain=0.0249, hours=5))["account"]
    assert (account.position, account.unrealised, account.held, account.bars_held) == (26, 2, 5, 300)
    assert account.equity == pytest.approx(10_000)
    assert account.cash == pytest.approx(7_440)
    assert account.quantity * price == pytest.approx(2_560)
    assert account.average_price == pytest.approx(price / 1.0249)


def test_a_flat_account_is_all_zero() -> None:
    account = inputs(make_view())["account"]
    assert (account.position, account.unrealised, account.held, account.bars_held, account.quantity) == (0, 0, 0, 0, 0)


def test_a_short_position_gains_when_the_price_falls() -> None:
    view = make_view()
    price = view.prices["BTCUSDT"]
    short = Position(quantity=-0.05, average_price=price * 1.05, opened=view.now)
    account = inputs(view, Portfolio(cash=10_000.0, positions={"BTCUSDT": short}))["account"]
    assert account.position < 0 < account.unrealised


def test_time_and_durations() -> None:
    found = inputs(make_view(), every=90 * MINUTE, sizing="equity")
    assert found["time"] == datetime.fromtimestamp(NOW / 1e6, UTC)
    assert (found["symbol"], found["interval"], found["every"], found["sizing"]) == ("BTCUSDT", "1m", "90m", "equity")
