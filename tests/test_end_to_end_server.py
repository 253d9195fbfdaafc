"""Whole runs against a real HTTP server: faults, refusals, dead and dying endpoints, and what a cache saves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import HANG_S, ChatServer, FaultPlan, stand_in_answer
from whole_runs import START, config_over, minutes, provenance_adds_up, recorded, run_over

from agent_bt.backtest.run import Result, run_config
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.clock import time_us
from agent_bt.core.errors import (
    AgentBtError,
    AuthenticationFailed,
    BudgetReached,
    EndpointDown,
    QualityGate,
    UnknownModel,
)
from agent_bt.data.archive import Archive
from agent_bt.data.backfill import backfill
from agent_bt.data.spans import Span
from agent_bt.data.store import Store
from agent_bt.data.transport import Transport

KEY = "a-test-key-that-must-not-be-shown"
ANSWER = stand_in_answer(eagerness=1.0)
FAULTS = {
    "bad_reply": 0.08, "length": 0.04, "refusal": 0.04, "content_filter": 0.04, "429": 0.05, "500": 0.04, "503": 0.04,
    "cut": 0.04, "drop": 0.04, "html": 0.03, "truncated_json": 0.03, "content_type": 0.03, "empty_choices": 0.03,
    "no_message": 0.03, "stall": 0.02,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def market(tmp_path: Path) -> Path:
    path = tmp_path / "market.parquet"
    minutes(1440, holes=False).write_parquet(path)
    return path


def asking(url: str, market: Path, *settings: str) -> Config:
    """46 decisions of an agent that asks the endpoint at `url`."""
    base = [
        "llm.provider=openai",
        f"llm.base_url={url}",
        "llm.endpoint_id=local",
        "strategy.every=30m",
        "llm.response_format=text",
    ]
    return config_over(market, *base, *settings, folder=market.parent, end=START + timedelta(days=1))


def actions(result: Result) -> list[tuple[str, str]]:
    frame = pl.read_parquet(result.run_dir / "decisions.parquet")
    return list(zip(frame["provenance"], frame["action"], strict=True))


def test_a_second_run_asks_nothing_and_decides_the_same(market: Path) -> None:
    with ChatServer(ANSWER) as server:
        first = run_over(asking(server.url, market))
        asked = server.calls
        second = run_over(asking(server.url, market))
        assert server.calls == asked
    decisions = first.summary["decisions"]
    assert decisions["total"] == decisions["model"] == 45
    assert decisions["buy"] > 1
    assert (first.summary["llm"]["cached"], second.summary["llm"]["cached"]) == (0, 45)
    assert second.summary["llm"]["calls"] == 0
    assert second.run_dir != first.run_dir
    assert second.summary["hashes"] == first.summary["hashes"]


def test_the_model_behind_http_decides_as_the_same_policy_inside(market: Path) -> None:
    with ChatServer(ANSWER) as server:
        outside = run_over(asking(server.url, market))
    inside = run_over(asking("http://127.0.0.1:9", market, "llm.provider=stand_in", "llm.params={eagerness: 1.0}"))
    assert actions(outside) == actions(inside)
    assert outside.summary["hashes"]["fills"] == inside.summary["hashes"]["fills"]
    assert outside.summary["hashes"]["equity"] == inside.summary["hashes"]["equity"]


def check_faulty(server: ChatServer, result: Result, *, retried: bool) -> None:
    """Counts add up; a failed decision is a HOLD with a reason; what was asked is what was counted."""
    decisions = result.summary["decisions"]
    assert provenance_adds_up(decisions)
    frame = pl.read_parquet(result.run_dir / "decisions.parquet")
    assert frame["provenance"].value_counts(sort=True).sort("provenance").rows() == sorted(
        (kind, decisions[kind]) for kind in ("model", "invalid", "transport", "budget") if decisions[kind]
    )
    failed = frame.filter(pl.col("provenance") != "model")
    assert failed["action"].unique().to_list() == ["HOLD"]
    assert failed["reason"].str.len_chars().min() > 0
    assert failed["trades"].null_count() == len(failed)
    assert sum(decisions["reasons"].values()) == len(failed)
    assert decisions["failed_share"] == pytest.approx(len(failed) / decisions["total"])
    attempts = frame["telemetry"].struct.field("attempts").sum()
    llm = result.summary["llm"]
    if not retried:
        # The call that probed the endpoint before the first decision is one of them.
        assert llm["calls"] == server.calls
    assert attempts <= server.calls
    assert result.status == "done"


def test_bad_replies_are_holds_with_a_reason_and_everything_is_counted_once(market: Path) -> None:
    with ChatServer(ANSWER, script=[None], faults=FaultPlan(rates=FAULTS), stall_s=HANG_S) as server:
        settings = ("llm.retries=0", "llm.timeout_s=2", "prefetch.depth=0")
        result = run_over(asking(server.url, market, *settings))
        assert {"invalid", "transport"} <= {kind for kind, _ in actions(result)}
        check_faulty(server, result, retried=False)
        assert sum(server.record.faults.values()) > 10


def test_retries_cure_what_passes_and_prefetch_changes_no_decision(market: Path) -> None:
    # A fault depends on the body and on how often it was seen, so every order of asking meets the same ones.
    passing = dict.fromkeys(("429", "500", "503", "cut", "drop", "truncated_json"), 0.02)
    found = []
    for depth in (0, 6):
        with ChatServer(ANSWER, faults=FaultPlan(rates=passing | {"bad_reply": 0.1}, seed=3)) as server:
            settings = ("llm.retries=6", f"prefetch.depth={depth}", f"cache.path={market.parent / str(depth)}")
            result = run_over(asking(server.url, market, *settings), fresh=True)
            check_faulty(server, result, retried=True)
            found.append(result)
    assert all(result.summary["decisions"]["transport"] == 0 for result in found)
    assert found[0].summary["decisions"]["invalid"] > 0
    assert found[0].summary["hashes"] == found[1].summary["hashes"]


def test_too_many_failed_decisions_fail_the_run(market: Path) -> None:
    with ChatServer(ANSWER, faults=FaultPlan(rates={"bad_reply": 0.5})) as server:
        borne = run_over(asking(server.url, market, "risk.max_failed_share=1.0"))
        share = borne.summary["decisions"]["failed_share"]
        allowed = run_over(asking(server.url, market, f"risk.max_failed_share={share}"))
    # The limit itself is allowed, and the share of failures does not make another run of it.
    assert borne.status == allowed.status == "done"
    assert allowed.summary["hashes"] == borne.summary["hashes"]
    # What costs nothing any more runs to its end, and has failed.
    failed = run_over(asking(server.url, market, "risk.max_failed_share=0.05"), offline=True)
    assert (failed.status, failed.error) == ("failed", None)
    assert any("the result means nothing" in warning for warning in failed.summary["warnings"])
    assert failed.summary["hashes"] == borne.summary["hashes"]


@pytest.mark.parametrize(("fault", "kind"), [("bad_reply", "invalid"), ("refusal", "invalid"), ("503", "transport")])
def test_a_run_that_has_failed_already_pays_for_no_further_call(market: Path, fault: str, kind: str) -> None:
    settings = ("prefetch.depth=0", "llm.retries=0", "risk.max_failures_in_a_row=100")
    with ChatServer(ANSWER, script=[None] * 3 + [fault] * 1_000) as server:
        stopped_early = run_over(asking(server.url, market, *settings, "risk.max_failed_share=0.1"))
        # 45 decisions: the fifth failure makes more than a tenth certain. One probe, two decisions, five failures.
        assert server.calls == 1 + 2 + 5
    error = stopped_early.error
    assert isinstance(error, QualityGate)
    assert error.exit_code == 3
    assert "5 of 45 decisions have failed" in str(error)
    assert f"of them as {kind}: " in str(error)
    assert "risk.max_failed_share (10.0%)" in str(error)
    assert stopped_early.status == "interrupted"
    with ChatServer(ANSWER) as server:
        continued = run_over(asking(server.url, market, *settings, "risk.max_failed_share=0.2"))
        # Invalid replies are replies; what never came is asked for again.
        assert server.calls == 45 - 2 - (5 if kind == "invalid" else 0)
    assert (continued.status, continued.run_dir) == ("done", stopped_early.run_dir)
    assert continued.summary["decisions"][kind] == (5 if kind == "invalid" else 0)


def stopped(config: Config) -> AgentBtError:
    with pytest.raises(AgentBtError) as caught:
        run_over(config)
    assert caught.value.exit_code == 1
    assert KEY not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("response_format", ["text", "auto"])
def test_a_wrong_key_stops_at_once_and_is_not_shown(market: Path, response_format: str) -> None:
    with ChatServer(ANSWER, api_key="another") as server:
        error = stopped(asking(server.url, market, f"llm.response_format={response_format}"))
        assert isinstance(error, AuthenticationFailed)
        assert server.calls <= 4
    assert "llm.api_key_env" in str(error)
    everything = b"".join(path.read_bytes() for path in market.parent.rglob("*") if path.is_file())
    assert KEY.encode() not in everything


def test_an_unknown_model_is_named(market: Path) -> None:
    with ChatServer(ANSWER, models=["another"]) as server:
        error = stopped(asking(server.url, market))
    assert isinstance(error, UnknownModel)
    assert "'baseline'" in str(error)


@pytest.mark.parametrize("response_format", ["text", "auto"])
def test_a_dead_endpoint_ends_the_run_soon(market: Path, response_format: str) -> None:
    with ChatServer(ANSWER) as server:
        closed = server.url
    settings = ("llm.retries=1", "risk.max_failures_in_a_row=4", f"llm.response_format={response_format}")
    error = stopped(asking(closed, market, *settings))
    assert isinstance(error, EndpointDown)
    assert closed in str(error)


@pytest.mark.parametrize("depth", [0, 5])
def test_an_endpoint_that_dies_is_continued_to_the_same_content(market: Path, depth: int) -> None:
    settings = ("llm.retries=0", "risk.max_failures_in_a_row=4", f"prefetch.depth={depth}")
    with ChatServer(ANSWER) as server:
        whole = run_over(
            asking(server.url, market, *settings, "cache.path=" + str(market.parent / "other")), fresh=True
        )
    with ChatServer(ANSWER, script=[None] * 12 + ["drop"] * 10_000) as server:
        result = run_over(asking(server.url, market, *settings))
    assert isinstance(result.error, EndpointDown)
    assert (result.status, result.error.exit_code) == ("interrupted", 1)
    assert "run the same command again to continue" in str(result.error)
    with ChatServer(ANSWER) as server:
        continued = run_over(asking(server.url, market, *settings))
        if depth == 0:
            # What was answered before is not asked again; the first of the 12 calls probed the endpoint.
            assert server.calls == 45 - 11
    assert continued.run_dir == result.run_dir
    assert continued.status == "done"
    # Calls sent ahead arrive in any order: one may fail although a later one was answered, and then it has failed.
    failed = continued.summary["decisions"]["transport"]
    assert failed <= depth
    if failed == 0:
        assert continued.summary["hashes"] == whole.summary["hashes"]
        assert recorded(continued.run_dir) == recorded(whole.run_dir)


def test_a_key_that_is_withdrawn_in_the_middle_leaves_a_run_to_continue(market: Path) -> None:
    with ChatServer(ANSWER) as server:
        whole = run_over(asking(server.url, market, "cache.path=" + str(market.parent / "other")), fresh=True)

    def withdraw(body: dict[str, Any]) -> Any:
        # After the call that probes, and eight decisions.
        server.api_key = "another" if server.calls >= 9 else None
        return ANSWER(body)

    with ChatServer(withdraw) as server:
        result = run_over(asking(server.url, market, "prefetch.depth=0"))
    assert isinstance(result.error, AuthenticationFailed)
    assert result.summary["decisions"]["total"] == 8
    with ChatServer(ANSWER) as server:
        continued = run_over(asking(server.url, market))
    assert continued.run_dir == result.run_dir
    assert continued.summary["hashes"] == whole.summary["hashes"]


@pytest.mark.parametrize("depth", [0, 5])
def test_a_spent_budget_stops_resumable_and_a_larger_one_continues(market: Path, depth: int) -> None:
    settings = (f"prefetch.depth={depth}", "llm.retries=0")
    with ChatServer(ANSWER) as server:
        other = f"cache.path={market.parent / 'other'}"
        whole = run_over(asking(server.url, market, *settings, other), fresh=True)
        server.reset()
        stopped_at = run_over(asking(server.url, market, *settings, "budget.calls=12"))
        assert isinstance(stopped_at.error, BudgetReached)
        assert (stopped_at.status, stopped_at.error.exit_code) == ("budget", 4)
        assert server.calls <= 12
        again = run_over(asking(server.url, market, *settings, "budget.calls=12"))
        assert (again.status, again.run_dir) == ("budget", stopped_at.run_dir)
        assert server.calls <= 12
        continued = run_over(asking(server.url, market, *settings, "budget.calls=1000"))
    assert continued.run_dir == stopped_at.run_dir
    assert continued.summary["hashes"] == whole.summary["hashes"]


@pytest.fixture
def real_months(tmp_path: Path, market_data: Path) -> Iterator[Path]:
    archive = Archive(f"file://{market_data}/archive/data", Transport())
    span = Span(time_us("2024-07-01"), time_us("2024-10-01"))
    backfill(Store(tmp_path / "data", "BTCUSDT"), [span], archive, None, now=time_us("2026-01-01"))
    yield tmp_path


def real_config(folder: Path, *settings: str) -> Config:
    shipped = Path(__file__).parents[1] / "configs" / "real_months.yaml"
    place = (f"data.root={folder / 'data'}", f"output={folder / 'runs'}", f"cache.path={folder / 'cache.sqlite'}")
    return load_config(shipped, [*place, *settings], env={})


@pytest.mark.market
def test_real_months_run_and_run_again_with_equal_hashes(real_months: Path) -> None:
    first = run_config(real_config(real_months))
    # 92 days of 24 hours, without the first: the window of 60 bars and the 34 the MACD needs end at 01:34.
    assert first.summary["decisions"]["total"] == first.summary["decisions"]["model"] == 92 * 24 - 1
    assert first.summary["bars"] == 132_480
    assert first.summary["decisions"]["skipped"] == 0
    again = run_config(real_config(real_months))
    assert again.run_dir != first.run_dir
    assert again.summary["hashes"] == first.summary["hashes"]


@pytest.mark.market
def test_a_day_of_real_months_against_a_faulty_server(real_months: Path) -> None:
    check_real(real_months, FAULTS, limit=30)


@pytest.mark.market
@pytest.mark.verify
def test_real_months_against_a_faulty_server(real_months: Path) -> None:
    # A few hundred calls meet a fault: enough of each kind, and minutes instead of a quarter of an hour.
    check_real(real_months, {name: rate / 4 for name, rate in FAULTS.items()}, limit=None)


def check_real(folder: Path, rates: dict[str, float], limit: int | None) -> None:
    settings = ("llm.provider=openai", "llm.timeout_s=2", "llm.endpoint_id=local", "risk.max_failed_share=0.5")
    with ChatServer(ANSWER, faults=FaultPlan(rates=rates), stall_s=HANG_S) as server:
        one = run_config(real_config(folder, *settings, f"llm.base_url={server.url}"), limit=limit)
        assert one.summary["decisions"]["total"] == (limit or 92 * 24 - 1)
        assert one.summary["decisions"]["invalid"] > 0
        check_faulty(server, one, retried=True)
        # What was answered is in the cache; the rest failed on the way and is asked again.
        asked, failed = server.calls, one.summary["decisions"]["transport"]
        two = run_config(real_config(folder, *settings, f"llm.base_url={server.url}"), limit=limit)
        if not failed:
            assert two.summary["llm"]["cached"] == two.summary["decisions"]["total"]
            assert server.calls == asked
            assert two.summary["hashes"] == one.summary["hashes"]
