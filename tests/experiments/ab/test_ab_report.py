"""The A/B report as a file: what stands in it, derived from the runs and the record in another way."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from ab_runs import CASH, NASTY, NASTY_ROW, make_experiment
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.errors import RecordError
from agent_bt.experiments.ab.report import write_ab_report
from agent_bt.experiments.ab.report_facts import headline, intervals
from agent_bt.records.run_folder import write_json

DECISIONS = 70
ARMS, REPLICATES, WINDOWS = 3, 2, 2


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_experiment(
        tmp_path_factory.mktemp("runs"), DECISIONS, arms=ARMS, replicates=REPLICATES, windows=WINDOWS, rows=5
    )
    write_ab_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(experiment: Path) -> str:
    return (experiment / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def record(experiment: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((experiment / "experiment.json").read_bytes())
    return data


def block(page: str, name: str) -> bytes:
    found = re.search(rf'<script type="text/plain" id="{name}">([A-Za-z0-9+/=]*)</script>', page)
    assert found, name
    return zlib.decompress(base64.b64decode(found[1]))


def columns(page: str, name: str) -> dict[str, list[float | None]]:
    """An independent reader of the packed columns, number by number."""
    data = block(page, name)
    (head_length,) = struct.unpack("<I", data[:4])
    at = 4 + head_length
    read = {}
    for head in json.loads(data[4:at]):
        count, width = head["count"], head["width"]
        values: list[float | None] = []
        total = 0
        for row in range(count):
            code = sum(data[at + plane * count + row] << (8 * plane) for plane in range(width))
            if head["nullable"]:
                if code == 0:
                    values.append(None)
                    continue
                code -= 1
            code = -(code + 1) // 2 if code % 2 else code // 2
            total = total + code if head["delta"] else code
            values.append(total / 10 ** head["decimals"])
        at += width * count
        read[head["name"]] = values
    return read


def lanes(record: dict[str, Any], experiment: Path) -> list[list[pl.DataFrame]]:
    """decisions.parquet of every column of the matrix, window by window."""
    found: dict[tuple[str, int], list[pl.DataFrame]] = {}
    for cell in sorted(record["cells"], key=lambda cell: (cell["arm"], cell["replicate"], cell["window"])):
        table = pl.read_parquet(experiment / cell["run"] / "decisions.parquet")
        found.setdefault((cell["arm"], cell["replicate"]), []).append(table)
    return list(found.values())


def test_every_cell_of_the_matrix_is_the_action_that_was_recorded(
    page: str, record: dict[str, Any], experiment: Path
) -> None:
    index = columns(page, "index-block")
    tables = [pl.concat(each) for each in lanes(record, experiment)]
    times = sorted({time for table in tables for time in table["time"].to_physical().to_list()})
    assert index["time"] == [time // 1000 for time in times]
    assert len(times) == DECISIONS * WINDOWS
    assert index["window"] == [0] * DECISIONS + [1] * DECISIONS
    for lane, table in enumerate(tables):
        there = dict(zip(table["time"].to_physical().to_list(), table.to_dicts(), strict=True))
        for time, code, size in zip(times, index[f"cell{lane}"], index[f"size{lane}"], strict=True):
            row = there.get(time)
            if row is None:
                assert code is None
                continue
            assert code is not None
            code = int(code)
            assert ("HOLD", "BUY", "SELL")[code % 4] == row["action"]
            assert ("model", "invalid", "transport", "budget")[code // 4 % 4] == row["provenance"]
            assert (code >= 16) == bool(row["orders"])
            assert size == row["size"]
    assert index[f"cell{len(tables) - 1}"].count(None) == WINDOWS


def test_behind_every_cell_are_its_exact_messages_and_its_raw_reply(
    page: str, record: dict[str, Any], experiment: Path
) -> None:
    chunks = [json.loads(block(page, f"chunk-{n}")) for n in range(-(-DECISIONS * WINDOWS // 32))]
    rows = [(chunk["texts"], row) for chunk in chunks for row in chunk["rows"]]
    times = columns(page, "index-block")["time"]
    assert len(rows) == len(times)
    for lane, each in enumerate(lanes(record, experiment)):
        there = {row["time"].timestamp() * 1000: row for table in each for row in table.to_dicts()}
        for time, (texts, row) in zip(times, rows, strict=True):
            cell, expected = row[lane], there.get(time)
            assert (cell is None) == (expected is None)
            if cell is None or expected is None:
                continue
            (exchange,) = cell["exchanges"]
            messages = [{"role": role, "content": texts[text]} for role, text in exchange["messages"]]
            assert (messages, exchange["reply"]) == (expected["messages"], expected["reply"])
            assert (cell["action"], cell.get("note", "")) == (expected["action"], expected["note"])
            assert cell["cost_usd"] == expected["telemetry"]["cost_usd"]


def test_a_text_that_many_runs_share_is_there_once(page: str) -> None:
    chunk = json.loads(block(page, "chunk-0"))
    assert len(chunk["texts"]) == len(set(chunk["texts"]))
    assert sum(text.startswith("You trade") for text in chunk["texts"]) == ARMS


def test_bands_are_median_lowest_and_highest_of_the_replicates(
    page: str, record: dict[str, Any], experiment: Path
) -> None:
    bands = columns(page, "bands-block")
    runs: dict[str, dict[int, list[pl.DataFrame]]] = {}
    for cell in record["cells"]:
        equity = pl.read_parquet(experiment / cell["run"] / "equity.parquet")
        runs.setdefault(cell["arm"], {}).setdefault(cell["replicate"], []).append(equity)
    for number, replicates in enumerate(runs.values()):
        ends = [np.prod([window["equity"][-1] / CASH for window in windows]) - 1.0 for windows in replicates.values()]
        for name, expected in (("median", np.median(ends)), ("low", min(ends)), ("high", max(ends))):
            assert bands[f"{name}{number}"][-1] == pytest.approx(expected, abs=1e-6)
        first = next(iter(replicates.values()))[0]
        times = dict(zip(first["time"].to_physical().to_list(), range(len(first)), strict=True))
        rows = [times[int(time or 0) * 1000] for time in bands["time"][:50]]
        marks = [[windows[0]["equity"][row] / CASH - 1.0 for windows in replicates.values()] for row in rows]
        assert bands[f"low{number}"][:50] == pytest.approx([min(mark) for mark in marks], abs=1e-6)
    hold = next(iter(runs.values()))[0]
    ends = [window["price"][-1] / window["price"][0] for window in hold]
    assert bands["hold"][-1] == pytest.approx(np.prod(ends) - 1.0, abs=1e-6)


def test_no_text_of_a_model_is_markup(page: str) -> None:
    assert NASTY not in page
    assert "<script>window.__pwned" not in page
    assert page.count("</script>") == len(re.findall(r"<script\b", page))


def test_verdicts_flips_and_costs_stand_in_the_page(page: str, record: dict[str, Any]) -> None:
    for arm in record["arms"].values():
        assert arm["sentence"].replace("'", "&#39;") in page
        assert f"{arm['decisions']['paired']:,} decisions" in page
        for row in arm["decisions"]["flip_matrix"]:
            for count in row:
                assert re.search(rf'data-flip="[\d,]+">{count:,}<', page)
    assert headline(record) in page
    assert "<td>$0.2100</td>" in page  # 1,000 decisions of the first arm at $0.00021 each


def test_plotly_lies_beside_the_runs_once_for_them_and_for_experiments(experiment: Path, page: str) -> None:
    source = re.search(r'<script id="plotly" data-src="([^"]+)"', page)
    assert source
    assert source[1].startswith("../../assets/plotly-")
    assert (experiment / source[1]).resolve().parent == experiment.parent.parent / "assets"
    assert (experiment / source[1]).exists()


def test_an_unfinished_experiment_has_no_report(tmp_path: Path) -> None:
    folder = tmp_path / "ab" / "20240701T000000Z-prompts-abc123"
    folder.mkdir(parents=True)
    write_json(folder / "experiment.json", {"status": "interrupted", "cells": []})
    with pytest.raises(RecordError, match="not finished; the command that began it continues it"):
        write_ab_report(folder)
    assert not (folder / "report.html").exists()


def test_an_experiment_whose_run_is_damaged_says_which_file(experiment: Path, tmp_path: Path) -> None:
    folder = make_experiment(tmp_path, 8, arms=2, replicates=1, rows=2)
    broken = next(folder.glob("runs/v2/*/*/decisions.parquet"))
    broken.write_bytes(b"no table")
    with pytest.raises(RecordError, match=re.escape(str(broken))):
        write_ab_report(folder)


def arm(name: str, verdict: str, warnings: list[str] | None = None) -> dict[str, Any]:
    return {"arm": name, "verdict": verdict, "sentence": f"about {name}.", "warnings": warnings or []}


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ([arm("b", "better")], "about b."),
        ([arm("b", "cannot_tell"), arm("c", "cannot_tell")], "Neither b nor c can be told from a by this test."),
        ([arm(n, "cannot_tell") for n in "bcd"], "None of b, c and d can be told from a by this test."),
        ([arm("b", "better"), arm("c", "cannot_tell")], "b is better than a; c cannot be told from it."),
        ([arm("b", "better", ["few"]), arm("c", "worse")], "b looks better than a; c is worse than a."),
        ([arm("b", "worse"), arm("c", "worse")], "b and c are worse than a."),
    ],
)
def test_the_headline_is_one_sentence_about_all_arms(arms: list[dict[str, Any]], expected: str) -> None:
    assert headline({"arms": {each["arm"]: each for each in arms}, "baseline": "a"}) == expected


@settings(max_examples=50)
@given(
    effects=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5),
    reach=st.none() | st.floats(0, 1e4),
    mde=st.none() | st.floats(0, 1e4),
)
def test_everything_lies_on_the_axis_and_zero_in_its_middle(
    effects: list[float], reach: float | None, mde: float | None
) -> None:
    rows = [
        {
            "effect": e,
            "low": None if reach is None else e - reach,
            "high": None if reach is None else e + reach,
            "mde": mde,
        }
        for e in effects
    ]
    axis = intervals(rows)
    for row in axis["rows"]:
        placed = [row["at"]["effect"], row["at"]["low"], row["at"]["high"], *(row["at"]["mde"] or [])]
        assert all(0.0 <= place <= 100.0 for place in placed if place is not None)
        assert (row["at"]["effect"] - 50.0) * row["effect"] >= 0.0
    assert [tick["text"] for tick in axis["ticks"] if tick["at"] == 50.0] == ["0"]
    assert 3 <= len(axis["ticks"]) <= 13


def test_the_nasty_reply_is_behind_its_cell(page: str) -> None:
    chunk = json.loads(block(page, "chunk-0"))
    replies = [cell["exchanges"][0]["reply"] for cell in chunk["rows"][NASTY_ROW]]
    assert replies == [f"{NASTY} v{1 + lane // REPLICATES}" for lane in range(ARMS * REPLICATES)]
