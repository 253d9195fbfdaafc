"""After faults of network, server and disk, and kill -9, the next call finishes and no reader sees partial data."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import polars as pl
import pytest
from fake_exchange import (
    KLINES,
    FakeExchange,
    Fault,
    answer,
    csv,
    cut,
    flipped,
    html,
    path_of,
    rows,
    short,
    status,
    us,
    zipped,
)

from agent_bt.core.errors import ArchiveError, DataError
from agent_bt.data import archive as archive_module
from agent_bt.data import transport as transport_module
from agent_bt.data.archive import ArchiveFile, archive_file, unzip
from agent_bt.data.backfill import BackfillResult
from agent_bt.data.exchange import exchange_of
from agent_bt.data.files import TEMPORARY, write_whole
from agent_bt.data.rest import Rest
from agent_bt.data.spans import Span
from agent_bt.data.store import Store
from agent_bt.data.transport import Banned, Transport, Unreachable
from agent_bt.data.verify import verify

Fill = Callable[..., BackfillResult]
DAY = "2021-02-01"
NAME = f"BTCUSDT-1m-{DAY}"


def publish_day(exchange: FakeExchange) -> pl.DataFrame:
    table = rows(DAY, "2021-02-02")
    exchange.publish(DAY, table)
    return table


ON_THE_WAY = [cut, html, status(500), status(503), status(429)]


@pytest.mark.parametrize(
    ("ending", "fault"),
    [*[("", fault) for fault in (*ON_THE_WAY, short, flipped)], *[(".CHECKSUM", fault) for fault in ON_THE_WAY]],
)
def test_a_single_fault_is_retried(exchange: FakeExchange, store: Store, fill: Fill, fault: Fault, ending: str) -> None:
    table = publish_day(exchange)
    where = path_of(DAY) + ending
    exchange.faults[where] = [fault]
    result = fill(DAY, "2021-02-02")
    assert (result.failures, result.warnings) == ((), ())
    assert store.read_month("2021-02")["close"].to_list() == table["close"].to_list()


@pytest.mark.parametrize("fault", [cut, short, html, flipped, status(500), status(403)])
def test_a_persistent_fault_fails_and_the_next_call_finishes(
    exchange: FakeExchange, store: Store, fill: Fill, fault: Fault
) -> None:
    publish_day(exchange)
    exchange.publish("2021-02-02", rows("2021-02-02", "2021-02-03"))
    exchange.faults[path_of("2021-02-02")] = [fault] * 20
    result = fill(DAY, "2021-02-03")
    assert result.added == 1440
    assert len(result.failures) == 1
    assert result.failures[0].startswith("2021-02-02T00:00Z to 2021-02-03T00:00Z")
    exchange.faults.clear()
    exchange.requested.clear()
    assert fill(DAY, "2021-02-03").added == 1440
    assert path_of(DAY) not in exchange.requested
    assert verify(store) == []


def test_daily_files_replace_a_month_with_a_wrong_checksum(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    exchange.publish("2021-02", rows("2021-02-01", "2021-03-01"))
    exchange.files[path_of("2021-02") + ".CHECKSUM"] = b"0" * 64 + b"  BTCUSDT-1m-2021-02.zip\n"
    publish_day(exchange)
    result = fill(DAY, "2021-02-02")
    assert result.added == 1440
    assert result.failures == ()
    assert "the archive states 000000000000" in result.warnings[0]


@pytest.mark.parametrize(
    "checksum",
    [None, b"", b"\xff" * 80, b"<html></html>", b"0" * 64, b"0" * 64 + b"  BTCUSDT-1m-2021-02-09.zip\n"],
)
def test_a_file_without_its_checksum_is_rejected(exchange: FakeExchange, fill: Fill, checksum: bytes | None) -> None:
    publish_day(exchange)
    if checksum is None:
        del exchange.files[path_of(DAY) + ".CHECKSUM"]
    else:
        exchange.files[path_of(DAY) + ".CHECKSUM"] = checksum
    result = fill(DAY, "2021-02-02")
    assert result.added == 0
    assert "CHECKSUM" in result.failures[0]


def two_members() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as container:
        container.writestr(f"{NAME}.csv", "1")
        container.writestr("more.csv", "1")
    return content.getvalue()


def zip_with_a_wrong_size() -> bytes:
    content = bytearray(zipped(f"{NAME}.csv", b"7" * 200_000))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(signature) + offset
        content[at : at + 4] = (1000).to_bytes(4, "little")
    return bytes(content)


def encrypted() -> bytes:
    content = bytearray(zipped(f"{NAME}.csv", b"1"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    return bytes(content)


INVALID_ZIPS = {
    "empty": b"",
    "no zip": b"PK\x03\x04 and then nothing",
    "truncated": zipped(f"{NAME}.csv", csv(rows(DAY, "2021-02-02")))[:-3000],
    "two members": two_members(),
    "no member": zipped(f"{NAME}.csv", b"1")[-22:].replace(b"\x01\x00\x01\x00", b"\x00\x00\x00\x00"),
    "a path": zipped(f"../{NAME}.csv", b"1"),
    "an absolute path": zipped(f"/tmp/{NAME}.csv", b"1"),
    "another name": zipped("BTCUSDT-1m-2021-02-02.csv", b"1"),
    "encrypted": encrypted(),
    "lying about its size": zip_with_a_wrong_size(),
}


@pytest.mark.parametrize("what", INVALID_ZIPS)
def test_an_invalid_zip_is_rejected(exchange: FakeExchange, store: Store, fill: Fill, what: str) -> None:
    with pytest.raises(ArchiveError):
        unzip(INVALID_ZIPS[what], archive_file(exchange_of("binance"), "spot", "BTCUSDT", "1m", DAY))
    exchange.publish(DAY, INVALID_ZIPS[what])
    result = fill(DAY, "2021-02-02")
    assert result.failures
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [".lock"]


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_TEXT", 2**20)
    file: ArchiveFile = archive_file(exchange_of("binance"), "spot", "BTCUSDT", "1m", DAY)
    bomb = zipped(f"{NAME}.csv", b"1" * 50 * 2**20)
    assert len(bomb) < 2**20
    with pytest.raises(ArchiveError, match="at most 1 MiB"):
        unzip(bomb, file)


def test_an_endless_download_is_ended(
    exchange: FakeExchange, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_DOWNLOAD", 2**20)
    exchange.files["/data/x"] = b"1" * (2**20 + 1)
    with pytest.raises(DataError, match="at most 1 MiB"):
        transport.get(f"{exchange.url}/data/x")


def test_an_archive_in_a_folder_needs_no_server(tmp_path: Path, transport: Transport) -> None:
    (tmp_path / "a file").write_bytes(b"content")
    answer = transport.get((tmp_path / "a file").as_uri())
    assert answer is not None
    assert answer.body == b"content"
    assert transport.get((tmp_path / "none").as_uri()) is None
    with pytest.raises(DataError, match="cannot be read"):
        transport.get(tmp_path.as_uri())
    for url in ("ftp://x/y", "data", "http://", ""):
        with pytest.raises(DataError, match="must begin with http"):
            transport.get(url)


def test_retry_after_is_honoured_in_seconds_and_as_a_date(
    exchange: FakeExchange, transport: Transport, pauses: list[float]
) -> None:
    exchange.files["/data/x"] = b"content"
    later = formatdate(us("2100-01-01") / 1e6, usegmt=True)
    exchange.faults["/data/x"] = [status(429, {"Retry-After": "17"}), status(503, {"Retry-After": "3"}), status(500)]
    assert transport.get(f"{exchange.url}/data/x") is not None
    assert pauses[:2] == [17.0, 3.0]
    assert 1.0 < pauses[2] < 3.0
    exchange.faults["/data/x"] = [status(429, {"Retry-After": later})]
    with pytest.raises(Banned):
        transport.get(f"{exchange.url}/data/x")


def test_a_ban_stops_all_requests(exchange: FakeExchange, fill: Fill, pauses: list[float]) -> None:
    publish_day(exchange)
    exchange.faults[path_of("2021-02")] = [status(418, {"Retry-After": "300"})]
    result = fill(DAY, "2021-04-01", rest=True, jobs=1)
    assert exchange.requested == [path_of("2021-02")]
    assert pauses == []
    assert "banned or throttled this address (HTTP 418); wait 300 s" in result.failures[0]


def test_an_unreachable_server_is_tried_once_for_all_files(
    store: Store, transport: Transport, pauses: list[float]
) -> None:
    from agent_bt.data.archive import Archive
    from agent_bt.data.backfill import backfill

    nowhere = Archive("http://127.0.0.1:1/data", transport)
    result = backfill(store, [Span(us("2021-02-01"), us("2021-04-01"))], nowhere, None, now=us("2022-01-01"), jobs=1)
    assert len(pauses) == 4
    assert all("127.0.0.1:1 cannot be reached" in text for text in result.failures)
    with pytest.raises(Unreachable):
        transport.get("http://127.0.0.1:1/data")


def test_a_mirror_in_a_missing_folder_is_an_error(tmp_path: Path, transport: Transport) -> None:
    with pytest.raises(DataError, match=r"no such place is not a folder; check data.archive_url"):
        archive_module.Archive(f"file://{tmp_path}/no%20such%20place", transport)
    archive_module.Archive(tmp_path.as_uri(), transport)


def test_a_cancelled_transport_sends_no_requests(exchange: FakeExchange, transport: Transport) -> None:
    transport.cancel()
    with pytest.raises(Unreachable, match="stopped"):
        transport.get(f"{exchange.url}/data/x")
    assert exchange.requested == []


# REST


def test_rest_is_read_page_by_page(exchange: FakeExchange, transport: Transport) -> None:
    exchange.listed = rows("2021-02-01", "2021-02-05")
    span = Span(us("2021-02-01T06:00"), us("2021-02-03T18:01"))
    got = Rest(exchange.url, transport).fetch("BTCUSDT", span)
    assert got.pages == 4
    assert len(got.frame) == 2 * 1440 + 12 * 60 + 1
    assert got.frame["close"].to_list() == exchange.listed["close"].to_list()[360 : 360 + len(got.frame)]
    assert {query["symbol"] for query in exchange.queries} == {"BTCUSDT"}
    assert [int(query["startTime"]) * 1000 for query in exchange.queries] == [
        span.start + page * 60_000_000_000 for page in range(4)
    ]


def test_rest_pauses_when_the_weight_is_nearly_used_up(
    exchange: FakeExchange, transport: Transport, pauses: list[float]
) -> None:
    exchange.listed = rows("2021-02-01", "2021-02-02")
    exchange.weight = "4799"
    rest = Rest(exchange.url, transport, clock=lambda: 1_000_000_035.0)
    rest.fetch("BTCUSDT", Span(us("2021-02-01"), us("2021-02-01T01:00")))
    assert pauses == []
    exchange.weight = "4800"
    rest.fetch("BTCUSDT", Span(us("2021-02-01"), us("2021-02-01T01:00")))
    assert pauses == [60.0 - 1_000_000_035.0 % 60.0]


@pytest.mark.parametrize("fault", [cut, html, status(500), status(429, {"Retry-After": "1"})])
def test_rest_retries_after_a_fault(exchange: FakeExchange, transport: Transport, fault: Fault) -> None:
    exchange.listed = rows("2021-02-01", "2021-02-01T10:00")
    exchange.faults[KLINES] = [fault]
    got = Rest(exchange.url, transport).fetch("BTCUSDT", Span(us("2021-02-01"), us("2021-02-02")))
    assert len(got.frame) == 600


@pytest.mark.parametrize(
    "body", [b"{}", b"[[1]]", b"null", b'[["x"]]', b"[1]", b"<html>", b'{"code":-1121,"msg":"Invalid symbol."}']
)
def test_invalid_rest_responses_are_rejected(exchange: FakeExchange, transport: Transport, body: bytes) -> None:
    exchange.faults[KLINES] = [lambda request, _: answer(request, 200, body)] * 5
    with pytest.raises(ArchiveError):
        Rest(exchange.url, transport).fetch("BTCUSDT", Span(us("2021-02-01"), us("2021-02-02")))


def test_rest_that_repeats_the_same_page_is_an_error(exchange: FakeExchange, transport: Transport) -> None:
    page = exchange.klines  # its response for the first thousand minutes
    exchange.listed = rows("2021-02-01", "2021-02-03")
    exchange.klines = lambda query: page(query | {"startTime": str(us("2021-02-01") // 1000)})  # type: ignore[method-assign]
    with pytest.raises(ArchiveError, match="are not valid minute bars"):
        Rest(exchange.url, transport).fetch("BTCUSDT", Span(us("2021-02-01"), us("2021-02-03")))


def test_an_unknown_symbol_is_reported_with_the_message_of_the_exchange(exchange: FakeExchange, fill: Fill) -> None:
    exchange.faults[KLINES] = [lambda request, _: answer(request, 400, b'{"code":-1121,"msg":"Invalid symbol."}')]
    result = fill(DAY, "2021-02-02", rest=True)
    assert "Invalid symbol." in result.failures[0]


# The disk, and kill -9. A child process does the work, so that this process survives.

CHILD = """
import os, resource, signal, sys
from pathlib import Path
from agent_bt.core.clock import time_us
from agent_bt.data.archive import Archive
from agent_bt.data.backfill import backfill
from agent_bt.data.spans import Span
from agent_bt.data.store import Store
from agent_bt.data.transport import Transport

url, root, kill_at, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
calls, fsync = 0, os.fsync
def counted(handle):
    global calls
    calls += 1
    if calls == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = counted
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
span = Span(time_us("2021-02-01"), time_us("2021-04-01"))
result = backfill(Store(root, "BTCUSDT"), [span], Archive(url, Transport()), None, now=time_us("2022-01-01"), jobs=1)
print(result.added, *result.failures)
sys.exit(1 if result.failures else 0)
"""


def publish_two_months(exchange: FakeExchange) -> None:
    exchange.publish("2021-02", rows("2021-02-01", "2021-03-01"))
    exchange.publish("2021-03", rows("2021-03-01", "2021-04-01"))


def child(url: str, root: Path, *, kill_at: int = 0, limit: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, url, str(root), str(kill_at), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def check_and_finish(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    """Check that the stored files are intact and that one more call completes the store."""
    shown = store.offsets().covered
    for span in shown:
        assert len(store.read(span)) == span.minutes
    assert fill("2021-02-01", "2021-04-01").failures == ()
    assert len(store.read(Span(us("2021-02-01"), us("2021-04-01")))) == 59 * 1440
    assert verify(store) == []
    assert not [path for path in store.root.rglob("*") if path.name.startswith(TEMPORARY)]


# Per month: the Parquet file before and after its rename, the offsets before and after theirs.
@pytest.mark.parametrize("kill_at", [1, 3])
def test_kill_9_while_writing(exchange: FakeExchange, store: Store, fill: Fill, kill_at: int) -> None:
    publish_two_months(exchange)
    done = child(exchange.archive_url, store.root, kill_at=kill_at)
    assert done.returncode == -signal.SIGKILL
    check_and_finish(exchange, store, fill)


@pytest.mark.verify
@pytest.mark.parametrize("kill_at", range(1, 9))
def test_kill_9_at_every_write(exchange: FakeExchange, store: Store, fill: Fill, kill_at: int) -> None:
    publish_two_months(exchange)
    done = child(exchange.archive_url, store.root, kill_at=kill_at)
    assert done.returncode == -signal.SIGKILL
    check_and_finish(exchange, store, fill)


def test_kill_9_while_fetching(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    publish_two_months(exchange)
    process = None

    def kill(_: object, __: bytes) -> None:
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)

    exchange.faults[path_of("2021-03")] = [kill]
    command = [sys.executable, "-c", CHILD, exchange.archive_url, str(store.root), "0", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    assert process.wait(300) == -signal.SIGKILL
    assert store.offsets().covered == (Span(us("2021-02-01"), us("2021-03-01")),)
    exchange.requested.clear()
    check_and_finish(exchange, store, fill)
    assert exchange.zips_requested() == [path_of("2021-03")]


def test_ctrl_c_keeps_finished_months(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    publish_two_months(exchange)
    process = None

    def interrupt(request: BaseHTTPRequestHandler, body: bytes) -> None:
        assert process is not None
        process.send_signal(signal.SIGINT)
        answer(request, 429, body, {"Retry-After": "100"})

    exchange.faults[path_of("2021-03")] = [interrupt] * 5
    words = f"data backfill --start 2021-02-01 --end 2021-04-01 --no-rest --jobs 1 --root {store.root}".split()
    command = [sys.executable, "-m", "agent_bt", *words, "--archive-url", exchange.archive_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (130, "")
    assert "finished months are in the store" in stderr
    assert store.offsets().covered == (Span(us("2021-02-01"), us("2021-03-01")),)
    exchange.faults.clear()
    check_and_finish(exchange, store, fill)


def test_a_full_disk_is_an_error_and_leaves_no_partial_file(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    publish_two_months(exchange)
    done = child(exchange.archive_url, store.root, limit=500_000)
    assert done.returncode == 1
    assert done.stdout.startswith("0 ")
    assert "cannot be written" in done.stdout
    assert "free disk space" in done.stdout
    assert not list(store.months.glob("*"))
    check_and_finish(exchange, store, fill)


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file"
    write_whole(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DataError, match="free disk space"):
            write_whole(path, b"n" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_recorded_checksums_are_the_sha256_of_the_files(exchange: FakeExchange, store: Store, fill: Fill) -> None:
    publish_day(exchange)
    fill(DAY, "2021-02-02")
    [source] = store.offsets().sources.values()
    assert source.sha256 == hashlib.sha256(exchange.files[path_of(DAY)]).hexdigest()
    assert store.offsets().months["2021-02"].sha256 == hashlib.sha256(store.path("2021-02").read_bytes()).hexdigest()
