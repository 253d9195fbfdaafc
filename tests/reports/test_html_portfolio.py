"""The report of a run over several symbols as a file: holdings, attribution, and the candles of each symbol."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from portfolio_runs import make_portfolio_run
from report_runs import make_run
from test_html_pack import candles, unpack

from agent_bt.core.errors import RecordError
from agent_bt.records import holdings_schema
from agent_bt.records.read import Run, load_run
from agent_bt.reports.html import write_report
from agent_bt.reports.html_decisions import Decisions
from agent_bt.reports.html_format import plain
from agent_bt.reports.html_portfolio import NAMED, Portfolio, build_portfolio_facts, read_portfolio
from agent_bt.reports.html_symbols import Symbols, short_names

SECTIONS = ("portfolio", "holdings-chart", "exposure-chart", "legs-chart", "turnover-chart", "attribution", "symbol")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(make_portfolio_run(tmp_path_factory.mktemp("runs"), symbols=14, bars=590))


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def portfolio(run: Run) -> Portfolio:
    tables = read_portfolio(run)
    assert tables is not None
    return tables


@pytest.fixture(scope="module")
def facts(run: Run, portfolio: Portfolio) -> dict[str, Any]:
    symbols = Symbols(run.market, run.fills, "")
    return build_portfolio_facts(portfolio, summary=run.summary, fills=run.fills, closes=symbols.last_closes())


def packed(page: str, name: str) -> str:
    found = re.search(rf'id="{name}-block">([A-Za-z0-9+/=]*)</script>', page)
    assert found
    return found[1]


def test_every_symbol_has_its_own_candles(run: Run, page: str) -> None:
    names = run.market["symbol"].unique().sort().to_list()
    assert json.loads(re.findall(r'id="settings">(.*)</script>', page)[0])["symbols"] == names
    for at, name in enumerate(names):
        bars = run.market.filter(pl.col("symbol") == name)
        shown = candles(packed(page, f"candles-{at}"))
        for column in ("open", "high", "low", "close"):
            np.testing.assert_allclose(shown[column], bars[column].to_numpy(), rtol=1e-9, atol=0)
        np.testing.assert_array_equal(shown["time"], bars["open_time"].to_physical().to_numpy() // 1000)


def test_it_opens_with_the_most_traded_symbol(run: Run) -> None:
    traded: dict[str, float] = {}
    for fill in run.fills.iter_rows(named=True):
        traded[fill["symbol"]] = traded.get(fill["symbol"], 0.0) + abs(fill["quantity"] * fill["price"])
    symbols = Symbols(run.market, run.fills, "")
    assert symbols.names[symbols.first] == max(traded, key=lambda symbol: traded[symbol])


def test_areas_of_holdings_add_up_to_long_and_short_exposure(page: str, portfolio: Portfolio) -> None:
    areas = {name: np.array(values) for name, values in unpack(packed(page, "holdings")).items()}
    named = [areas[str(at)] for at in range(NAMED)]
    long = sum(np.maximum(area, 0.0) for area in named) + areas["long"]
    short = sum(np.minimum(area, 0.0) for area in named) + areas["short"]
    np.testing.assert_allclose(long, portfolio.rebalances["long"].to_numpy(), atol=1e-4)
    np.testing.assert_allclose(short, portfolio.rebalances["short"].to_numpy(), atol=1e-4)
    assert (areas["long"] > 0).any()
    first = portfolio.snapshots.filter(pl.col("bar") == pl.col("bar").min())
    for at, symbol in enumerate(portfolio.named()):
        held = first.filter(pl.col("symbol") == symbol)["share"].to_list()
        assert named[at][0] == pytest.approx(held[0] if held else 0.0, abs=1e-5)


def test_the_ten_most_held_symbols_are_named(portfolio: Portfolio) -> None:
    held: dict[str, float] = {}
    for row in portfolio.snapshots.iter_rows(named=True):
        held[row["symbol"]] = held.get(row["symbol"], 0.0) + abs(row["share"])
    assert portfolio.named() == sorted(held, key=lambda symbol: -held[symbol])[:10]


def test_legs_and_costs_add_up_to_the_result(run: Run, page: str) -> None:
    legs = unpack(packed(page, "legs"))
    assert legs["total"][-1] == pytest.approx(run.summary["performance"]["total_pnl"], abs=0.02)
    for long, short, costs, total in zip(
        *(legs[name] for name in ("long_pnl", "short_pnl", "costs", "total")), strict=True
    ):
        assert total == pytest.approx(long + short + costs, abs=0.02)  # type: ignore[operator]
    for long, short, net in zip(*(legs[name] for name in ("long", "short", "net")), strict=True):
        assert short <= 0 <= long  # type: ignore[operator]
        assert net == pytest.approx(long + short, abs=1e-4)  # type: ignore[operator]


def test_attribution_is_sorted_and_its_bars_share_one_zero(facts: dict[str, Any], portfolio: Portfolio) -> None:
    pnl = dict(portfolio.attribution.select("symbol", "pnl").iter_rows())
    rows = facts["attribution"]
    assert [row["symbol"] for row in rows] == sorted(pnl, key=lambda symbol: -pnl[symbol])
    zero = rows[0]["zero"]
    span = max(*pnl.values(), 0.0) - min(*pnl.values(), 0.0)
    for row in rows:
        value = pnl[row["symbol"]]
        assert row["width"] == pytest.approx(100 * abs(value) / span, abs=0.02)
        assert (row["left"] if value >= 0 else row["left"] + row["width"]) == pytest.approx(zero, abs=0.03)
    assert facts["totals"]["pnl"] == f"{sum(pnl.values()):,.2f}".replace("-", "\u2212")


def test_final_positions_are_the_sum_of_the_fills(run: Run, facts: dict[str, Any]) -> None:
    held: dict[str, float] = {}
    for fill in run.fills.iter_rows(named=True):
        held[fill["symbol"]] = held.get(fill["symbol"], 0.0) + fill["quantity"]
    closes = {row["symbol"]: row["close"] for row in run.market.iter_rows(named=True)}
    values = {symbol: quantity * closes[symbol] for symbol, quantity in held.items()}
    values = {symbol: value for symbol, value in values.items() if abs(value) > 0.01}
    rows = facts["holdings"]
    assert [row["symbol"] for row in rows] == sorted(values, key=lambda symbol: -values[symbol])
    for row in rows:
        assert row["value"] == pytest.approx(values[row["symbol"]])
        assert row["side"] == ("long" if values[row["symbol"]] > 0 else "short")
    assert {"long", "short"} == {row["side"] for row in rows}


def test_delisted_symbols_are_named(run: Run, page: str, facts: dict[str, Any]) -> None:
    (gone,) = run.summary["portfolio"]["delisted"]
    assert f"delisted during the run: {gone}<" in page
    assert [row["symbol"] for row in facts["attribution"] if row["delisted"]] == [gone]
    assert gone not in [row["symbol"] for row in facts["holdings"]]


def test_long_lists_of_targets_and_cuts_are_shortened(run: Run) -> None:
    short = short_names(run.market["symbol"].unique().to_list())
    block = Decisions(run.folder.decisions).index(short)["texts"]
    shown = json.loads(zlib.decompress(base64.b64decode(block)))
    for at, row in enumerate(run.decisions.iter_rows(named=True)):
        sides = []
        for mark, sign in (("+", 1), ("\u2212", -1)):
            held = [entry for entry in row["targets"] if sign * entry["share"] > 0]
            held.sort(key=lambda entry: -abs(entry["share"]))
            words = [f"{short[entry['symbol']]} {100 * abs(entry['share']):.1f}".removesuffix(".0") for entry in held]
            sides.append(mark + ", ".join(f"{word}%" for word in words[:6]))
        assert shown["targets"][at] == " / ".join(sides)
        assert shown["cuts"][at] == "; ".join(
            f"{short[cut['symbol']]} clipped: max_position" for cut in row["risk_cuts"]
        )
    assert len(shown["targets"]) == len(run.decisions)
    assert any(shown["cuts"])


def test_a_common_quote_currency_is_removed_from_names() -> None:
    assert short_names(["BTCUSDT", "1000PEPEUSDT"]) == {"BTCUSDT": "BTC", "1000PEPEUSDT": "1000PEPE"}
    assert short_names(["BTCUSDT", "ETHBTC"]) == {"BTCUSDT": "BTCUSDT", "ETHBTC": "ETHBTC"}
    assert short_names(["USDT", "BTCUSDT"])["BTCUSDT"] == "BTCUSDT"


def test_prices_of_any_magnitude_are_readable() -> None:
    values = (63_123.456, 1_234_567.8, 99.5, 0.00000684, -0.5, 0.0, None)
    assert [plain(value) for value in values] == [
        "63,123.46", "1,234,568", "99.5", "0.00000684", "\u22120.5", "0.00", "–",
    ]  # fmt: skip


def test_only_runs_over_several_symbols_have_portfolio_sections(page: str, tmp_path: Path) -> None:
    one = write_report(make_run(tmp_path, 5)).read_text(encoding="utf-8")
    for name in SECTIONS:
        assert f'id="{name}"' in page
        assert f'id="{name}"' not in one


def test_the_tables_here_are_those_of_a_run(portfolio: Portfolio) -> None:
    assert portfolio.snapshots.schema == holdings_schema.SNAPSHOT_SCHEMA
    assert portfolio.rebalances.schema == holdings_schema.REBALANCE_SCHEMA
    assert portfolio.attribution.schema == holdings_schema.ATTRIBUTION_SCHEMA
    assert portfolio.legs.schema == holdings_schema.LEGS_SCHEMA


def test_a_missing_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    run = make_portfolio_run(tmp_path, symbols=4, bars=120)
    (run / "legs.parquet").unlink()
    with pytest.raises(RecordError, match=r"has no legs\.parquet"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_weights_of_zero_equity_count_as_zero(portfolio: Portfolio) -> None:
    at_nothing = portfolio.legs.with_columns(gross=pl.lit(float("inf")), long=pl.lit(float("nan")))
    blocks = replace(portfolio, legs=at_nothing).blocks()
    assert set(unpack(blocks["legs"])["gross"]) == {0.0}
    assert unpack(blocks["legs"])["net"] == unpack(blocks["legs"])["short"]


def test_a_run_over_several_symbols_without_decisions_has_a_report(tmp_path: Path) -> None:
    run = make_portfolio_run(tmp_path, symbols=4, bars=120)
    for name in ("decisions", "fills", "snapshots", "rebalances"):
        pl.read_parquet(run / f"{name}.parquet").head(0).write_parquet(run / f"{name}.parquet")
    assert "No positions at the end" in write_report(run).read_text(encoding="utf-8")


def test_without_model_calls_the_page_has_no_sections_about_replies(page: str, tmp_path: Path) -> None:
    with_model = write_report(make_portfolio_run(tmp_path, symbols=4, bars=120, uses_model=True)).read_text(
        encoding="utf-8"
    )
    for words in ('id="failed"', 'id="filter-source"', 'id="only-failed"', 'id="model"', "next failed reply"):
        assert words not in page
        assert words in with_model
