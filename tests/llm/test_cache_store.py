"""The store of replies: addresses, durability, several processes and threads, damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.errors import RecordError
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.llm.cache_entry import Entry
from agent_bt.llm.cache_store import ReplyStore

ROOT = Path(__file__).parents[2]


def make_request(content: str = "bars", **body: Any) -> Request:
    messages = [{"role": "system", "content": "You trade."}, {"role": "user", "content": content}]
    return Request(provider="openai", endpoint_id="host", body={"model": "m", "messages": messages, **body})


def make_entry(content: str = "bars", text: str = "{}", obtained_at: int = 1, **body: Any) -> Entry:
    reply = Reply(
        text=text,
        finish_reason="stop",
        refusal=None,
        body='{"id": "x", "usage": {}}',
        usage=Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=30, reasoning_tokens=5),
        cost_usd=0.25,
        latency_ms=123.5,
        attempts=2,
    )
    return Entry(request=make_request(content, **body), reply=reply, obtained_at=obtained_at)


def put(store: ReplyStore, *entries: Entry) -> None:
    for done in [store.put(entry) for entry in entries]:
        done.result(300)


def test_an_entry_keeps_everything(tmp_path: Path) -> None:
    entry = make_entry(obtained_at=1_700_000_000_000_000, temperature=0.5, seed=3)
    with ReplyStore(tmp_path / "deep" / "cache.sqlite") as store:
        put(store, entry)
    with ReplyStore(tmp_path / "deep" / "cache.sqlite") as store:
        found = store.get(entry.request)
    assert found is not None
    assert found.reply == replace(entry.reply, cached=True)
    assert found.obtained_at == 1_700_000_000_000_000
    assert found.parameters == {"model": "m", "temperature": 0.5, "seed": 3}


def test_invalid_replies_are_stored_like_any_other_even_with_an_unpaired_surrogate(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        for text in (None, "", "not json", "\ud83d", "\x00é漢"):
            entry = make_entry(content=repr(text), text=text)  # type: ignore[arg-type]
            put(store, entry)
            found = store.get(entry.request)
            assert found is not None and found.reply.text == text


def test_a_transport_failure_is_never_stored(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store, pytest.raises(ValueError, match="timeout"):
        store.put(replace(make_entry(), reply=Reply(failure="timeout")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(
    parts=st.fixed_dictionaries(
        {
            "provider": st.text(max_size=6),
            "endpoint_id": st.text(max_size=6),
            "replicate": st.integers(0, 9),
            "body": st.dictionaries(st.text(max_size=6), JSON, max_size=4),
        }
    ),
    data=st.data(),
)
def test_changing_any_one_part_of_the_key_changes_the_address(parts: dict[str, Any], data: st.DataObject) -> None:
    address = Request(**parts).address
    assert Request(**parts).address == address
    for name, other in (
        ("provider", st.text(max_size=6)),
        ("endpoint_id", st.text(max_size=6)),
        ("replicate", st.integers(0, 9)),
    ):
        value = data.draw(other.filter(lambda value, name=name: value != parts[name]), label=name)
        assert Request(**{**parts, name: value}).address != address
    for key in parts["body"]:
        value = data.draw(JSON.filter(lambda value, key=key: _differ(value, parts["body"][key])), label=key)
        assert Request(**{**parts, "body": {**parts["body"], key: value}}).address != address
        smaller = {other: value for other, value in parts["body"].items() if other != key}
        assert Request(**{**parts, "body": smaller}).address != address
    added = data.draw(st.text(max_size=6).filter(lambda key: key not in parts["body"]), label="new key")
    assert Request(**{**parts, "body": {**parts["body"], added: 1}}).address != address


def _differ(one: Any, other: Any) -> bool:
    import json

    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


def test_the_first_reply_to_an_address_stays(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as one, ReplyStore(tmp_path / "c.sqlite") as other:
        put(one, make_entry(text="first"))
        kept = other.put(make_entry(text="second")).result(300)
        assert kept.reply.text == "first" and kept.reply.cached
        found = other.get(make_request())
        assert found is not None and found.reply.text == "first"
        assert len(one) == 1


def test_nothing_expires(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        put(store, make_entry(obtained_at=0))
        assert store.get(make_request()) is not None


def test_a_completed_put_survives_kill_9(tmp_path: Path) -> None:
    script = """
import sys, itertools
sys.path.insert(0, "tests/llm")
from test_cache_store import ReplyStore, make_entry
store = ReplyStore(sys.argv[1])
for n in itertools.count():
    store.put(make_entry(content=str(n))).result()
    print(n, flush=True)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "c.sqlite")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        last = -1
        while last < 20:
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        last = max([last, *(int(line) for line in process.stdout if line.endswith("\n"))])
    with ReplyStore(tmp_path / "c.sqlite") as store:
        for n in range(last + 1):
            assert store.get(make_request(str(n))) is not None, n


def test_several_processes_make_and_fill_one_store(tmp_path: Path) -> None:
    script = """
import sys
sys.path.insert(0, "tests/llm")
from test_cache_store import ReplyStore, make_entry
with ReplyStore(sys.argv[1]) as store:
    texts = [store.put(make_entry(content=str(n), text=sys.argv[2])).result().reply.text for n in range(100)]
print(",".join(texts))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "c.sqlite")]
    running = [subprocess.Popen([*command, str(who)], stdout=subprocess.PIPE, text=True, cwd=ROOT) for who in range(3)]
    answers = [process.communicate(timeout=300)[0].strip().split(",") for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers[0] == answers[1] == answers[2]
    with ReplyStore(tmp_path / "c.sqlite") as store:
        assert len(store) == 100


def test_threads_share_a_store(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store, ThreadPoolExecutor(8) as pool:

        def work(n: int) -> bool:
            put(store, make_entry(content=str(n)))
            return store.get(make_request(str(n))) is not None

        assert all(pool.map(work, range(200)))
        assert len(store) == 200


def test_puts_that_wait_share_a_commit(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        blocker = sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        waiting = [store.put(make_entry(content=str(n))) for n in range(50)]
        time.sleep(0.05)
        assert not any(done.done() for done in waiting)
        blocker.execute("COMMIT")
        blocker.close()
        for done in waiting:
            done.result(300)
        assert len(store) == 50


def test_closing_writes_what_is_queued_and_refuses_more(tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "c.sqlite")
    done = [store.put(make_entry(content=str(n))) for n in range(30)]
    store.close()
    store.close()
    assert all(future.done() and future.exception() is None for future in done)
    with pytest.raises(RecordError):
        store.put(make_entry(content="late")).result(300)
    with ReplyStore(tmp_path / "c.sqlite") as again:
        assert len(again) == 30


def test_a_request_that_does_not_hash_to_its_address_is_damage(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        put(store, make_entry("one"), make_entry("two"))
    db = sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)
    first, second = (bytes.fromhex(make_request(text).address) for text in ("one", "two"))
    db.execute(
        "UPDATE reply SET request = (SELECT request FROM reply WHERE address = ?) WHERE address = ?", (second, first)
    )
    db.close()
    with ReplyStore(tmp_path / "c.sqlite") as store:
        assert store.get(make_request("two")) is not None
        with pytest.raises(RecordError, match=r"does not hash to its address.*cache import"):
            store.get(make_request("one"))
        with pytest.raises(RecordError):
            list(store.entries())


@pytest.mark.parametrize("column", ["request", "reply"])
def test_a_flipped_bit_is_damage(tmp_path: Path, column: str) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        put(store, make_entry())
    db = sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)
    blob = bytearray(db.execute(f"SELECT {column} FROM reply").fetchone()[0])
    blob[len(blob) // 2] ^= 0x10
    db.execute(f"UPDATE reply SET {column} = ?", (bytes(blob),))
    db.close()
    with ReplyStore(tmp_path / "c.sqlite") as store, pytest.raises(RecordError, match="damaged"):
        store.get(make_request())


def test_a_file_that_is_not_a_store_is_an_error(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello" * 1000)
    with pytest.raises(RecordError, match="damaged"):
        ReplyStore(text)
    foreign = tmp_path / "foreign.sqlite"
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()
    before = foreign.read_bytes()
    with pytest.raises(RecordError, match="not a store of replies"):
        ReplyStore(foreign)
    assert foreign.read_bytes() == before
    with pytest.raises(RecordError, match="cannot be opened"):
        ReplyStore(tmp_path)
    with pytest.raises(RecordError, match="folder"):
        ReplyStore(text / "c.sqlite")


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with ReplyStore(path) as store:
        put(store, *[make_entry(content=str(n) * 500) for n in range(200)])
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\x55" * (len(content) - 4096))
    with pytest.raises(RecordError, match="damaged"), ReplyStore(path) as store:
        list(store.entries())


def test_a_newer_format_is_an_error(tmp_path: Path) -> None:
    ReplyStore(tmp_path / "c.sqlite").close()
    db = sqlite3.connect(tmp_path / "c.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RecordError, match="newer agent-bt"):
        ReplyStore(tmp_path / "c.sqlite")


def test_a_full_disk_fails_the_put_with_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_bt.llm import cache_store

    def small(path: Path, *, read_only: bool) -> sqlite3.Connection:
        db = connect(path, read_only=read_only)
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 2}")
        return db

    with ReplyStore(tmp_path / "c.sqlite") as store:
        put(store, make_entry("kept"))
        connect = cache_store.connect
        monkeypatch.setattr(cache_store, "connect", small)
        with pytest.raises(RecordError, match="disk is full"):
            store.remember("key", os.urandom(50_000).hex())
        assert store.get(make_request("kept")) is not None


def test_read_only_works_without_the_right_to_write(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with pytest.raises(RecordError, match="no store of replies"):
        ReplyStore(path, read_only=True)
    with ReplyStore(path) as store:
        put(store, make_entry())
        store.remember("k", 1)
    with ReplyStore(path, read_only=True) as store:
        assert store.get(make_request()) is not None
        assert len(list(store.entries())) == 1
        assert store.recall("k") == 1
        with pytest.raises(RecordError, match="not open for writing"):
            store.put(make_entry("new")).result(300)
        with pytest.raises(RecordError, match="not open for writing"):
            store.remember("k", 2)


def test_remembered_values_are_recalled(tmp_path: Path) -> None:
    key = {"provider": "openai", "endpoint_id": "h", "model": "m", "wanted": "auto"}
    with ReplyStore(tmp_path / "c.sqlite") as store:
        assert store.recall(key) is None
        store.remember(key, {"response_format": "json_object"})
        store.remember(key, {"response_format": "text"})
    with ReplyStore(tmp_path / "c.sqlite") as store:
        assert store.recall(dict(reversed(key.items()))) == {"response_format": "text"}
        assert store.notes() == [(key, {"response_format": "text"})]


def test_stats_and_selection(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "c.sqlite") as store:
        unpriced = replace(make_entry("c", obtained_at=30), reply=Reply(text="x"))
        put(store, make_entry("a", obtained_at=10), make_entry("b", obtained_at=20, model="n"), unpriced)
        first, second = store.stats()
        assert (first.model, first.replies, first.prompt_tokens, first.cost_usd, first.unpriced) == (
            "m",
            2,
            100,
            0.25,
            1,
        )
        assert (first.oldest, first.newest) == (10, 30)
        assert (second.model, second.replies, second.unpriced) == ("n", 1, 0)
        assert store.addresses(model="n") == {make_request("b", model="n").address}
        assert store.addresses(obtained_before=20) == {make_request("a").address}
        assert store.delete(store.addresses(obtained_before=25)) == 2
        assert len(store) == 1
        assert store.delete([]) == 0
