"""Experiments from file to verdict: what is counted, shared, continued, and said."""

from __future__ import annotations

import _thread
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from ab_files import loaded, run, write_experiment
from chat_server import ChatServer

from agent_bt.cli import main as cli
from agent_bt.core.errors import BudgetReached, EndpointDown, Interrupted, UsageError
from agent_bt.core.progress import SilentProgress
from agent_bt.experiments.ab.run import compare, run_experiment
from agent_bt.records.read import load_run

KEYS = {"arm", "verdict", "metric", "effect", "ci_low", "ci_high", "p_value", "mde", "alpha", "trials", "psr", "dsr",
        "warnings"}  # fmt: skip
PROMPTS = {"v1": {"strategy.prompt": "btcusdt_trader/v1"}, "v2": {"strategy.prompt": "btcusdt_trader/v2"}}

PROBE = 1
"""Calls that find out how the model is asked: once for a model at an endpoint, remembered from then on."""


def endpoint(url: str, **more: Any) -> dict[str, Any]:
    return {
        "llm.provider": "openai", "llm.model": "m", "llm.base_url": url, "llm.response_format": "text",
        "llm.retries": 0, "prefetch.depth": 0, **more,
    }  # fmt: skip


def test_equal_arms_cannot_be_told_apart(tmp_path: Path) -> None:
    record = run(write_experiment(tmp_path, {"a": {}, "b": {}}, replicates=2))
    arm = record["arms"]["b"]
    assert set(arm) >= KEYS
    assert (arm["verdict"], arm["effect"], arm["p_value"], arm["warnings"]) == ("cannot_tell", 0, 1, ["arms identical"])
    assert arm["trials"] == 2  # the arms of this comparison; the registry counts their one identity once
    assert arm["decisions"]["agreement"]["rate"]["share"] == 1


def test_replicates_and_windows_are_runs_and_no_trials(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, PROMPTS, replicates=2, windows={"every": "2d"})
    record = run(path)
    assert [(c["arm"], c["replicate"], c["window"]) for c in record["cells"][:3]] == [
        ("v1", 0, 0), ("v2", 0, 0), ("v1", 1, 0)]  # fmt: skip
    assert len(record["cells"]) == 8
    assert record["arms"]["v2"]["trials"] == 2
    folder = tmp_path / "runs" / "ab" / record["experiment_id"]
    assert json.loads((folder / "experiment.json").read_text()) == record
    for cell in record["cells"]:
        assert load_run(folder / cell["run"]).status == cell["status"] == "done"


def test_the_effect_is_the_difference_of_the_mean_daily_return(tmp_path: Path) -> None:
    """Buy and hold against staying out: the effect is the mean 1m return of the account, in bps of a day."""
    base = "market: {start: 2024-07-01, end: 2024-07-05}\nstrategy: {kind: stay_out, every: 1h}\n"
    arms = {"out": {}, "hold": {"strategy.kind": "buy_and_hold"}}
    record = run(write_experiment(tmp_path, arms, base=base))
    (cell,) = (c for c in record["cells"] if c["arm"] == "hold")
    equity = pl.read_parquet(tmp_path / "runs/ab" / record["experiment_id"] / cell["run"] / "equity.parquet")["equity"]
    marks = np.concatenate([[10_000.0], equity.to_numpy()])
    expected = 1440 * 1e4 * float(np.mean(marks[1:] / marks[:-1] - 1.0))
    arm = record["arms"]["hold"]
    assert math.isclose(arm["effect"], expected, rel_tol=1e-9)
    flips = arm["decisions"]
    assert flips["flip_matrix"][2][0] == 1  # HOLD -> BUY, once
    earned = sum(map(sum, flips["flip_pnl"])) + flips["pnl_before_first_flip"]
    assert math.isclose(earned, equity[-1] - 10_000.0, rel_tol=1e-9)


def test_all_cells_share_one_cache_one_budget_and_the_calls_in_flight(tmp_path: Path) -> None:
    with ChatServer(lambda body: '{"action": "HOLD"}', latency_ms=20) as server:
        shared = endpoint(server.url, **{"llm.max_in_flight": 3, "budget.calls": 30})
        path = write_experiment(tmp_path, PROMPTS, set=shared)
        with pytest.raises(BudgetReached, match="arm v"):
            run(path)
        assert server.calls <= 30
        assert server.peak <= 3
        (folder,) = (tmp_path / "runs" / "ab").iterdir()
        assert json.loads((folder / "experiment.json").read_text())["status"] == "budget"
        record = run(path, "budget.calls=1000")
        assert (record["status"], record["experiment_id"]) == ("done", folder.name)
        total = sum(arm["decisions"]["total"] for arm in record["results"].values())
        assert server.calls == PROBE + total  # nothing was asked twice
        again = run_experiment(loaded(path), progress=SilentProgress(), offline=True)
        assert again["experiment_id"] != folder.name  # a finished experiment is never touched
        assert again["arms"]["v2"]["effect"] == record["arms"]["v2"]["effect"]
        assert server.calls == PROBE + total


def test_equal_arms_ask_once_and_replicates_ask_again(tmp_path: Path) -> None:
    with ChatServer(lambda body: '{"action": "HOLD"}', latency_ms=10) as server:
        record = run(write_experiment(tmp_path, {"a": {}, "b": {}}, set=endpoint(server.url), replicates=2))
        decisions = record["results"]["a"]["decisions"]["total"]
        assert server.calls == PROBE + decisions


def test_arms_may_be_different_models_each_with_its_price(tmp_path: Path) -> None:
    prices = {"llm.prices.input": 1.0, "llm.prices.output": 2.0}
    arms = {"cheap": prices, "dear": {"llm.model": "n", "llm.prices.input": 10.0, "llm.prices.output": 20.0}}
    with ChatServer(lambda body: '{"action": "HOLD"}', usage={"prompt_tokens": 100, "completion_tokens": 10}) as server:
        record = run(write_experiment(tmp_path, arms, set=endpoint(server.url)))
    costs = {name: arm["cost_usd_per_decision"]["mean"] for name, arm in record["results"].items()}
    assert costs == pytest.approx({"cheap": 120e-6, "dear": 1200e-6})


def test_an_endpoint_that_is_gone_ends_the_experiment_resumable(tmp_path: Path) -> None:
    with ChatServer(lambda body: '{"action": "HOLD"}') as server:
        url = server.url
    path = write_experiment(tmp_path, PROMPTS, set=endpoint(url, **{"risk.max_failures_in_a_row": 3}))
    with pytest.raises(EndpointDown, match="arm v"):
        run(path)


def test_an_arm_whose_decisions_failed_gets_no_verdict(tmp_path: Path) -> None:
    arms = {"good": {}, "bad": {"llm.params": {"malformed": 1.0}}}
    record = run(write_experiment(tmp_path, arms))
    arm = record["arms"]["bad"]
    assert arm["verdict"] == "cannot_tell"
    assert "too many decisions of bad failed" in arm["warnings"][0]
    rate = record["results"]["bad"]["failure_rate"]
    assert rate["share"] == rate["high"] == 1.0 > rate["low"] > 0.8


def test_a_killed_experiment_is_continued_without_a_repeated_call(tmp_path: Path) -> None:
    """kill -9 in the middle; the same command finishes the same folder, and asks only what had not been answered."""
    with ChatServer(lambda body: '{"action": "HOLD"}') as server:
        server.hold(after=15)
        path = write_experiment(tmp_path, PROMPTS, set=endpoint(server.url, **{"llm.max_in_flight": 2}))
        command = [sys.executable, "-m", "agent_bt", "ab", "run", str(path), "--json", "--progress", "none"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server.wait_for_calls(16)
        process.kill()
        process.wait()
        server.release()  # what was in flight is answered into the void
        record = run(path)
    assert len(list((tmp_path / "runs" / "ab").iterdir())) == 1
    total = sum(arm["decisions"]["total"] for arm in record["results"].values())
    assert PROBE + total <= server.calls <= PROBE + total + 2  # at most the two in flight are asked again


def test_ctrl_c_ends_with_130_and_the_same_command_continues(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        if server.calls == 11:
            _thread.interrupt_main()
        return '{"action": "HOLD"}'

    with ChatServer(answer) as server:
        server.hold(after=10)
        path = write_experiment(tmp_path, PROMPTS, set=endpoint(server.url, **{"llm.max_in_flight": 2}))
        with pytest.raises(Interrupted, match="the same command continues the experiment") as caught:
            run(path)
        assert caught.value.exit_code == 130
        assert server.calls <= 12
        server.release()
        record = run(path)
        total = sum(arm["decisions"]["total"] for arm in record["results"].values())
        assert record["status"] == "done"
        assert server.calls <= PROBE + total + 2
    assert len(list((tmp_path / "runs" / "ab").iterdir())) == 1


def command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["agent-bt", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert caught.value.code == 0, captured.err
    return captured.out


def test_report_list_and_compare_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = run(write_experiment(tmp_path, PROMPTS))
    assert json.loads(command_line(capsys, monkeypatch, "ab", "report", "--json")) == record
    shown = command_line(capsys, monkeypatch, "ab", "report", record["experiment_id"][:16])
    assert "CANNOT TELL" in shown
    assert "SAMPLE MARKET" in shown
    listed = json.loads(command_line(capsys, monkeypatch, "ab", "list", "--json"))["experiments"]
    assert [(each["status"], each["verdicts"]) for each in listed] == [("done", {"v2": "cannot_tell"})]
    paths = [str(tmp_path / "runs/ab" / record["experiment_id"] / cell["run"]) for cell in record["cells"]]
    judged = json.loads(command_line(capsys, monkeypatch, "compare", *paths, "--json"))
    (arm,) = judged["arms"].values()
    assert set(arm) >= KEYS
    assert arm["effect"] == record["arms"]["v2"]["effect"]
    assert arm["trials"] == record["arms"]["v2"]["trials"]
    assert "CANNOT TELL" in command_line(capsys, monkeypatch, "compare", *paths)
    with pytest.raises(UsageError, match="both names refer to the run"):
        compare(load_run(paths[0]), load_run(paths[0]), metric="mean_return", alpha=0.05)
