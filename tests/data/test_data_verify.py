"""Verification finds every kind of damage, and repair fetches it again."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from fake_exchange import FakeExchange, path_of, rows, us

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import DataError
from agent_bt.data.archive import Archive
from agent_bt.data.backfill import BackfillResult
from agent_bt.data.rest import Rest
from agent_bt.data.spans import Span
from agent_bt.data.store import Store, series_in
from agent_bt.data.transport import Transport
from agent_bt.data.verify import Finding, repair, unconfirmed, verify

Fill = Callable[..., BackfillResult]
FIRST, SECOND = Span(us("2021-02-01"), us("2021-02-02")), Span(us("2021-02-02"), us("2021-02-03"))


@pytest.fixture
def two_days(exchange: FakeExchange, store: Store, fill: Fill) -> pl.DataFrame:
    """Fill the store with two complete days and return their rows."""
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02"))
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03"))
    fill("2021-02-01", "2021-02-03")
    return store.read_month("2021-02")


@pytest.fixture
def repair_and_verify(exchange: FakeExchange, store: Store, transport: Transport) -> Callable[..., list[Finding]]:
    """Return a function that repairs the store and verifies it again."""

    def run(findings: list[Finding], *, rest: bool = False) -> list[Finding]:
        endpoint = Rest(exchange.url, transport) if rest else None
        archive = Archive(exchange.archive_url, transport)
        repair(store, findings, archive, endpoint, now=us("2022-01-01"))
        return verify(store, archive=archive)

    return run


def put(store: Store, frame: pl.DataFrame) -> None:
    """Commit `frame` as the month with matching offsets, so that only the rows show the damage."""
    store.commit("2021-02", frame, covered=[], outages=[], sources={})


def at(row: int, **values: pl.Expr) -> list[pl.Expr]:
    here = pl.int_range(pl.len()) == row
    return [pl.when(here).then(value).otherwise(pl.col(name)).alias(name) for name, value in values.items()]


def later(frame: pl.DataFrame) -> pl.DataFrame:
    away = pl.duration(days=60)
    return frame.with_columns(pl.col("open_time") + away, pl.col("close_time") + away)


DAMAGE: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "order": lambda frame: pl.concat([frame[:100], frame[200:], frame[100:200]]),
    "duplicates": lambda frame: pl.concat([frame[:100], frame[99:]]),
    "place": lambda frame: pl.concat([frame, later(frame[:3])]),
    "ohlc": lambda frame: frame.with_columns(at(5, high=pl.col("low") - 1)),
    "close_time": lambda frame: frame.with_columns(at(5, close_time=pl.col("close_time") - pl.duration(seconds=7))),
}


@pytest.mark.parametrize("check", DAMAGE)
def test_damaged_rows_are_found_and_fetched_again(
    store: Store, two_days: pl.DataFrame, repair_and_verify: Callable[..., list[Finding]], check: str
) -> None:
    put(store, DAMAGE[check](two_days))
    findings = verify(store)
    assert {(finding.level, finding.check) for finding in findings} == {("error", check)}
    assert repair_and_verify(findings) == []
    assert store.read_month("2021-02").equals(two_days)


def test_an_intact_store_has_no_findings(store: Store, two_days: pl.DataFrame) -> None:
    assert len(two_days) == 2880
    assert verify(store) == []
    assert verify(store, span=Span(FIRST.start, SECOND.end)) == []


def test_gaps_are_found_in_the_whole_range_and_not_only_between_first_and_last_row(
    store: Store, two_days: pl.DataFrame, repair_and_verify: Callable[..., list[Finding]]
) -> None:
    put(store, two_days[60:-60])
    findings = verify(store)
    assert [(finding.level, finding.check, finding.span) for finding in findings] == [
        ("warning", "gap", Span(FIRST.start, FIRST.start + 60 * MINUTE)),
        ("warning", "gap", Span(SECOND.end - 60 * MINUTE, SECOND.end)),
    ]
    assert unconfirmed(store, store.offsets()) == [finding.span for finding in findings]


def test_repair_requests_a_gap_from_rest(
    exchange: FakeExchange, store: Store, two_days: pl.DataFrame, repair_and_verify: Callable[..., list[Finding]]
) -> None:
    put(store, two_days[60:])
    exchange.listed = rows("2021-02-01", "2021-02-01T00:50")
    [finding] = repair_and_verify(verify(store), rest=True)
    assert (finding.level, finding.check) == ("info", "outage")
    assert "2021-02-01T00:50Z to 2021-02-01T01:00Z" in finding.message


def test_a_span_never_fetched_is_an_error_and_can_be_repaired(
    exchange: FakeExchange, store: Store, two_days: pl.DataFrame, repair_and_verify: Callable[..., list[Finding]]
) -> None:
    span = Span(FIRST.start, us("2021-02-04"))
    [finding] = verify(store, span=span)
    assert (finding.level, finding.check, finding.span) == ("error", "gap", Span(SECOND.end, us("2021-02-04")))
    exchange.publish("2021-02-03", rows("2021-02-03", "2021-02-04"))
    repair_and_verify([finding])
    assert verify(store, span=span) == []


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "unrecorded", "other columns", "no parquet"])
def test_a_damaged_file_is_found_and_fetched_again(
    store: Store, two_days: pl.DataFrame, repair_and_verify: Callable[..., list[Finding]], damage: str
) -> None:
    path = store.path("2021-02")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1000])
    elif damage == "changed":
        two_days.with_columns(volume=pl.col("volume") * 2, taker_base=pl.lit(0.0)).write_parquet(path)
    elif damage == "gone":
        path.unlink()
    elif damage == "unrecorded":
        store.offsets_path.unlink()
    elif damage == "other columns":
        two_days.drop("trades").write_parquet(path)
    else:
        path.write_bytes(b"hello")
    findings = verify(store)
    assert {(finding.level, finding.check) for finding in findings} == {("error", "file")}
    assert repair_and_verify(findings) == []
    assert store.read_month("2021-02").equals(two_days)


def test_a_backfill_repairs_a_damaged_month_of_its_range(store: Store, two_days: pl.DataFrame, fill: Fill) -> None:
    store.path("2021-02").write_bytes(b"hello")
    assert fill("2021-02-01", "2021-02-03").added == 2880
    assert store.read_month("2021-02").equals(two_days)


def test_bars_without_volume_before_a_gap_are_a_finding(store: Store, two_days: pl.DataFrame) -> None:
    quiet = pl.int_range(pl.len()).is_between(500, 529)
    nothing = [pl.when(quiet).then(0.0).otherwise(pl.col(n)).alias(n) for n in ("volume", "taker_base")]
    put(store, pl.concat([two_days.with_columns(nothing)[:530], two_days[600:]]))
    by_check = {finding.check: finding for finding in verify(store)}
    assert set(by_check) == {"gap", "quiet_tail"}
    assert by_check["quiet_tail"].message.startswith("30 bars without volume directly before 2021-02-01T08:50Z")


def test_bars_without_volume_at_the_end_are_a_finding(store: Store, two_days: pl.DataFrame) -> None:
    quiet = pl.int_range(pl.len()) >= 2800
    put(store, two_days.with_columns(pl.when(quiet).then(0.0).otherwise(pl.col(n)).alias(n)
                                     for n in ("volume", "taker_base")))  # fmt: skip
    [finding] = verify(store)
    assert finding.check == "quiet_tail"
    assert finding.message.startswith("80 bars")


def test_a_change_of_unit_between_and_within_files_is_a_finding(
    exchange: FakeExchange, store: Store, fill: Fill
) -> None:
    exchange.publish("2021-02-01", rows("2021-02-01", "2021-02-02"))
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03", unit="us"))
    mixed = [rows("2021-02-03", "2021-02-03T12:00", unit="us"), rows("2021-02-03T12:00", "2021-02-04")]
    exchange.publish("2021-02-03", pl.concat(mixed))
    fill("2021-02-01", "2021-02-04")
    messages = [finding.message for finding in verify(store) if finding.check == "unit"]
    assert len(messages) == 2
    assert any("changes at 2021-02-03T12:00Z" in message for message in messages)
    assert any("from ms to us at 2021-02-02T00:00Z" in message for message in messages)


def test_an_archive_file_replaced_later_is_found_and_fetched(
    exchange: FakeExchange,
    store: Store,
    two_days: pl.DataFrame,
    transport: Transport,
    repair_and_verify: Callable[..., list[Finding]],
) -> None:
    archive = Archive(exchange.archive_url, transport)
    assert verify(store, archive=archive) == []
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03").with_columns(pl.col("volume") + 1))
    [finding] = verify(store, archive=archive)
    assert (finding.level, finding.check) == ("error", "replaced")
    assert repair_and_verify([finding]) == []
    after = store.read_month("2021-02")["volume"]
    assert after[:1440].equals(two_days["volume"][:1440])
    assert (after[1440:] - two_days["volume"][1440:]).round(5).unique().to_list() == [1.0]


def test_a_repair_that_would_lose_rows_keeps_the_stored_ones(
    exchange: FakeExchange,
    store: Store,
    two_days: pl.DataFrame,
    transport: Transport,
    repair_and_verify: Callable[..., list[Finding]],
) -> None:
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03").with_columns(pl.col("volume") + 1))
    findings = verify(store, archive=Archive(exchange.archive_url, transport))
    del exchange.files[path_of("2021-02-01")]
    assert {finding.check for finding in repair_and_verify(findings)} == {"replaced"}
    assert store.read_month("2021-02").equals(two_days)


def test_a_file_removed_from_the_archive_is_not_an_error(
    exchange: FakeExchange, store: Store, two_days: pl.DataFrame, transport: Transport
) -> None:
    exchange.files.clear()
    findings = verify(store, archive=Archive(exchange.archive_url, transport))
    assert {(finding.level, finding.check) for finding in findings} == {("info", "replaced")}
    nowhere = verify(store, archive=Archive("http://127.0.0.1:1/data", transport))
    assert {(finding.level, finding.check) for finding in nowhere} == {("warning", "replaced")}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "klines_1m": {"covered": [["x", "y"]]}}']
)
def test_unreadable_offsets_are_an_error_with_a_remedy(store: Store, two_days: pl.DataFrame, text: str) -> None:
    store.offsets_path.write_text(text)
    with pytest.raises(DataError, match=r"offsets\.json"):
        verify(store)


def test_the_stores_of_a_root_are_listed(store: Store, two_days: pl.DataFrame) -> None:
    [listed] = series_in(store.root)
    assert (listed.kind, listed.symbol, listed.folder) == ("spot", "BTCUSDT", store.folder)
    assert series_in(store.root / "nowhere") == []
