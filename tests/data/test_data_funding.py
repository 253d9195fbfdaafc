"""Funding of perpetuals is fetched and validated like klines, and added to the bar at whose close it is due."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from fake_exchange import (
    FUNDING,
    UM_KLINES,
    FakeExchange,
    Fault,
    answer,
    csv,
    cut,
    flipped,
    funding_path,
    html,
    path_of,
    rows,
    settled,
    short,
    status,
    us,
    zipped,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent_bt.cli.data import app
from agent_bt.core.clock import HOUR, MINUTE
from agent_bt.core.errors import ArchiveError, DataError, Interrupted, MissingData
from agent_bt.core.schema import BAR_SCHEMA, TIME
from agent_bt.data.archive import Archive, archive_file, file_at
from agent_bt.data.backfill import BackfillResult
from agent_bt.data.exchange import FUNDING as FUNDING_RATE
from agent_bt.data.exchange import exchange_of
from agent_bt.data.funding import fetch_funding, load_funding, load_panel_funding, with_funding
from agent_bt.data.funding_backfill import backfill_funding
from agent_bt.data.panel import PanelSource, StorePanel
from agent_bt.data.rest import Rest
from agent_bt.data.sample import SampleSource
from agent_bt.data.settlements import FUNDING_SCHEMA, parse_funding_csv
from agent_bt.data.sources import ParquetSource, StoreSource
from agent_bt.data.spans import Span
from agent_bt.data.store import SETTLEMENTS, Store
from agent_bt.data.transport import Transport
from agent_bt.data.verify import repair, verify

FEBRUARY = Span(us("2021-02-01"), us("2021-03-01"))
Settle = Callable[..., BackfillResult]


@pytest.fixture
def ledger(tmp_path: Path) -> Store:
    return Store(tmp_path / "data", "BTCUSDT", "um", SETTLEMENTS)


@pytest.fixture
def settle(exchange: FakeExchange, ledger: Store, transport: Transport) -> Settle:
    """Return a function that backfills settlements: `settle("2021-02-01", "2021-03-01")`."""

    def run(start: str, end: str, *, rest: bool = False, now: str = "2022-01-01", **options: object) -> BackfillResult:
        endpoint = Rest(exchange.url, transport, "um") if rest else None
        archive = Archive(exchange.archive_url, transport)
        return backfill_funding(ledger, [Span(us(start), us(end))], archive, endpoint, now=us(now), **options)

    return run


def due(table: pl.DataFrame) -> list[int]:
    """Return the instants (us) at which recorded settlements were due."""
    return [at // 60_000 * MINUTE for at in table["calc_time"].to_list()]


def times(frame: pl.DataFrame) -> list[int]:
    return frame["funding_time"].cast(pl.Int64).to_list()


def test_archive_paths_are_those_that_the_exchange_publishes() -> None:
    file = archive_file(exchange_of("binance"), "um", "BTCUSDT", FUNDING_RATE, "2024-07")
    assert file.path == "futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-07.zip"
    klines = archive_file(exchange_of("binance"), "um", "BTCUSDT", "1m", "2024-07")
    assert klines.path == "futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-07.zip"
    for each in (
        file,
        klines,
        archive_file(exchange_of("binance"), "um", "BTCUSDT", "1m", "2024-07-02"),
        archive_file(exchange_of("binance"), "spot", "X", "1m", "2024-07-02"),
    ):
        assert file_at(each.path) == each


@pytest.mark.parametrize("header", [True, False])
def test_a_month_becomes_one_file_of_the_store(
    exchange: FakeExchange, ledger: Store, settle: Settle, header: bool
) -> None:
    table = settled("2021-02-01", "2021-03-01")
    content = exchange.publish_funding("2021-02", table, header=header)
    result = settle("2021-02-01", "2021-03-01")
    assert (result.added, result.warnings, result.failures) == (84, (), ())
    assert str(result).endswith("84 settlements added, 1 archive files")
    frame = pl.read_parquet(ledger.root / "um" / "BTCUSDT" / "funding" / "2021-02.parquet")
    assert frame.schema == FUNDING_SCHEMA
    assert (times(frame), frame["rate"].to_list()) == (due(table), table["last_funding_rate"].to_list())
    known = ledger.offsets()
    assert known.covered == (FEBRUARY,)
    [(path, source)] = known.sources.items()
    assert ("/data/" + path, source.size, source.rows) == (funding_path("2021-02"), len(content), 84)
    assert not Store(ledger.root, "BTCUSDT", "um").offsets().covered
    exchange.requested.clear()
    assert settle("2021-02-03", "2021-02-20").added == 0
    assert exchange.requested == []


def test_rest_has_the_newest_month(exchange: FakeExchange, ledger: Store, settle: Settle) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    exchange.settled = settled("2021-02-01", "2021-03-20")
    result = settle("2021-02-01", "2021-03-10T16:00", rest=True, now="2021-03-11")
    assert (result.added, result.warnings, result.failures) == (84 + 30, (), ())
    assert [query["limit"] for query in exchange.queries] == ["1000"]
    frame = fetch_funding(ledger.root, "BTCUSDT", us("2021-02-01"), us("2021-03-10T16:00"))
    assert times(frame) == [at for at in due(exchange.settled) if us("2021-02-01") < at <= us("2021-03-10T16:00")]
    exchange.requested.clear()
    assert settle("2021-02-01", "2021-03-10T16:00", rest=True, now="2021-03-11").added == 0
    assert exchange.requested == []


def test_the_settlement_at_the_end_of_a_range_is_fetched_but_not_required(
    exchange: FakeExchange, ledger: Store, settle: Settle
) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    assert settle("2021-02-01", "2021-03-01").warnings == ()
    assert times(fetch_funding(ledger.root, "BTCUSDT", *FEBRUARY))[-1] == us("2021-02-28T16:00")
    exchange.settled = settled("2021-02-01", "2021-03-20")
    assert settle("2021-02-01", "2021-03-01", rest=True).added == 1
    assert times(fetch_funding(ledger.root, "BTCUSDT", *FEBRUARY))[-1] == us("2021-03-01")


def test_an_unpublished_month_is_a_warning(exchange: FakeExchange, ledger: Store, settle: Settle) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    result = settle("2021-02-01", "2021-04-01")
    assert (result.added, result.failures) == (84, ())
    [warning] = result.warnings
    assert warning.startswith("funding of 2021-03-01T00:00Z to 2021-04-01T00:00Z: in no archive yet")
    with pytest.raises(MissingData, match="no funding for 2021-03-01T00:00Z to 2021-04-01T00:00Z") as error:
        fetch_funding(ledger.root, "BTCUSDT", us("2021-02-01"), us("2021-04-01"))
    command = f"agent-bt data backfill --kind um --symbol BTCUSDT --interval 1m --root {ledger.root} "
    assert command + "--start 2021-03-01 --end 2021-04-01" in str(error.value)
    exchange.publish_funding("2021-03", settled("2021-03-01", "2021-04-01"))
    assert settle("2021-02-01", "2021-04-01").added == 93


def test_a_settlement_that_a_file_lacks_comes_from_rest(exchange: FakeExchange, ledger: Store, settle: Settle) -> None:
    complete = settled("2021-02-01", "2021-03-01")
    exchange.publish_funding("2021-02", pl.concat([complete[:10], complete[11:]]))
    [warning] = settle("2021-02-01", "2021-03-01").warnings
    gap = due(complete)[10]
    assert warning.startswith("funding of 2021-02-04T08:00Z to 2021-02-04T08:01Z")
    with pytest.raises(MissingData, match="2021-02-04T08:00Z"):
        fetch_funding(ledger.root, "BTCUSDT", *FEBRUARY)
    [finding] = verify(ledger)
    assert (finding.level, finding.check, finding.span) == ("warning", "gap", Span(gap, gap + MINUTE))
    exchange.settled = complete
    assert settle("2021-02-01", "2021-03-01", rest=True).added == 1
    assert times(ledger.read(FEBRUARY)) == due(complete)
    assert verify(ledger) == []


def test_the_interval_may_change_and_a_listing_may_come_late(
    exchange: FakeExchange, ledger: Store, settle: Settle
) -> None:
    slow, fast = settled("2021-02-10T15:00", "2021-02-20"), settled("2021-02-20", "2021-03-01", hours=4)
    exchange.publish_funding("2021-02", pl.concat([slow, fast]))
    settle("2021-02-10", "2021-03-01")
    assert ledger.offsets().covered == (Span(us("2021-02-10T08:01"), us("2021-03-01")),)


def test_invalid_rows_are_left_out_and_their_time_is_not_covered() -> None:
    table = settled("2021-02-01", "2021-03-01").with_columns(pl.col("last_funding_rate").cast(pl.String))
    at = pl.int_range(pl.len())
    bad = table.with_columns(
        last_funding_rate=pl.when(at == 5)
        .then(pl.lit("1.5"))
        .when(at == 6)
        .then(pl.lit("nan"))
        .otherwise("last_funding_rate")
    )
    bad = pl.concat([bad[20:], bad[:20], bad[30:31], bad[40:41].with_columns(last_funding_rate=pl.lit("0.5"))])
    got = parse_funding_csv(csv(bad, header=True), FEBRUARY, "file")
    assert got.notes == {"out_of_order": 1, "duplicates": 1, "conflicting": 2, "unsound": 2}
    kept = [at for i, at in enumerate(due(table)) if i not in (5, 6, 40)]
    assert times(got.frame) == kept
    inside = [at for at in due(table) if any(span.start <= at < span.end for span in got.covered)]
    assert inside == kept


def test_times_in_microseconds_late_or_early_are_rounded_to_their_minute() -> None:
    table = settled("2021-02-01", "2021-03-01", late_ms=0)
    late = pl.int_range(pl.len()) * 700 % 60_000
    for stamps in (pl.col("calc_time") * 1000, pl.col("calc_time") + late.clip(0, 59_400)):
        got = parse_funding_csv(csv(table.with_columns(calc_time=stamps)), FEBRUARY, "file")
        assert times(got.frame) == due(table)
    early = table.with_columns(calc_time=pl.col("calc_time") - 200)
    assert times(parse_funding_csv(csv(early), FEBRUARY, "file").frame) == due(table)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>hello</html>",
        b"calc_time,funding_interval_hours,last_funding_rate\n",
        b"1,2\n",
        b"1612137600000,8,abc\n",
        b"1612137600000,8,0.0001,7\n",
        b"\x00\x01",
        csv(settled("2021-03-01", "2021-03-05")),
        csv(settled("2021-02-01", "2021-02-05").with_columns(last_funding_rate=pl.lit(2.0))),
        csv(rows("2021-02-01", "2021-02-02")),
    ],
)
def test_text_without_a_table_of_this_month_is_rejected(text: bytes) -> None:
    with pytest.raises(ArchiveError, match="file"):
        parse_funding_csv(text, FEBRUARY, "file")


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_are_rejected_with_one_error(text: bytes) -> None:
    with pytest.raises(ArchiveError):
        parse_funding_csv(text, FEBRUARY, "file")


# Faults


@pytest.mark.parametrize("ending", ["", ".CHECKSUM"])
@pytest.mark.parametrize("fault", [cut, html, status(500), status(429)])
def test_a_single_fault_is_retried(exchange: FakeExchange, settle: Settle, fault: Fault, ending: str) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    exchange.faults[funding_path("2021-02") + ending] = [fault]
    result = settle("2021-02-01", "2021-03-01")
    assert (result.added, result.warnings, result.failures) == (84, (), ())


@pytest.mark.parametrize("fault", [cut, short, flipped, html, status(500), status(403)])
def test_a_persistent_fault_is_a_failure_and_the_next_call_finishes(
    exchange: FakeExchange, ledger: Store, settle: Settle, fault: Fault
) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    exchange.publish_funding("2021-03", settled("2021-03-01", "2021-04-01"))
    exchange.faults[funding_path("2021-03")] = [fault] * 20
    result = settle("2021-02-01", "2021-04-01")
    assert result.added == 84
    [failure] = result.failures
    assert failure.startswith("funding of 2021-03-01T00:00Z to 2021-04-01T00:00Z: ")
    exchange.faults.clear()
    assert settle("2021-02-01", "2021-04-01").added == 93
    assert verify(ledger) == []


@pytest.mark.parametrize(
    "content",
    [
        b"PK no zip",
        zipped("../BTCUSDT-fundingRate-2021-02.csv", b"1"),
        zipped("BTCUSDT-1m-2021-02.csv", csv(settled("2021-02-01", "2021-03-01"))),
        zipped("BTCUSDT-fundingRate-2021-02.csv", b"<html>"),
    ],
)
def test_rest_replaces_an_invalid_file(exchange: FakeExchange, ledger: Store, settle: Settle, content: bytes) -> None:
    exchange.publish_funding("2021-02", content)
    assert len(settle("2021-02-01", "2021-03-01").failures) == 1
    exchange.settled = settled("2021-02-01", "2021-03-02")
    result = settle("2021-02-01", "2021-03-01", rest=True)
    assert (result.added, result.failures, len(result.warnings)) == (85, (), 1)


def test_a_file_with_a_wrong_checksum_is_rejected(exchange: FakeExchange, ledger: Store, settle: Settle) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    exchange.files[funding_path("2021-02") + ".CHECKSUM"] = b"0" * 64 + b"  BTCUSDT-fundingRate-2021-02.zip\n"
    [failure] = settle("2021-02-01", "2021-03-01").failures
    assert "the archive states 000000000000" in failure
    assert ledger.offsets().covered == ()


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[1]",
        b"[[1]]",
        b"<html>",
        b'[{"symbol": "BTCUSDT"}]',
        b'[{"symbol": "ETHUSDT", "fundingTime": 1612137600000, "fundingRate": "0.0001"}]',
        b'[{"symbol": "BTCUSDT", "fundingTime": 1612137600000, "fundingRate": "7"}]',
        b'[{"symbol": "BTCUSDT", "fundingTime": 1012137600000, "fundingRate": "0.0001"}]',
        b'[{"symbol": "BTCUSDT", "fundingTime": "x", "fundingRate": "0.0001"}]',
    ],
)
def test_invalid_rest_responses_are_rejected(
    exchange: FakeExchange, ledger: Store, settle: Settle, body: bytes
) -> None:
    exchange.faults[FUNDING] = [lambda request, _: answer(request, 200, body)] * 5
    result = settle("2021-02-01", "2021-03-01", rest=True)
    assert len(result.failures) == 1
    assert ledger.offsets().covered == ()


def test_rest_is_read_page_by_page(exchange: FakeExchange, transport: Transport) -> None:
    exchange.settled = settled("2021-01-01", "2021-04-01", hours=1)
    got = Rest(exchange.url, transport, "um").fetch_funding("BTCUSDT", Span(us("2021-01-02"), us("2021-03-30")))
    assert got.pages == 3
    assert times(got.frame) == [at for at in due(exchange.settled) if us("2021-01-02") <= at < us("2021-03-30")]


def test_klines_of_perpetuals_come_in_pages_of_1500(exchange: FakeExchange, transport: Transport) -> None:
    exchange.listed = rows("2021-02-01", "2021-02-04")
    got = Rest(exchange.url, transport, "um").fetch("BTCUSDT", Span(us("2021-02-01"), us("2021-02-04")))
    assert (got.pages, len(got.frame)) == (3, 3 * 1440)
    assert set(exchange.requested) == {UM_KLINES}
    assert {query["limit"] for query in exchange.queries} == {"1500"}


DAMAGE: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "order": lambda frame: frame.reverse(),
    "duplicates": lambda frame: pl.concat([frame[:10], frame[9:]]),
    "place": lambda frame: frame.with_columns(pl.col("funding_time") + pl.duration(seconds=1)),
    "rate": lambda frame: frame.with_columns(pl.col("rate") + 1.0),
}


@pytest.mark.parametrize("check", [*DAMAGE, "file", "replaced"])
def test_damage_is_found_and_fetched_again(
    exchange: FakeExchange, ledger: Store, settle: Settle, transport: Transport, check: str
) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    settle("2021-02-01", "2021-03-01")
    before = ledger.read_month("2021-02")
    archive = Archive(exchange.archive_url, transport)
    assert verify(ledger, archive=archive) == []
    if check == "file":
        ledger.path("2021-02").write_bytes(b"hello")
    elif check == "replaced":
        table = settled("2021-02-01", "2021-03-01").with_columns(last_funding_rate=pl.lit(0.0002))
        exchange.publish_funding("2021-02", table)
        before = before.with_columns(rate=pl.lit(0.0002))
    else:
        ledger.commit("2021-02", DAMAGE[check](before), covered=[], outages=[], sources={})
    findings = verify(ledger, archive=archive)
    assert (findings[0].level, findings[0].check) == ("error", check)
    repair(ledger, findings, archive, None, now=us("2022-01-01"))
    assert verify(ledger, archive=archive) == []
    assert ledger.read_month("2021-02").equals(before)


def test_minutes_without_their_funding_are_found_and_fetched(
    exchange: FakeExchange, ledger: Store, transport: Transport
) -> None:
    span = Span(us("2021-02-02"), us("2021-02-04"))
    minutes = Store(ledger.root, "BTCUSDT", "um")
    minutes.commit("2021-02", minutes.read_month("2021-02"), covered=[span], outages=[span], sources={})
    archive = Archive(exchange.archive_url, transport)
    [finding] = verify(ledger)
    assert (finding.level, finding.check, finding.span) == ("warning", "gap", span)
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    repair(ledger, [finding], archive, None, now=us("2022-01-01"))
    assert verify(ledger) == []
    [later] = verify(ledger, span=Span(span.start, us("2021-03-02")))
    assert later.span == Span(us("2021-03-01"), us("2021-03-02"))


def test_a_full_disk_is_a_failure_with_its_reason(
    exchange: FakeExchange, ledger: Store, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise DataError(f"{path}: cannot be written: No space left on device")

    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    with monkeypatch.context() as patch:
        patch.setattr("agent_bt.data.store.write_whole", full)
        [failure] = settle("2021-02-01", "2021-03-01").failures
    assert "No space left" in failure
    assert settle("2021-02-01", "2021-03-01").added == 84


def test_ctrl_c_is_an_interruption_and_the_next_call_finishes(
    exchange: FakeExchange, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "fetch", interrupted)
        with pytest.raises(Interrupted, match="same command"):
            settle("2021-02-01", "2021-03-01")
    assert settle("2021-02-01", "2021-03-01").added == 84


def test_a_repair_that_would_lose_settlements_keeps_the_stored_ones(
    exchange: FakeExchange, ledger: Store, settle: Settle
) -> None:
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    settle("2021-02-01", "2021-03-01")
    exchange.files.clear()
    result = settle("2021-02-01", "2021-03-01", refetch=["2021-02"])
    assert any("stored month is kept" in text for text in result.failures)
    assert len(ledger.read_month("2021-02")) == 84


# On the bars


def bars_of(interval: int, start: str, end: str) -> pl.DataFrame:
    opened = list(range(us(start), us(end), interval))
    count = len(opened)
    table = {name: [1.0] * count for name in BAR_SCHEMA} | {
        "open_time": opened,
        "close_time": [at + interval for at in opened],
        "trades": [1] * count,
        "filled": [False] * count,
    }
    return pl.DataFrame(table).with_columns(pl.col("open_time", "close_time").cast(TIME)).cast(BAR_SCHEMA)


def funding_of(*pairs: tuple[str, float]) -> pl.DataFrame:
    table = {"funding_time": [us(at) for at, _ in pairs], "rate": [rate for _, rate in pairs]}
    return pl.DataFrame(table, schema={"funding_time": pl.Int64, "rate": pl.Float64}).cast(FUNDING_SCHEMA)


def rates(bars: pl.DataFrame) -> dict[str, float]:
    paid = bars.filter(pl.col("funding_rate").is_not_null())
    return dict(zip(paid["close_time"].dt.strftime("%dT%H:%M"), paid["funding_rate"], strict=True))


def test_a_rate_is_on_the_bar_that_closes_at_its_instant() -> None:
    funding = funding_of(
        ("2021-02-01T00:00", 0.5), ("2021-02-01T08:00", 0.25), ("2021-02-02T00:00", -0.125), ("2021-02-02T08:00", 0.1)
    )
    for interval in (MINUTE, HOUR, 4 * HOUR):
        bars = bars_of(interval, "2021-02-01", "2021-02-02")
        paid = with_funding(bars, funding)
        assert paid.drop("funding_rate").equals(bars)
        assert paid.schema["funding_rate"] == pl.Float64
        assert rates(paid) == {"01T08:00": 0.25, "02T00:00": -0.125}


def test_settlements_within_a_long_bar_are_summed() -> None:
    funding = funding_of(("2021-02-01T08:00", 0.25), ("2021-02-01T16:00", 0.5), ("2021-02-02T00:00", -0.125))
    assert rates(with_funding(bars_of(24 * HOUR, "2021-02-01", "2021-02-04"), funding)) == {"02T00:00": 0.625}


def test_a_settlement_in_a_gap_is_paid_at_the_next_bar() -> None:
    bars = bars_of(HOUR, "2021-02-01", "2021-02-02")
    gap = bars.filter(~pl.col("open_time").dt.hour().is_between(6, 9))
    assert rates(with_funding(gap, funding_of(("2021-02-01T08:00", 0.25)))) == {"01T11:00": 0.25}


@settings(max_examples=40)
@given(
    minutes=st.lists(st.integers(-100, 3000), unique=True, max_size=30).map(sorted),
    interval=st.sampled_from([1, 5, 60, 240]),
    missing=st.sets(st.integers(0, 47), max_size=20),
)
def test_rates_equal_those_of_a_plain_loop(minutes: list[int], interval: int, missing: set[int]) -> None:
    start = us("2021-02-01")
    bars = bars_of(interval * MINUTE, "2021-02-01", "2021-02-02").filter(
        ~(pl.int_range(pl.len()) * interval // 30).is_in(sorted(missing))
    )
    rate = {start + minute * MINUTE: (i + 1) / 64 for i, minute in enumerate(minutes)}
    pairs = {"funding_time": list(rate), "rate": list(rate.values())}
    funding = pl.DataFrame(pairs, schema={"funding_time": pl.Int64, "rate": pl.Float64}).cast(FUNDING_SCHEMA)
    closes = bars["close_time"].cast(pl.Int64).to_list()
    expected: list[float | None] = []
    last = bars["open_time"].cast(pl.Int64).to_list()[0] if closes else 0
    for close in closes:
        inside = [share for at, share in rate.items() if last < at <= close]
        expected.append(sum(inside) if inside else None)
        last = close
    assert with_funding(bars, funding)["funding_rate"].to_list() == expected


def test_without_settlements_the_column_is_null() -> None:
    bars = bars_of(HOUR, "2021-02-01", "2021-02-02")
    assert with_funding(bars, funding_of())["funding_rate"].null_count() == 24
    empty = load_funding(SampleSource("BTCUSDT", 7), bars.clear())
    assert empty.schema == pl.Schema([*BAR_SCHEMA.items(), ("funding_rate", pl.Float64())])


# Sources


def test_the_store_gives_bars_with_their_funding(
    exchange: FakeExchange, ledger: Store, settle: Settle, transport: Transport
) -> None:
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03"), kind="um", header=True)
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    settle("2021-02-02", "2021-02-03")
    from agent_bt.data.backfill import backfill

    minutes = Store(ledger.root, "BTCUSDT", "um")
    span = Span(us("2021-02-02"), us("2021-02-03"))
    archive = Archive(exchange.archive_url, transport)
    assert backfill(minutes, [span], archive, None, now=us("2022-01-01")).added == 1440
    assert "/data/" + next(iter(minutes.offsets().sources)) == path_of("2021-02-02", kind="um")
    source = StoreSource(ledger.root, "BTCUSDT", kind="um")
    bars = source.fetch_ohlcv("15m", *span)
    assert bars.schema == BAR_SCHEMA
    expected = settled("2021-02-01", "2021-03-01")["last_funding_rate"][4:7].to_list()
    paid = load_funding(source, bars)
    assert rates(paid) == dict(zip(("02T08:00", "02T16:00", "03T00:00"), expected, strict=True))
    panel = StorePanel(ledger.root, ["BTCUSDT"], kind="um")
    together = load_panel_funding(panel, panel.fetch_panel("15m", *span))
    assert together.drop("symbol").equals(paid)
    with pytest.raises(MissingData, match="agent-bt data backfill --kind um"):
        source.fetch_ohlcv("1h", us("2021-03-01"), us("2021-03-02"))
    with pytest.raises(DataError, match=r"market\.kind must be um .* got spot"):
        StoreSource(ledger.root, "BTCUSDT").fetch_funding(*span)
    with pytest.raises(DataError, match=r"market\.kind must be um .* got spot"):
        StorePanel(ledger.root, ["BTCUSDT"]).fetch_funding("BTCUSDT", *span)


def test_rates_of_a_file_are_unchanged(tmp_path: Path) -> None:
    bars = with_funding(
        bars_of(HOUR, "2021-02-01", "2021-02-03"), funding_of(("2021-02-01T08:00", 0.25), ("2021-02-02T16:00", 0.5))
    )
    parts = [bars.with_columns(symbol=pl.lit(name)) for name in ("AUSDT", "BUSDT")]
    pl.concat([parts[0], parts[1][24:]]).write_parquet(tmp_path / "p.parquet")
    source = ParquetSource(tmp_path / "p.parquet", "AUSDT")
    span = (us("2021-02-01"), us("2021-02-03"))
    assert rates(load_funding(source, source.fetch_ohlcv("1h", *span))) == {"01T08:00": 0.25, "02T16:00": 0.5}
    panel = PanelSource(tmp_path / "p.parquet")
    wide = panel.fetch_panel("4h", *span)
    assert load_panel_funding(panel, wide).equals(wide)
    assert rates(wide.filter(symbol="AUSDT")) == {"01T08:00": 0.25, "02T16:00": 0.5}
    assert rates(wide.filter(symbol="BUSDT")) == {"02T16:00": 0.5}
    assert set(panel.fetch_panel("4h", us("2021-02-01"), us("2021-02-02"))["symbol"]) == {"AUSDT"}
    assert rates(panel.fetch_panel("1d", *span).filter(symbol="AUSDT")) == {"02T00:00": 0.25, "03T00:00": 0.5}
    bars.drop("funding_rate").with_columns(symbol=pl.lit("AUSDT")).write_parquet(tmp_path / "q.parquet")
    bare = PanelSource(tmp_path / "q.parquet")
    with pytest.raises(MissingData, match="no column funding_rate"):
        load_panel_funding(bare, bare.fetch_panel("1h", *span))


def test_the_sample_market_settles_every_eight_hours() -> None:
    source = SampleSource("BTCUSDT", 7)
    year = source.fetch_funding(us("2024-01-01"), us("2025-01-01"))
    assert times(year) == list(range(us("2024-01-01T08:00"), us("2025-01-01") + 1, 8 * HOUR))
    assert year["rate"].abs().max() <= 0.0075
    # As on the exchange, most settlements are exactly the interest rate, and the others go both ways.
    assert 0.3 < (year["rate"] == 0.0001).mean() < 0.9
    assert year["rate"].min() < 0 < 0.0001 < year["rate"].max()
    part = source.fetch_funding(us("2024-05-05T03:00"), us("2024-05-09"))
    assert part.equals(
        year.filter(pl.col("funding_time").is_between(part["funding_time"][0], part["funding_time"][-1]))
    )
    assert not SampleSource("ETHUSDT", 7).fetch_funding(us("2024-01-01"), us("2025-01-01")).equals(year)
    with pytest.raises(MissingData, match="2010-01-01"):
        source.fetch_funding(us("2009-01-01"), us("2010-02-01"))


# The commands


def test_commands_work_on_perpetuals(exchange: FakeExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_BT_DATA__ARCHIVE_URL", exchange.archive_url)
    monkeypatch.setenv("AGENT_BT_DATA__REST_URL_UM", exchange.url)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.exception
        return result.stdout

    gap = (("2021-02-01T10:00", "2021-02-01T10:30"),)
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02", without=gap), kind="um", header=True)
    exchange.listed = rows("2021-02-01T10:00", "2021-02-01T10:20")
    exchange.publish_funding("2021-02", settled("2021-02-01", "2021-03-01"))
    words = ("backfill", "--kind", "um", "--start", "2021-02-01", "--end", "2021-02-02")
    first = run(*words)
    assert "1,430 minutes added, 1 archive files, 1 REST pages, 10 minutes recorded as outages" in first
    assert "84 settlements added, 1 archive files" in first
    assert first.count("nothing missing") == 0
    assert run(*words).count("nothing missing, nothing fetched") == 2
    assert json.loads(run(*words, "--json"))["funding"]["complete"]
    [series] = json.loads(run("list", "--json"))["series"]
    assert (series["kind"], series["bars"], series["settlements"]) == ("um", 1430, 84)
    assert "84" in run("list")
    assert "funding covered: 2021-02-01T00:00Z to 2021-03-01T00:00Z" in run("info", "--kind", "um")
    assert json.loads(run("verify", "--kind", "um", "--remote", "--json"))["ok"]
    path = tmp_path / "data" / "um" / "BTCUSDT" / "funding" / "2021-02.parquet"
    path.write_bytes(b"hello")
    broken = CliRunner().invoke(app, ("verify", "--kind", "um"))
    assert "--repair" in str(broken.exception)
    assert "84 settlements added" in run("verify", "--kind", "um", "--repair")
    run("export", "--kind", "um", "-o", "x.csv", "--interval", "1h")
    assert len(pl.read_csv("x.csv")) == 24


def test_an_unpublished_month_of_funding_is_a_warning_of_the_command(
    exchange: FakeExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02"), kind="um")
    words = ("backfill", "--kind", "um", "--start", "2021-02-01", "--end", "2021-02-02", "--no-rest")
    result = CliRunner().invoke(app, (*words, "--archive-url", exchange.archive_url))
    assert result.exit_code == 0, result.exception
    assert "warning: funding of 2021-02-01T00:00Z to 2021-02-02T00:00Z: in no archive yet" in result.stderr
