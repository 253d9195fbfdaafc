"""The journal: hash chain, continuation after a crash, and damage reported by line."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from decision_chain import decisions_hash
from record_examples import make_step

from agent_bt.core.errors import RecordError
from agent_bt.core.types import Reply
from agent_bt.records.decision_record import build_content
from agent_bt.records.journal import JournalReader, JournalWriter


def write(path: Path, count: int, first: int = 0, **options: int) -> JournalWriter:
    with JournalWriter(path, **options) as journal:
        for at in range(first, first + count):
            journal.append(make_step(at))
    return journal


def test_lines_are_read_in_order_with_one_hash_chain(tmp_path: Path) -> None:
    journal = write(tmp_path / "journal.jsonl", 10, flush_every=3)
    lines = list(JournalReader(journal.path).lines())
    assert [line.number for line in lines] == list(range(1, 11))
    assert lines[-1].chain == journal.head == decisions_hash(build_content(make_step(at)) for at in range(10))
    assert [content["index"] for content, _ in JournalReader(journal.path)] == list(range(10))


def test_lines_are_written_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path, flush_every=3, flush_seconds=1e9) as journal:
        sizes = []
        for at in range(6):
            journal.append(make_step(at))
            sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1] == 0
    assert 0 < sizes[2] == sizes[3] == sizes[4] < sizes[5]


def test_an_incomplete_last_line_is_reported_and_the_rest_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 5)
    whole = path.read_bytes()
    torn_at = whole.rindex(b"\n", 0, -1) + 1
    for cut in (torn_at + 1, torn_at + 700, len(whole) - 1):
        path.write_bytes(whole[:cut])
        reader = JournalReader(path)
        assert len(list(reader.lines())) == 4
        assert reader.torn == cut - torn_at


def test_continuing_after_an_incomplete_line_gives_the_same_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 8)
    contents = [content for content, _ in JournalReader(path)]
    path.write_bytes(path.read_bytes()[:-100])
    journal = write(path, 8)
    assert journal.recovered > 0
    assert (journal.count, journal.tally.total) == (8, 8)
    assert [content for content, _ in JournalReader(path)] == contents


def test_continuing_keeps_the_telemetry_of_the_first_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 3)
    before = path.read_bytes()
    with JournalWriter(path) as journal:
        for at in range(3):
            journal.append(
                make_step(
                    at,
                    reply=Reply(text=make_step(at).decision.calls[0].reply.text, finish_reason="stop", cached=True),
                )
            )
    assert path.read_bytes() == before
    assert (journal.tally.calls, journal.tally.cached) == (3, 0)


def test_continuing_with_another_outcome_is_an_error_that_names_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 3)
    with JournalWriter(path) as journal:
        journal.append(make_step(0))
        with pytest.raises(RecordError, match=r"decision 1 at 2024-07-01T02:00Z .* reply changed"):
            journal.append(make_step(1, text="{}"))


def test_changed_line_breaks_the_chain_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = lines[2].replace(b'"note":"up"', b'"note":"on"')
    assert changed != lines[2]
    for damage, number in (
        ([*lines[:2], changed, *lines[3:]], 3),
        ([*lines[:2], *lines[3:]], 3),
        ([lines[1], lines[0], *lines[2:]], 1),
        ([lines[0], lines[0]], 2),
    ):
        path.write_bytes(b"".join(damage))
        with pytest.raises(RecordError, match=f"line {number} does not continue"):
            list(JournalReader(path).lines())


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"\0" * 500 + b"\n", b'{"chain":"\xff\n'])
def test_damaged_line_is_an_error_that_names_it(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 2)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(RecordError, match="line 3 is damaged"):
        list(JournalReader(path).lines())


def test_a_full_disk_is_reported_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 50)
    before = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = JournalWriter(path, flush_every=10)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before + 500, limits[1]))
        with pytest.raises(RecordError, match="cannot be written: File too large; what was recorded before is intact"):
            for at in range(100):
                journal.append(make_step(at))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        journal.close()
    assert len(list(JournalReader(path).lines())) == 50
    assert write(path, 60).count == 60
    assert len(list(JournalReader(path).lines())) == 60


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path), pytest.raises(RecordError, match="another process"):
        JournalWriter(path)
    JournalWriter(path).close()


def test_journal_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        JournalWriter(tmp_path / "no" / "journal.jsonl")
    with pytest.raises(RecordError, match="cannot be read"):
        list(JournalReader(tmp_path / "journal.jsonl").lines())


def test_failures_at_the_end_can_be_removed_to_be_requested_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 2)
    before = path.read_bytes()
    failed = Reply(failure="connection", error="refused")
    with JournalWriter(path, flush_every=2) as journal:
        for at in range(2):
            journal.append(make_step(at))
        for at in range(2, 7):
            journal.append(make_step(at, reply=failed, action="HOLD", kind="transport"))
        journal.drop_failures()
    assert path.read_bytes() == before
    assert journal.tally.provenance == {"model": 2, "transport": 5}
    assert write(path, 4).count == 4


def test_failures_before_replies_to_prefetched_requests_are_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 3)
    before = path.read_bytes()
    kinds = ["failed", "model", "model", "failed", "model", "failed"]
    failed = Reply(failure="connection", error="refused")
    with JournalWriter(path) as journal:
        for at in range(3):
            journal.append(make_step(at))
        for at, kind in enumerate(kinds, start=3):
            if kind == "failed":
                journal.append(make_step(at, reply=failed, action="HOLD", kind="transport"))
            else:
                journal.append(make_step(at))
        journal.drop_failures(reach=3)
    assert path.read_bytes() == before


def test_a_failure_between_replies_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.append(make_step(0, reply=Reply(failure="timeout"), action="HOLD", kind="transport"))
        journal.append(make_step(1))
        journal.drop_failures()
    assert len(list(JournalReader(path).lines())) == 2
