"""Exports: the same content gives the same bytes, an import restores everything, damage is an error."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import polars as pl
import pytest

from agent_bt.core.errors import RecordError
from agent_bt.core.types import Reply, Request, Usage
from agent_bt.llm.cache_archive import addresses_of_run, export_replies, import_replies
from agent_bt.llm.cache_entry import Entry
from agent_bt.llm.cache_store import ReplyStore


def make_request(n: int) -> Request:
    messages = [{"role": "system", "content": "You trade. " * 100}, {"role": "user", "content": f"bar {n}\n" * 50}]
    return Request(provider="openai", endpoint_id="host", body={"model": "m", "messages": messages}, replicate=n % 3)


def make_entries() -> list[Entry]:
    usage = Usage(prompt_tokens=10, completion_tokens=2)
    texts = ['{"action": "HOLD"}', None, "half \ud83d", "not json"]
    return [
        Entry(request=make_request(n), reply=Reply(text=texts[n % 4], usage=usage, cost_usd=n / 7), obtained_at=n)
        for n in range(40)
    ]


def fill(path: Path, entries: list[Entry]) -> ReplyStore:
    store = ReplyStore(path)
    store.put_all(entries)
    return store


def test_an_import_restores_what_was_exported(tmp_path: Path) -> None:
    with fill(tmp_path / "a", make_entries()) as one, ReplyStore(tmp_path / "b") as other:
        one.remember({"model": "m"}, {"response_format": "text"})
        result = export_replies(one, tmp_path / "deep" / "out.xz")
        added = import_replies(other, tmp_path / "deep" / "out.xz")
        assert (result.replies, result.missing, added.new, added.known, added.differing) == (40, (), 40, 0, 0)
        assert list(one.entries()) == list(other.entries())
        assert other.recall({"model": "m"}) == {"response_format": "text"}
        assert import_replies(other, tmp_path / "deep" / "out.xz").known == 40


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    shuffled = make_entries()
    random.Random(1).shuffle(shuffled)
    with fill(tmp_path / "a", make_entries()) as one, fill(tmp_path / "b", shuffled) as other:
        export_replies(one, tmp_path / "1.xz")
        export_replies(other, tmp_path / "2.xz")
    assert (tmp_path / "1.xz").read_bytes() == (tmp_path / "2.xz").read_bytes()
    raw = sum(len(json.dumps(entry.request.body)) for entry in make_entries())
    assert (tmp_path / "1.xz").stat().st_size < raw / 10
    assert sorted(path.name for path in tmp_path.glob("*.xz*")) == ["1.xz", "2.xz"]


def test_an_export_can_be_limited(tmp_path: Path) -> None:
    wanted = {make_request(n).address for n in (3, 5)} | {"ab" * 32}
    with fill(tmp_path / "a", make_entries()) as store, ReplyStore(tmp_path / "b") as other:
        result = export_replies(store, tmp_path / "o.xz", wanted)
        import_replies(other, tmp_path / "o.xz")
        assert (result.replies, result.missing) == (2, ("ab" * 32,))
        assert other.addresses() == {make_request(n).address for n in (3, 5)}


def test_a_known_address_with_another_reply_is_kept_and_counted(tmp_path: Path) -> None:
    other = Entry(request=make_request(0), reply=Reply(text="other"), obtained_at=0)
    with fill(tmp_path / "a", make_entries()) as store, fill(tmp_path / "b", [other]) as target:
        export_replies(store, tmp_path / "o.xz")
        added = import_replies(target, tmp_path / "o.xz")
        assert (added.new, added.known, added.differing) == (39, 1, 1)
        found = target.get(make_request(0))
        assert found is not None and found.reply.text == "other"


def _forge(path: Path) -> None:
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    plain = json.loads(lines[-1])
    plain["request"][2]["messages"][1]["content"] = "another bar"
    with lzma.open(path, "wt") as file:
        file.write("\n".join([*lines[:-1], json.dumps(plain)]) + "\n")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _plain(path: Path) -> None:
    path.write_text("hello")


def _other_format(path: Path) -> None:
    with lzma.open(path, "wt") as file:
        file.write('{"format": "else"}\n')


def _newer(path: Path) -> None:
    with lzma.open(path, "wt") as file:
        file.write('{"format": "agent-bt/replies", "version": 2}\n')


def _empty(path: Path) -> None:
    lzma.open(path, "wb").close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_forge, "does not hash to its address"),
        (_cut, "damaged"),
        (_flip, "damaged"),
        (_plain, "damaged"),
        (_other_format, "not an export"),
        (_newer, "newer agent-bt"),
        (_empty, "empty"),
        (Path.unlink, "there is no export"),
    ],
)
def test_a_damaged_export_imports_nothing(tmp_path: Path, damage: object, said: str) -> None:
    with fill(tmp_path / "a", make_entries()) as store:
        export_replies(store, tmp_path / "o.xz")
    damage(tmp_path / "o.xz")  # type: ignore[operator]
    with ReplyStore(tmp_path / "b") as target:
        with pytest.raises(RecordError, match=said):
            import_replies(target, tmp_path / "o.xz")
        assert len(target) == 0


def test_an_export_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with fill(tmp_path / "a", make_entries()) as store, pytest.raises(RecordError, match="cannot be written"):
        export_replies(store, tmp_path / "file" / "o.xz")


def test_addresses_of_a_finished_run(tmp_path: Path) -> None:
    exchange = pl.Struct({"request": pl.String})
    rows = {"request": ["a", None, "b"], "others": [[{"request": "c"}, {"request": "d"}], None, []]}
    pl.DataFrame(rows, schema={"request": pl.String, "others": pl.List(exchange)}).write_parquet(
        tmp_path / "decisions.parquet"
    )
    assert addresses_of_run(tmp_path) == {"a", "b", "c", "d"}


def test_addresses_of_an_unfinished_run(tmp_path: Path) -> None:
    contents = [{"request": "a", "others": [{"request": "b"}]}, {"request": None, "others": None}]
    lines = [json.dumps({"chain": "", "content": content, "telemetry": {}}) + "\n" for content in contents]
    (tmp_path / "journal.jsonl").write_text("".join(lines) + '{"chain": "torn')
    assert addresses_of_run(tmp_path) == {"a", "b"}


def test_a_folder_without_decisions_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a run folder"):
        addresses_of_run(tmp_path)
    (tmp_path / "decisions.parquet").write_text("hello")
    with pytest.raises(RecordError, match="cannot be read"):
        addresses_of_run(tmp_path)
