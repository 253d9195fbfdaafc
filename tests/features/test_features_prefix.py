"""No feature and no summary depends on anything after its bar: on data[:t] they equal the full run at t, exactly."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.config.model import FeaturesConfig
from agent_bt.core.clock import DAY, HOUR, MINUTE
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import DaySummary, FeatureSpec
from agent_bt.features.compute import compute
from agent_bt.features.specs import KINDS, feature_specs
from agent_bt.features.summary import SummaryTable


def table(rows: int, seed: int, *, start: int = 20_000 * DAY, interval: int = HOUR, keep: float = 1.0) -> pl.DataFrame:
    """Return random bars with outages: some filled, and a fraction `1 - keep` of the rows dropped."""
    rng = np.random.default_rng(seed)
    open_time = start + np.arange(rows) * interval
    close = 100 * np.exp(rng.normal(size=rows).cumsum() * 0.01)
    opens = np.concatenate([[100.0], close[:-1]])[:rows]
    filled = rng.random(rows) < 0.1
    close = np.where(filled, opens, close)
    volume = np.where(filled, 0.0, rng.random(rows))
    frame = pl.DataFrame(
        {
            "open_time": open_time,
            "close_time": open_time + interval,
            "open": opens,
            "high": np.maximum(opens, close) * np.where(filled, 1.0, 1.001),
            "low": np.minimum(opens, close) * np.where(filled, 1.0, 0.999),
            "close": close,
            "volume": volume,
            "quote_asset_volume": volume * close,
            "trades": np.where(filled, 0, 5),
            "taker_base": volume * 0.4,
            "taker_quote": volume * close * 0.4,
            "filled": filled,
        }
    ).cast(BAR_SCHEMA)
    return frame.filter(pl.Series(rng.random(rows) < keep))


def slow_summary(bars: pl.DataFrame, bar: int, interval: int, mode: str) -> list[DaySummary]:
    """Compute the summary from its definition, row by row."""
    seen = bars[: bar + 1].with_columns(pl.col("open_time", "close_time").to_physical()).to_dicts()
    now = seen[-1]["close_time"]
    end = now if mode == "rolling" else now - now % DAY
    result = []
    for back in range(7, 0, -1):
        start = end - back * DAY
        day = [row for row in seen if start <= row["open_time"] < start + DAY]
        priced = [row for row in day if not row["filled"]]
        if start < seen[0]["open_time"] or not priced:
            continue
        volume = sum(row["volume"] for row in day)
        result.append(
            DaySummary(
                start=start,
                open=priced[0]["open"],
                high=max(row["high"] for row in priced),
                low=min(row["low"] for row in priced),
                close=priced[-1]["close"],
                volume=pytest.approx(volume),
                taker_share=pytest.approx(sum(row["taker_base"] for row in day) / volume if volume else 0.0),
                filled_share=pytest.approx(1 - sum(not row["filled"] for row in day) * interval / DAY, abs=1e-12),
            )
        )
    return result


@given(st.integers(0, 120), st.data(), st.integers(0, 1_000))
@settings(max_examples=40)
def test_every_kind_is_prefix_invariant(rows: int, data: st.DataObject, seed: int) -> None:
    bars = table(rows, seed)
    cut = data.draw(st.integers(0, rows))
    period = data.draw(st.integers(2, 30))
    given_periods = {"fast": 3, "slow": 3 + period, "signal": 4, "period": period, "deviations": 2}
    specs = [
        FeatureSpec(column=name, kind=name, params=tuple((p, given_periods[p]) for p in kind.params))
        for name, kind in KINDS.items()
    ]
    np.testing.assert_array_equal(compute(bars[:cut], specs), compute(bars, specs)[:cut])
    # The bars that came later may be anything, and the bits stay.
    other = pl.concat([bars[:cut], bars[cut:].with_columns(pl.col("open", "high", "low", "close") * 7.0)])
    np.testing.assert_array_equal(compute(other, specs)[:cut], compute(bars, specs)[:cut])


@given(st.integers(1, 24 * 9), st.integers(0, 23), st.sampled_from(["calendar", "rolling"]), st.data())
@settings(max_examples=40)
def test_summary_is_prefix_invariant_and_equals_its_definition(
    rows: int, hour: int, mode: str, data: st.DataObject
) -> None:
    keep = data.draw(st.sampled_from([1.0, 0.9, 0.05]))
    bars = table(rows, seed=rows + hour, start=20_000 * DAY + hour * HOUR, keep=keep)
    if len(bars) == 0:
        return
    bar = data.draw(st.integers(0, len(bars) - 1))
    found = SummaryTable(bars, HOUR, mode).at(bar)
    assert found == SummaryTable(bars[: bar + 1], HOUR, mode).at(bar)
    assert list(found) == slow_summary(bars, bar, HOUR, mode)


@pytest.mark.parametrize("mode", ["calendar", "rolling"])
def test_summary_grows_to_seven_days_of_whole_minutes(mode: str) -> None:
    bars = table(9 * 1440, seed=3, interval=MINUTE)
    summary = SummaryTable(bars, MINUTE, mode)
    assert summary.at(1438) == ()
    for bar in (1439, 2 * 1440 + 700, 8 * 1440, 9 * 1440 - 1):
        found = summary.at(bar)
        assert len(found) == min(7, (bar + 1) // 1440)
        assert list(found) == slow_summary(bars, bar, MINUTE, mode)


def test_a_day_is_complete_with_its_last_bar_and_not_before() -> None:
    bars = table(48, seed=5)
    summary = SummaryTable(bars, HOUR, "calendar")
    assert [day.start for day in summary.at(23)] == [20_000 * DAY]
    assert summary.at(22) == ()


def test_a_day_that_began_before_the_data_is_not_complete() -> None:
    bars = table(60, seed=5, start=20_000 * DAY + HOUR)
    assert [day.start for day in SummaryTable(bars, HOUR, "calendar").at(59)] == [20_001 * DAY]


def test_dropping_gaps_or_filling_them_gives_the_same_filled_share() -> None:
    bars = table(24 * 8, seed=9)
    dropped = bars.filter(~pl.col("filled"))
    full = SummaryTable(bars, HOUR, "calendar").at(len(bars) - 1)
    thin = SummaryTable(dropped, HOUR, "calendar").at(len(dropped) - 1)
    shares = {day.start: day.filled_share for day in full}
    assert max(shares.values()) > 0
    assert all(day.filled_share == pytest.approx(shares[day.start]) for day in thin)


FLAT = (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("mode", ["calendar", "rolling"])
@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        # Day 0 trades at 100, day 1 at 50, day 2 at 60, each an hour from 1 below to 1 above; filled bars carry on.
        ([], [(100, 101, 99, 100), (50, 51, 49, 50), (60, 61, 59, 60)]),
        (range(22, 27), [(100, 101, 99, 100), (50, 51, 49, 50), (60, 61, 59, 60)]),  # over the first midnight
        (range(30, 50), [(100, 101, 99, 100), (50, 51, 49, 50), (60, 61, 59, 60)]),  # over the second one
        (range(24, 48), [(100, 101, 99, 100), FLAT, (60, 61, 59, 60)]),  # a whole day
        (range(20, 72), [(100, 101, 99, 100), FLAT, FLAT]),  # to the end
    ],
)
def test_forward_filled_prices_are_no_open_high_low_or_close(
    filled: Iterable[int], expected: list[tuple[float, ...]], mode: str
) -> None:
    gone = set(filled)
    bars, last = table(72, seed=2), 0.0
    prices = []
    for row in range(72):
        price = (100.0, 50.0, 60.0)[row // 24]
        prices.append((last,) * 4 if row in gone else (price, price + 1, price - 1, price))
        last = prices[-1][3]
    made = {name: [each[at] for each in prices] for at, name in enumerate(("open", "high", "low", "close"))}
    bars = bars.with_columns(
        *(pl.Series(name, values) for name, values in made.items()),
        pl.Series("filled", [row in gone for row in range(72)]),
        pl.Series("volume", [0.0 if row in gone else 1.0 for row in range(72)]),
    )
    found = {day.start // DAY - 20_000: day for day in SummaryTable(bars, HOUR, mode).at(71)}
    wanted = {day: values for day, values in enumerate(expected) if values != FLAT}
    assert {day: (each.open, each.high, each.low, each.close) for day, each in found.items()} == wanted


def test_an_unknown_summary_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be calendar or rolling"):
        SummaryTable(table(3, seed=1), HOUR, "weekly")


@pytest.mark.verify
@given(st.integers(0, 2_000), st.integers(0, 10_000), st.data())
@settings(max_examples=1_000)
def test_default_columns_are_prefix_invariant_at_length(rows: int, seed: int, data: st.DataObject) -> None:
    bars = table(rows, seed)
    cut = data.draw(st.integers(0, rows))
    specs = feature_specs(FeaturesConfig())
    np.testing.assert_array_equal(compute(bars[:cut], specs), compute(bars, specs)[:cut])
