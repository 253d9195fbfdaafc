"""The market of a run and its views: what they hold, that they cannot be changed, and no look-ahead."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from agent_bt.core.clock import MINUTE, time_us
from agent_bt.core.errors import DataError
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.engine.market import Market

T0 = time_us("2024-07-01")
ROWS = 12


def make_bars(rows: int = ROWS) -> pl.DataFrame:
    opened = T0 + MINUTE * np.arange(rows)
    price = 100.0 + np.arange(rows)
    return pl.DataFrame(
        {
            "open_time": opened, "close_time": opened + MINUTE, "open": price, "high": price + 2, "low": price - 2,
            "close": price + 1, "volume": [0.0 if row in (3, 7) else 5.0 for row in range(rows)],
            "quote_asset_volume": 500.0, "trades": 3, "taker_base": 2.0, "taker_quote": 200.0,
            "filled": [row == 7 for row in range(rows)],
        }
    ).cast(dict(BAR_SCHEMA))  # fmt: skip


def make_market(start: int = T0, lookback: int = 4, rows: int = ROWS) -> Market:
    feature = np.arange(rows, dtype=float).reshape(-1, 1) * 10
    feature[:2] = np.nan
    return Market(
        symbols=("BTCUSDT",), bars=make_bars(rows), interval=MINUTE, start=start, features=feature,
        feature_names=["tens"], lookback=lookback,
    )  # fmt: skip


def test_a_view_holds_the_last_rows_up_to_its_bar_and_no_more() -> None:
    view = make_market().at(6)
    assert view.now == T0 + 7 * MINUTE
    assert view.times.tolist() == [T0 + minute * MINUTE for minute in (4, 5, 6, 7)]
    assert view.columns == (*BAR_COLUMNS, "tens")
    assert view.column("close").tolist() == [104.0, 105.0, 106.0, 107.0]
    assert view.column("tens").tolist() == [30.0, 40.0, 50.0, 60.0]
    assert view.prices == {"BTCUSDT": 107.0}
    assert view.latest("volume") == 5.0
    assert make_market().at(7).latest("filled") == 1.0


def test_a_view_early_in_the_market_is_short_not_padded() -> None:
    assert len(make_market().at(1)) == 2


def test_a_view_cannot_be_written_to_and_shares_no_memory_with_the_market() -> None:
    market = make_market()
    view = market.at(6)
    for array in (view.column("close"), view.matrix(), view.cross_section("close"), view.times):
        assert not np.shares_memory(array, market._data)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(TypeError):
        view.prices["BTCUSDT"] = 1.0  # type: ignore[index]
    assert market.at(6).column("close").tolist() == [104.0, 105.0, 106.0, 107.0]


def test_an_unknown_column_or_symbol_is_named_with_what_there_is() -> None:
    view = make_market().at(6)
    with pytest.raises(KeyError, match="no column 'ema' in view; there is open, high"):
        view.column("ema")
    with pytest.raises(KeyError, match="no symbol 'ETHUSDT' in view; there is BTCUSDT"):
        view.column("close", "ETHUSDT")


def test_the_frame_of_a_view_carries_both_times_of_each_bar() -> None:
    frame = make_market().at(6).frame()
    assert frame.columns[:3] == ["open_time", "close_time", "open"]
    assert (frame["close_time"] - frame["open_time"]).unique().to_list() == [
        pl.duration(minutes=1).pipe(pl.select).item()
    ]


def test_nothing_trades_on_filled_bars_and_on_bars_without_volume() -> None:
    market = make_market()
    assert np.flatnonzero(~market.traded[:, 0]).tolist() == [3, 7]
    assert np.flatnonzero(market.filled[:, 0]).tolist() == [7]


def test_the_first_bar_of_the_run_is_the_first_that_opens_at_or_after_the_start() -> None:
    assert make_market().first == 0
    assert make_market(start=T0 + 5 * MINUTE).first == 5
    # Two rows have no feature, and the window must hold four that do.
    assert make_market().ready == 5
    assert make_market(start=T0 + 9 * MINUTE).ready == 9


def test_a_start_after_the_last_bar_is_an_error() -> None:
    with pytest.raises(DataError, match="choose another start or end"):
        make_market(start=T0 + ROWS * MINUTE)


def test_a_market_that_never_has_all_features_is_never_ready() -> None:
    assert make_market(lookback=11).ready == 12
    assert make_market(lookback=10).ready == 11


@pytest.mark.parametrize("rows", [5, ROWS])
def test_the_head_of_a_market_equals_a_market_of_that_number_of_bars(rows: int) -> None:
    head, short = make_market().head(rows), make_market(rows=rows)
    assert len(head) == len(head.bars) == rows
    assert head.bars.equals(short.bars)
    for name in ("times", "open", "high", "low", "close", "traded", "filled"):
        assert np.array_equal(getattr(head, name), getattr(short, name))
    assert np.array_equal(head.at(rows - 1).matrix(), short.at(rows - 1).matrix(), equal_nan=True)
    assert len(make_market()) == ROWS
