"""Records of decisions: what they hold, and that a table row restores exactly the content that was hashed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest
from decision_chain import decisions_hash
from hypothesis import given, settings
from hypothesis import strategies as st
from record_examples import FEATURES, make_step, rule_step, steps

from agent_bt.core.canonical import canonical
from agent_bt.core.step import Step
from agent_bt.core.types import Reply
from agent_bt.records.decision_record import build_content, build_telemetry, extract_replies, iterate_records
from agent_bt.records.journal import JournalReader, JournalWriter
from agent_bt.records.schema import decision_schema


def through_parquet(folder: Path, given_steps: list[Step], **options: bool) -> tuple[pl.DataFrame, str]:
    table = folder / "decisions.parquet"
    with JournalWriter(folder / "journal.jsonl", prompt="trader/v1", **options) as journal:
        for step in given_steps:
            journal.append(step)
    return pl.read_parquet(table), journal.head


def test_a_parquet_row_restores_the_hashed_content(examples: int = 30) -> None:
    @settings(max_examples=examples)
    @given(st.lists(steps, max_size=4))
    def check(given_steps: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as name:
            table, head = through_parquet(Path(name), given_steps)
            read = [record for _, record in JournalReader(Path(name) / "journal.jsonl")]
        contents, telemetries = zip(*iterate_records(table), strict=True) if len(table) else ((), ())
        expected = [build_content(step, prompt="trader/v1") for step in given_steps]
        assert [canonical(content) for content in contents] == [canonical(content) for content in expected]
        assert decisions_hash(contents) == head
        assert [canonical(row) for row in telemetries] == [canonical(row) for row in read]

    check()


@pytest.mark.verify
def test_a_parquet_row_restores_the_hashed_content_long() -> None:
    test_a_parquet_row_restores_the_hashed_content(examples=1000)


def test_huge_prompts_and_replies_are_kept(tmp_path: Path) -> None:
    given_steps = [make_step(at, prompt="é😀" * 500_000, text="x" * 3_000_000) for at in range(4)]
    table, head = through_parquet(tmp_path, given_steps)
    assert decisions_hash(content for content, _ in iterate_records(table)) == head
    assert table["messages"][3][1]["content"] == "é😀" * 500_000 + " 3"


def test_the_table_has_one_row_per_decision_in_the_pinned_schema(tmp_path: Path) -> None:
    given_steps = [make_step(at, rows=60, features=FEATURES) for at in range(3)]
    table, _ = through_parquet(tmp_path, given_steps)
    assert table.schema == decision_schema(given_steps[0].view.columns)
    assert table["index"].to_list() == [0, 1, 2]
    assert table["window"].struct.field("rsi").list.len().to_list() == [60, 60, 60]
    row = table.row(1, named=True)
    assert row["prompt"] == "trader/v1"
    assert row["messages"][0] == {"role": "system", "content": "Be brief."}
    assert row["reply"] == '{"action":"BUY","size_pct":0.5}'
    assert row["window"]["atr"] == given_steps[1].view.column("atr").tolist()
    assert row["time"] == row["window"]["close_time"][-1]
    assert row["telemetry"]["cached_tokens"] == 5


def test_run_without_decisions_has_an_empty_table(tmp_path: Path) -> None:
    table, _ = through_parquet(tmp_path, [])
    assert table.schema == decision_schema(())
    assert len(table) == 0


def test_a_rule_has_no_model_call_and_may_leave_its_window_out(tmp_path: Path) -> None:
    table, head = through_parquet(tmp_path, [rule_step(0)], window=False)
    assert "window" not in table.columns
    row = table.row(0, named=True)
    assert (row["request"], row["messages"], row["reply"]) == (None, [], None)
    assert row["targets"] == [{"symbol": "BTCUSDT", "share": 1.0}]
    assert (row["risk"], row["action"]) == ("clipped", "TARGETS")
    assert decisions_hash(content for content, _ in iterate_records(table)) == head


def test_content_is_independent_of_how_the_call_went() -> None:
    slow = Reply(text="{}", latency_ms=900.0, attempts=3, cost_usd=1.0, speculated=True, body="raw")
    fast = Reply(text="{}", latency_ms=1.0, cached=True)
    assert canonical(build_content(make_step(0, reply=slow))) == canonical(build_content(make_step(0, reply=fast)))
    assert build_telemetry(make_step(0, reply=slow), 0) != build_telemetry(make_step(0, reply=fast), 0)


def test_replies_can_be_extracted_from_a_record() -> None:
    failed = Reply(failure="timeout", error="no answer in 30 s", latency_ms=30_000.0, attempts=4)
    step = make_step(0, reply=failed)
    address = step.decision.calls[0].request.address
    assert extract_replies(build_content(step), build_telemetry(step, 0)) == [(address, failed)]
    assert extract_replies(build_content(rule_step(0)), build_telemetry(rule_step(0), 0)) == []


def test_an_unpaired_surrogate_in_a_reply_is_escaped(tmp_path: Path) -> None:
    table, _ = through_parquet(tmp_path, [make_step(0, text="buy \ud83d now")])
    assert table["reply"][0] == "buy \\ud83d now"
