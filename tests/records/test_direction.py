"""The direction of target weights follows from their orders; a record and a table give the same."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.records.direction import direction, direction_column

ORDERS = pl.List(pl.Struct({"symbol": pl.String, "lots": pl.Int64, "quantity": pl.Float64}))


def record(action: str, lots: list[int]) -> dict[str, object]:
    orders = [{"symbol": f"S{at}", "lots": lot, "quantity": lot / 10} for at, lot in enumerate(lots)]
    return {"action": action, "orders": orders}


def test_the_direction_of_targets_is_that_of_their_orders() -> None:
    for action, lots, expected in (
        ("TARGETS", [3], "BUY"),
        ("TARGETS", [-3], "SELL"),
        ("TARGETS", [-3, 2, -1], "BUY"),
        ("TARGETS", [], "HOLD"),
        ("HOLD", [], "HOLD"),
        ("BUY", [], "BUY"),
        ("SELL", [5], "SELL"),
    ):
        assert direction(record(action, lots)) == expected


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("TARGETS", "BUY", "SELL", "HOLD")),
            st.lists(st.integers(-5, 5).filter(bool), max_size=4),
        ),
        max_size=8,
    )
)
def test_a_table_gives_the_direction_of_each_record(rows: list[tuple[str, list[int]]]) -> None:
    records = [record(action, lots) for action, lots in rows]
    table = pl.DataFrame(records, schema={"action": pl.String, "orders": ORDERS})
    assert table.select(side=direction_column())["side"].to_list() == [direction(one) for one in records]
