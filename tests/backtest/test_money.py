"""What a run costs: a budget that is never passed, an endpoint that fails without end, spent and saved apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import ChatServer, FaultPlan, stand_in_answer
from small_run import cli, small_config

from agent_bt.llm import retry

USAGE = {"prompt_tokens": 1_000, "completion_tokens": 50, "total_tokens": 1_050}
PRICES = {"input": 2.0, "output": 10.0}  # US dollars per million tokens
CALL_USD = (1_000 * 2.0 + 50 * 10.0) / 1e6


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(stand_in_answer(eagerness=0.6), latency_ms=4, usage=USAGE) as running:
        yield running


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "compute_wait_s", lambda *_: 0.0)


def run(config: Path, *options: object) -> tuple[int, dict[str, Any], str]:
    done = cli("run", config, "--json", "--progress", "none", *options)
    return done.code, done.json if done.out else {}, done.err


def summary_of(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("runs/2*/summary.json")
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


@pytest.mark.parametrize(
    ("limit", "raised", "spent"),
    [
        ({"calls": 21}, {"calls": 1_000}, lambda calls: calls),
        ({"tokens": 40_000}, {"tokens": 10**8}, lambda calls: 1_050 * calls),
        ({"usd": 0.08}, {"usd": 100}, lambda calls: CALL_USD * calls),
    ],
)
def test_a_budget_is_never_passed_and_once_raised_the_run_goes_on(
    tmp_path: Path, server: ChatServer, limit: dict[str, float], raised: dict[str, float], spent: Any
) -> None:
    settings = {"llm__prices": PRICES, "prefetch__depth": 8, "llm__max_in_flight": 8}
    code, stopped, said = run(small_config(tmp_path, server.url, budget=limit, **settings))
    assert code == 4
    (amount,) = limit.values()
    assert 0.4 * amount < spent(server.calls) <= amount  # used, and not passed, calls in flight included
    assert "the budget is reached" in said
    assert stopped["status"] == "budget"
    assert stopped["decisions"]["budget"] == 0
    assert stopped["llm"]["calls"] == server.calls
    assert stopped["llm"]["cost_usd"] == pytest.approx(CALL_USD * server.calls)

    code, done, _ = run(small_config(tmp_path, server.url, budget=raised, **settings))
    assert (code, done["run_id"], done["status"]) == (0, stopped["run_id"], "done")
    # What both sessions have spent, calls sent ahead in vain included.
    assert done["llm"]["calls"] == server.calls
    assert done["llm"]["cost_usd"] == pytest.approx(CALL_USD * server.calls)
    used = done["decisions"]["total"] - done["llm"]["cached"]
    assert done["llm"]["speculation_wasted"] == server.calls - used - done["llm"]["probes"]
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "market.parquet").symlink_to(tmp_path / "market.parquet")
    code, other, _ = run(small_config(whole, server.url, **settings))
    assert (code, other["hashes"]) == (0, done["hashes"])


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("fault", ["500", "html", "truncated_json", "cut", "drop", "empty_choices"])
def test_attempts_that_fail_are_paid_from_the_budget(tmp_path: Path, server: ChatServer, fault: str) -> None:
    # Every second request fails after the server has had the work; the first one is the probe.
    server.script = [None, fault] * 100
    settings = {"llm__prices": PRICES, "llm__retries": 4, "prefetch__depth": 0}
    code, stopped, said = run(small_config(tmp_path, server.url, budget={"calls": 10}, **settings))
    assert code == 4 and "the budget is reached" in said
    assert server.calls == stopped["llm"]["calls"] == 10
    # A failed attempt costs its worst case, which is more than any answer, or the usage that came with it.
    assert stopped["llm"]["cost_usd"] >= CALL_USD * 9.999


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("faults", [{"500": 0.3, "cut": 0.2}, {"html": 0.5}, {"503": 0.4, "drop": 0.2}])
def test_a_budget_in_dollars_is_not_passed_by_failures(
    tmp_path: Path, server: ChatServer, faults: dict[str, float]
) -> None:
    server.faults = FaultPlan(rates=faults, seed=3)
    config = small_config(
        tmp_path, server.url, budget={"usd": 0.3}, llm__prices=PRICES, llm__retries=20, llm__max_in_flight=8
    )
    code, stopped, _ = run(config)
    assert code == 4
    # As if the server billed all it was sent, whatever became of the answer.
    assert CALL_USD * server.calls <= stopped["llm"]["cost_usd"] <= 0.3
    assert stopped["llm"]["calls"] == server.calls


@pytest.mark.usefixtures("no_waits")
@pytest.mark.usefixtures("no_waits")
def test_an_experiment_shows_what_all_its_attempts_have_cost(tmp_path: Path, server: ChatServer) -> None:
    server.script = [None, "500", None, "cut", None] * 3
    base = small_config(tmp_path, server.url, llm__prices=PRICES, llm__retries=4, prefetch__depth=0)
    spec = tmp_path / "ab.yaml"
    arms = {"one": {}, "other": {"strategy.prompt": "btcusdt_trader/v2"}}
    spec.write_text(yaml.safe_dump({"name": "x", "base": str(base), "arms": arms, "baseline": "one"}))
    done = cli("ab", "run", spec, "--no-report")
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("runs/ab/2*/experiment.json")
    spent = json.loads(path.read_text())["spent"]
    assert (spent["calls"], spent["unpriced"]) == (server.calls, 0)
    # A failed attempt counts with its worst case, which is more than an answer.
    assert spent["cost_usd"] > CALL_USD * server.calls
    assert f"spent {server.calls:,} calls" in done.out and f"${spent['cost_usd']:,.4f}" in done.out


@pytest.mark.usefixtures("no_waits")
def test_the_probe_is_paid_from_the_budget_too(tmp_path: Path, server: ChatServer) -> None:
    server.script = ["500", "500", None]
    config = small_config(tmp_path, server.url, budget={"calls": 10}, prefetch__depth=0)
    code, stopped, _ = run(config)
    assert (code, stopped["llm"]["probes"], server.calls) == (4, 3, 10)
    assert stopped["decisions"]["model"] == 7


def test_a_budget_that_holds_is_counted_as_such(tmp_path: Path, server: ChatServer) -> None:
    config = small_config(tmp_path, server.url, budget={"calls": 10, "on_limit": "hold"}, prefetch__depth=0)
    code, summary, _ = run(config)
    assert (code, summary["status"]) == (0, "done")
    counts = summary["decisions"]
    assert (counts["model"], counts["budget"]) == (9, counts["total"] - 9)  # one call found out what the endpoint takes
    assert server.calls == summary["llm"]["calls"] == 10


def test_a_budget_in_dollars_for_a_model_without_a_price_is_refused(tmp_path: Path, server: ChatServer) -> None:
    code, _, said = run(small_config(tmp_path, server.url, budget__usd=1, llm__model="nobody-knows-its-price"))
    assert code == 2
    assert "llm.prices" in said
    assert server.calls == 0
    assert not list(tmp_path.glob("runs/2*"))


def test_spent_and_saved_are_apart(tmp_path: Path, server: ChatServer) -> None:
    config = small_config(tmp_path, server.url, llm__prices=PRICES, prefetch__depth=0)
    _, first, _ = run(config)
    total = first["decisions"]["total"]
    assert (first["llm"]["calls"], first["llm"]["probes"], first["llm"]["cached"]) == (total + 1, 1, 0)
    assert first["llm"]["cost_usd"] == pytest.approx(CALL_USD * (total + 1))
    assert first["llm"]["cost_saved_usd"] == 0
    _, second, _ = run(config)
    assert (second["llm"]["calls"], second["llm"]["cached"]) == (0, total)
    assert second["llm"]["cost_usd"] == 0
    assert second["llm"]["cost_saved_usd"] == pytest.approx(CALL_USD * total)
    shown = cli("run", config, "--progress", "none").out
    assert f"${CALL_USD * total:,.4f} saved" in " ".join(shown.split())


def test_an_unknown_price_is_never_zero(tmp_path: Path, server: ChatServer) -> None:
    config = small_config(tmp_path, server.url, llm__model="nobody-knows-its-price", prefetch__depth=0)
    _, first, _ = run(config)
    assert first["llm"]["cost_usd"] is None
    assert first["llm"]["unpriced"] == first["llm"]["calls"] > 0
    _, second, _ = run(config)
    assert (second["llm"]["calls"], second["llm"]["cost_usd"]) == (0, 0)  # nothing was asked, nothing was paid
    assert second["llm"]["cost_saved_usd"] is None


def test_calls_of_an_unpriced_service_tier_are_reported(tmp_path: Path, server: ChatServer) -> None:
    server.members = {"service_tier": "flex"}
    config = small_config(
        tmp_path, server.url, llm__model="gpt-4o-mini", llm__endpoint_id="api.openai.com", prefetch__depth=0
    )
    _, summary, _ = run(config)
    calls = summary["decisions"]["total"]
    assert summary["llm"]["cost_usd"] is None
    assert f"{calls:,} calls were served in the service tier flex" in " ".join(summary["warnings"])
    code, _, said = run(
        small_config(tmp_path, server.url, llm__params={"service_tier": "flex"}, budget__usd=1), "--fresh"
    )
    assert code == 2 and "unpriced for the service tier flex" in said


@pytest.mark.parametrize("depth", [0, 4])
def test_an_endpoint_that_fails_without_end_stops_the_run_early(depth: int, tmp_path: Path) -> None:
    with ChatServer(script=[None], faults=None) as failing:
        failing.script = [None, None, None, *["500"] * 100_000]
        config = small_config(
            tmp_path, failing.url, llm__retries=0, risk__max_failures_in_a_row=6, prefetch__depth=depth
        )
        code, summary, said = run(config)
        assert code == 1
        assert "6 calls in a row have failed" in said
        assert "server_error" in said
        assert "run the same command again to continue" in said
        assert failing.calls < 20
        assert summary["status"] == "interrupted"
        failing.script = []
        code, done, _ = run(config)
    assert (code, done["run_id"]) == (0, summary["run_id"])
    assert done["decisions"]["transport"] == 0
    assert done["decisions"]["model"] == done["decisions"]["total"]


def test_an_invalid_answer_to_the_probe_is_reported_at_the_start(tmp_path: Path) -> None:
    with ChatServer(lambda _: "I would hold.") as server:
        config = small_config(tmp_path, server.url, prefetch__depth=0)
        done = cli("run", config, "--progress", "plain", "--limit", "3")
        assert "answer to a test question is not valid (not_json" in done.err
        assert done.err.index("test question") < done.err.index("3/3")
        # It is remembered what the endpoint accepts, so that nothing is asked and told a second time.
        assert "test question" not in cli("run", config, "--progress", "plain", "--limit", "3", "--fresh").err


def test_an_endpoint_that_never_answers_leaves_no_run_behind(tmp_path: Path) -> None:
    code, _, said = run(small_config(tmp_path, "http://127.0.0.1:9/v1", llm__retries=0))
    assert code == 1
    assert "127.0.0.1:9" in said or "does not answer" in said
    assert not list(tmp_path.glob("runs/2*"))


def test_a_wrong_key_stops_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-the-right-key")
    with ChatServer(api_key="the-right-key") as locked:
        code, _, said = run(small_config(tmp_path, locked.url))
        assert (code, locked.calls) == (1, 1)
    assert "not-the-right-key" not in said
    assert "llm.api_key_env" in said
