"""The run folder: complete at the end, resumable while it has a journal, and every change of it is found."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from record_examples import START, make_bars, make_fill, make_run, make_step, rule_step

from agent_bt.core.clock import MINUTE
from agent_bt.core.errors import RecordError, UsageError
from agent_bt.core.types import Reply, Usage
from agent_bt.records import run_folder
from agent_bt.records.decision_record import build_content, build_telemetry
from agent_bt.records.files import whole_file, write_whole
from agent_bt.records.hashes import config_hash
from agent_bt.records.journal import JournalWriter
from agent_bt.records.manifest import PACKAGES
from agent_bt.records.read import list_runs, load_run, resolve_run
from agent_bt.records.run_folder import RunFolder
from agent_bt.records.summary import build_summary, decision_counts, list_details, llm_usage
from agent_bt.records.tables import FILL_SCHEMA, equity_frame, fills_frame
from agent_bt.records.tally import MAX_DETAILS, OTHER_DETAILS, Tally
from agent_bt.records.verify import verify


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path, [make_step(at) for at in range(3)])


def test_finished_run_holds_every_file_and_no_journal(run: RunFolder) -> None:
    files = {path.name for path in run.path.iterdir()}
    tables = {"decisions.parquet", "fills.parquet", "equity.parquet", "market.parquet"}
    assert files == tables | {"config.yaml", "manifest.json", "summary.json"}
    assert not run.unfinished
    name = r"\d{8}T\d{6}Z-trader-[0-9a-f]{6}"
    assert re.fullmatch(name, run.run_id)


def test_tables_of_a_loaded_run(run: RunFolder) -> None:
    loaded = load_run(run.path)
    assert loaded.status == "done"
    assert loaded.config_text == "name: trader\n"
    assert loaded.decisions["index"].to_list() == [0, 1, 2]
    assert loaded.fills.schema == FILL_SCHEMA
    assert len(loaded.fills) == 3
    assert loaded.market.equals(make_bars(180))
    assert loaded.equity.columns == ["time", "equity", "cash", "exposure", "price", "drawdown"]
    assert loaded.equity["drawdown"].max() <= 0.0
    assert loaded.equity["cash"][-1] == 0.0


def test_the_manifest_records_hashes_prompt_packages_and_code(run: RunFolder) -> None:
    manifest = run.read_manifest()
    assert manifest["status"] == "done"
    assert set(manifest["hashes"]) == {"config", "data", "prompt", "decisions", "fills", "equity", "telemetry"}
    assert manifest["prompt"] == {"name": "trader/v1", "hash": "0" * 64}
    assert set(manifest["packages"]) == set(PACKAGES)
    assert manifest["packages"]["polars"] == pl.__version__
    assert len(manifest["code"]) == 64


def test_untouched_run_verifies(run: RunFolder) -> None:
    assert verify(run.path) == []


@pytest.mark.parametrize("table", ["decisions", "fills", "equity", "market"])
def test_any_changed_cell_is_found(run: RunFolder, table: str) -> None:
    path: Path = getattr(run, table)
    whole = pl.read_parquet(path)
    for column in whole.columns:
        changed = whole.to_dicts()
        empty = changed[1][column] in (None, [])
        changed[1][column] = value_for_empty(whole.schema[column]) if empty else other_value(changed[1][column])
        pl.DataFrame(changed, schema=whole.schema).write_parquet(path)
        assert verify(run.path), column
    whole.write_parquet(path)
    assert verify(run.path) == []


def value_for_empty(dtype: pl.DataType) -> object:
    """Return a value for an empty cell."""
    if isinstance(dtype, pl.List):
        return [{field.name: None for field in dtype.inner.fields}]
    return "x" if dtype == pl.String else 0.5


def other_value(value: object) -> object:
    """Return a different value of the same type; a nested one is changed in one place."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case dict():
            key, inner = next(iter(value.items()))
            return {**value, key: other_value(inner)}
        case [first, *rest]:
            return [other_value(first), *rest]
        case datetime():
            return value.replace(year=2030)
    return None


def test_changed_window_and_telemetry_are_found(run: RunFolder) -> None:
    whole = pl.read_parquet(run.decisions)
    for path in (("window", "rsi"), ("telemetry", "cost_usd"), ("account", "cash")):
        rows = whole.to_dicts()
        value = rows[2][path[0]][path[1]]
        rows[2][path[0]][path[1]] = [*value[:-1], value[-1] + 1e-9] if isinstance(value, list) else value + 1e-9
        pl.DataFrame(rows, schema=whole.schema).write_parquet(run.decisions)
        assert any("hashes" in found.what for found in verify(run.path)), path


def test_removed_and_reordered_rows_are_found(run: RunFolder) -> None:
    for table in ("decisions", "fills", "equity", "market"):
        path: Path = getattr(run, table)
        whole = pl.read_parquet(path)
        for changed in (whole[:-1], whole.reverse(), whole.drop(whole.columns[2])):
            changed.write_parquet(path)
            assert verify(run.path), table
        whole.write_parquet(path)


def test_changed_counts_and_files_are_found(run: RunFolder) -> None:
    summary = json.loads(run.summary.read_bytes())
    summary["decisions"]["model"] += 1
    run.summary.write_text(json.dumps(summary))
    assert [found.what for found in verify(run.path)] == ["decisions.model", "summary.json"]
    run.config.write_text("name: other\n")
    run.equity.unlink()
    run.fills.write_bytes(b"PAR1")
    found = [str(difference) for difference in verify(run.path)]
    assert any("has no equity.parquet" in line for line in found)
    assert any(line.startswith("hashes.fills") for line in found)
    assert any(line.startswith("config.yaml") for line in found)


def test_an_interrupted_run_keeps_its_journal_and_is_resumable(tmp_path: Path) -> None:
    steps = [make_step(at) for at in range(3)]
    run = make_run(tmp_path, steps, status="interrupted")
    assert run.journal.exists()
    assert verify(run.path) == []
    assert run_folder.find_unfinished(tmp_path, config_hash({"seed": 7})) == run
    assert run_folder.find_unfinished(tmp_path, config_hash({"seed": 8})) is None


def test_a_finished_run_is_never_continued(run: RunFolder) -> None:
    assert run_folder.find_unfinished(run.path.parent, config_hash({"seed": 7})) is None


def test_killed_run_is_unfinished_and_its_journal_is_verified(tmp_path: Path) -> None:
    folder = run_folder.create(tmp_path, "killed", config_text="", identity={})
    with JournalWriter(folder.journal) as journal:
        for at in range(3):
            journal.append(make_step(at))
    (entry,) = list_runs(tmp_path)
    assert (entry.status, entry.resumable, entry.decisions) == ("unfinished", True, None)
    assert verify(folder.path) == []
    folder.journal.write_bytes(folder.journal.read_bytes().replace(b'"BUY"', b'"HOL"', 1))
    assert "line 1" in str(verify(folder.path)[0])
    with pytest.raises(RecordError, match="is not finished"):
        load_run(folder.path)


def test_the_list_shows_damaged_folders_and_skips_others(tmp_path: Path) -> None:
    make_run(tmp_path, [rule_step(0)], name="rule")
    (tmp_path / "ab" / "x").mkdir(parents=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert [(entry.name, entry.status) for entry in list_runs(tmp_path)] == [("rule", "done"), ("", "damaged")]
    assert list_runs(tmp_path / "none") == []


def test_run_is_resolved_by_id_part_name_path_and_latest(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, [], name="one"), make_run(tmp_path, [], name="two")
    newest = max(first.path, second.path)
    assert resolve_run(tmp_path, "latest") == newest
    assert resolve_run(tmp_path, "one") == first.path
    assert resolve_run(tmp_path, first.run_id) == resolve_run(tmp_path, first.run_id[-6:]) == first.path
    assert resolve_run(tmp_path, str(second.path)) == second.path
    with pytest.raises(UsageError, match="matches 2 runs"):
        resolve_run(tmp_path, first.run_id[:4])
    with pytest.raises(UsageError, match="no run 'three'"):
        resolve_run(tmp_path, "three")
    with pytest.raises(UsageError, match="no run with a result"):
        resolve_run(tmp_path / "none", "latest")


def test_a_folder_that_is_not_a_run_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RecordError):
            load_run(path)
        with pytest.raises(RecordError):
            verify(path)


def test_a_file_is_complete_or_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RecordError, match="cannot be written"):
        write_whole(tmp_path / "none" / "file", b"")


def test_summary_refuses_missing_and_unknown_keys() -> None:
    with pytest.raises(ValueError, match="performance of a summary"):
        build_summary(
            run_id="r",
            status="done",
            about={},
            bars=1,
            tally=Tally(),
            skipped=0,
            performance={"sharpe": 1.0},
            baselines={},
            hashes={},
            timing={},
        )


def test_the_summary_has_all_documented_keys(run: RunFolder) -> None:
    summary = load_run(run.path).summary
    assert {
        "run_id",
        "status",
        "bars",
        "decisions",
        "performance",
        "baselines",
        "llm",
        "hashes",
        "timing",
        "warnings",
    } <= set(summary)
    decisions = "total model invalid transport budget skipped buy sell hold clipped rejected"
    assert set(decisions.split()) <= set(summary["decisions"])
    llm = "calls cached speculated speculation_hits speculation_wasted prompt_tokens completion_tokens cost_usd"
    assert {*llm.split(), "cost_saved_usd", "latency_ms_p50", "latency_ms_p95"} <= set(summary["llm"])
    assert set(summary["baselines"]) == {"buy_and_hold", "random", "sma"}
    assert set(summary["hashes"]) == {"config", "data", "prompt", "decisions", "fills", "equity"}
    assert summary["decisions"]["total"] == summary["decisions"]["buy"] == 3
    assert (summary["llm"]["calls"], summary["llm"]["cost_usd"]) == (3, pytest.approx(0.003))
    assert summary["llm"]["prompt_tokens"] == 300


def tally_of(*replies: Reply, kind: str = "model") -> Tally:
    tally = Tally()
    for at, reply in enumerate(replies):
        step = make_step(at, reply=reply, kind=kind)
        tally.add(build_content(step), build_telemetry(step, 0))
    return tally


def test_unknown_price_is_unpriced_and_never_zero() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=1)
    priced, unpriced = Reply(text="", usage=usage, cost_usd=1.0), Reply(text="", usage=usage)
    cached = Reply(text="", usage=usage, cost_usd=2.0, cached=True)
    assert llm_usage(tally_of(priced, unpriced))["cost_usd"] is None
    both = llm_usage(tally_of(priced, cached))
    assert (both["cost_usd"], both["cost_saved_usd"], both["calls"], both["cached"]) == (1.0, 2.0, 1, 1)
    assert both["prompt_tokens"] == 10


def test_latency_quantiles_are_within_one_per_cent() -> None:
    latencies = np.random.default_rng(3).lognormal(5, 1, 2000)
    tally = tally_of(*(Reply(text="", latency_ms=value) for value in latencies.tolist()))
    for quantile in (0.5, 0.95):
        exact = np.quantile(latencies, quantile, method="inverted_cdf")
        assert tally.latency_ms(quantile) == pytest.approx(exact, rel=0.01)
    assert Tally().latency_ms(0.5) is None


def test_failed_decisions_are_counted_by_reason() -> None:
    tally = tally_of(*[Reply(text="?")] * 3, kind="invalid")
    assert tally.failed_share == 1.0
    assert tally.reasons == {"invalid: not_json": 3}


def invalid(detail: str, reason: str = "schema") -> tuple[dict[str, Any], dict[str, Any]]:
    """Content and telemetry of a decision whose reply was invalid."""
    step = make_step(0, reply=Reply(text="?"), kind="invalid")
    return {**build_content(step), "reason": reason}, {**build_telemetry(step, 0), "detail": detail}


def test_details_of_invalid_replies_are_grouped() -> None:
    tally = Tally()
    for detail in ["got 100.0", "got 50.0", "got 100.0"]:
        tally.add(*invalid(detail))
    for place in (7, 30):
        tally.add(*invalid(f"Expecting ',' delimiter at character {place}; no fence", "not_json"))
    counts = decision_counts(tally)
    assert counts["details"] == {
        "invalid: not_json": {"Expecting ',' delimiter; no fence": 2},
        "invalid: schema": {"got 100.0": 2, "got 50.0": 1},
    }
    assert list_details(counts) == [(2, "Expecting ',' delimiter; no fence"), (2, "got 100.0"), (1, "got 50.0")]
    assert list_details({"total": 3}) == []  # a summary of an earlier version


def test_what_models_write_does_not_fill_the_memory() -> None:
    tally = Tally()
    for number in range(MAX_DETAILS + 10):
        tally.add(*invalid(f"got {number}"))
    tally.add(*invalid("got 0"))
    (counted,) = tally.details.values()
    assert len(counted) == MAX_DETAILS + 1
    assert (counted["got 0"], counted[OTHER_DETAILS], counted.total()) == (2, 10, MAX_DETAILS + 11)


def test_rules_count_by_what_their_orders_do(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, [rule_step(at) for at in range(2)]).path)
    counts = run.summary["decisions"]
    assert (counts["sell"], counts["clipped"], run.summary["llm"]["calls"]) == (2, 2, 0)


def test_equity_table_counts_the_starting_cash_as_a_peak() -> None:
    table = equity_frame(
        time=START + MINUTE * np.arange(3),
        equity=np.array([90.0, 120.0, 60.0]),
        exposure=np.array([0.0, 0.5, 1.0]),
        price=np.ones(3),
        initial_cash=100.0,
    )
    assert table["drawdown"].to_list() == pytest.approx([-0.1, 0.0, -0.5])
    assert table["cash"].to_list() == pytest.approx([90.0, 60.0, 0.0])


def test_no_fills_make_an_empty_table_of_the_schema() -> None:
    assert fills_frame([]).schema == FILL_SCHEMA == fills_frame([make_fill(0)]).schema
