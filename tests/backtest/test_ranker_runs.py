"""Whole runs of rankers and of ensembles with agents, inside and against a real HTTP server."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import ChatServer, FaultPlan, stand_in_answer
from whole_runs import provenance_adds_up

from agent_bt.backtest.bars import SAMPLE_SYMBOLS
from agent_bt.backtest.estimate import estimate
from agent_bt.backtest.plan import plan_run
from agent_bt.backtest.preview import render_prompt, validate
from agent_bt.backtest.replay import replay
from agent_bt.backtest.run import run_config
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError, PromptError, ReplayError, UsageError
from agent_bt.core.progress import SilentProgress
from agent_bt.experiments.audit import audit_config
from agent_bt.experiments.leakcheck import leakcheck
from agent_bt.llm.stand_in import StandInParams, answer

ROOT = Path(__file__).parents[2]
RANKER = ROOT / "configs" / "agent_ranker.yaml"
MEMBERS = (
    "[{kind: momentum, params: {lookback_col: return_24, top_n_long: 2}},"
    " {kind: agent_ranker, weight: 2, params: {columns: [return_24]}}]"
)
RANKING_ENSEMBLE = ("strategy.kind=ensemble", f"strategy.params={{columns: null, members: {MEMBERS}, window: 5}}")
TRADING_ENSEMBLE = (
    "strategy.kind=ensemble",
    "strategy.params={members: [{kind: ma_cross, params: {fast: 6, slow: 24}}, {kind: agent, weight: 2}]}",
)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-test-key")


def ranking(folder: Path, *settings: str) -> Config:
    """24 decisions over the sample market's symbols, one every four hours."""
    base = [
        f"output={folder / 'runs'}", f"cache.path={folder / 'cache.sqlite'}", "rebalance=4h", "market.end=2024-07-05",
        "market.warmup=3d", "risk.max_failed_share=1.0", "strategy.params.columns=[return_24, volatility_48]",
    ]  # fmt: skip
    ensemble = any(setting.startswith("strategy.kind=ensemble") for setting in settings)
    config = load_config(RANKER, [*base, *settings], env={})
    if not ensemble:
        return config
    params = {key: value for key, value in config.strategy.params.items() if key in ("members", "window")}
    return config.model_copy(update={"strategy": config.strategy.model_copy(update={"params": params})})


def trading(folder: Path, *settings: str) -> Config:
    """An agent and a rule that vote on one symbol, once an hour for five days."""
    base = [
        f"output={folder / 'runs'}", f"cache.path={folder / 'cache.sqlite'}", "strategy.every=1h",
        "market.interval=1h", "market.end=2024-07-06", "risk.max_failed_share=1.0", "features.window=30",
    ]  # fmt: skip
    return load_config(None, [*base, *TRADING_ENSEMBLE, *settings], env={})


def over(server: ChatServer) -> tuple[str, ...]:
    return ("llm.provider=openai", f"llm.base_url={server.url}", "llm.endpoint_id=local")


def content(result: Any) -> dict[str, str]:
    hashes: dict[str, str] = result.summary["hashes"]
    return {name: hashes[name] for name in ("decisions", "fills", "equity")}


def decisions(result: Any) -> pl.DataFrame:
    return pl.read_parquet(result.run_dir / "decisions.parquet")


def test_the_shipped_config_runs_and_replays(tmp_path: Path) -> None:
    result = run_config(ranking(tmp_path), config_path=RANKER, report=False)
    assert result.status == "done" and result.error is None
    assert result.summary["about"]["strategy"] == "ranker:panel_ranker/v1"
    assert any(banner.startswith("STAND-IN MODEL") for banner in result.summary["banners"])
    found = decisions(result)
    assert len(found) == 24 and found["action"].unique().to_list() == ["TARGETS"]
    there = set(pl.read_parquet(result.run_dir / "market.parquet")["symbol"])
    assert there < set(SAMPLE_SYMBOLS)  # one of the ten is listed later
    assert all({each["symbol"] for each in targets} == there for targets in found["targets"])
    table = found["messages"][0][-1]["content"].splitlines()[3:]
    assert {line.split(",")[0] for line in table} == there
    again = replay(result.run_dir)
    assert again.identical and again.decisions == 24


@pytest.mark.parametrize("kind", ["ranker", "ranking_ensemble", "trading_ensemble"])
def test_over_http_with_and_without_prefetch_from_the_cache_and_offline_all_is_the_same(
    tmp_path: Path, kind: str
) -> None:
    def make(*settings: str) -> Config:
        if kind == "trading_ensemble":
            return trading(tmp_path, *settings)
        return ranking(tmp_path, *(RANKING_ENSEMBLE if kind == "ranking_ensemble" else ()), *settings)

    with ChatServer(stand_in_answer(eagerness=0.8), latency_ms=3) as server:
        ahead = run_config(make(*over(server)), report=False)
        schema = server.bodies[-1]["response_format"]["json_schema"]["schema"]
        assert next(iter(schema["properties"])) == ("action" if kind == "trading_ensemble" else "weights")
        asked = server.calls
        again = run_config(make(*over(server)), report=False)
        assert server.calls == asked
        alone = run_config(
            make(*over(server), "prefetch.depth=0", f"cache.path={tmp_path / 'other.sqlite'}"), report=False
        )
    total = ahead.summary["decisions"]["total"]
    assert ahead.summary["decisions"]["model"] == total > 20
    assert provenance_adds_up(ahead.summary["decisions"]) or kind != "trading_ensemble"
    assert ahead.summary["llm"]["speculation_hits"] > 0
    assert content(ahead) == content(again) == content(alone)
    assert alone.summary["llm"]["calls"] == total + 1  # the probe
    offline = run_config(make(*over(server)), report=False, offline=True)
    assert content(offline) == content(ahead)
    assert replay(ahead.run_dir).identical
    with pytest.raises(ReplayError, match="decision 0"):
        # Another question is not in the cache.
        other = make(*over(server)).model_copy(update={"seed": 8})
        raise run_config(other, report=False, offline=True).error or AssertionError


def test_prompts_without_the_account_all_go_out_at_once(tmp_path: Path) -> None:
    settings = ("strategy.prompt=panel_ranker/v1-blind", "llm.max_in_flight=12")
    with ChatServer(stand_in_answer()) as server:
        server.hold(after=9)  # the window of calls in flight grows with every answer
        six_more = threading.Thread(target=lambda: (server.wait_for_calls(15), server.release()))
        six_more.start()
        result = run_config(ranking(tmp_path, *over(server), *settings), report=False)
        six_more.join()
        assert server.peak >= 6
        assert server.calls == result.summary["decisions"]["total"] + 1
    assert result.summary["llm"]["speculation_wasted"] == 0


def test_whatever_comes_back_that_is_not_valid_leaves_everything_alone(tmp_path: Path) -> None:
    params = StandInParams(malformed=0.4)
    faults = FaultPlan(rates={"length": 0.1, "refusal": 0.1, "500": 0.1})
    with ChatServer(lambda body: answer(body["messages"], params), script=[None], faults=faults) as server:
        result = run_config(ranking(tmp_path, *over(server), "llm.retries=0", "prefetch.depth=0"), report=False)
    found = decisions(result)
    failed = found.filter(pl.col("provenance") != "model")
    assert {"invalid", "transport"} == set(failed["provenance"])
    assert failed["action"].unique().to_list() == ["HOLD"]
    assert failed["targets"].null_count() == failed["trades"].null_count() == len(failed)
    assert failed["orders"].list.len().sum() == 0
    assert failed["reason"].str.len_chars().min() > 0
    assert len(failed) < len(found)
    assert replay(result.run_dir).identical


def test_a_ranker_has_its_own_format_negotiation(tmp_path: Path) -> None:
    with ChatServer(stand_in_answer(), refuse=("json_schema",)) as server:
        run_config(ranking(tmp_path, *over(server)), report=False)
        probe = server.bodies[0]
        assert '{"weights": []}' in probe["messages"][-1]["content"]
        assert server.bodies[-1]["response_format"] == {"type": "json_object"}
        assert '"weights"' in server.bodies[-1]["messages"][0]["content"].split("JSON Schema")[1]


def test_a_run_is_estimated_audited_rendered_and_checked(tmp_path: Path) -> None:
    config = ranking(tmp_path)
    found = estimate(config)
    assert (found.decisions, found.calls) == (24, 24)
    assert found.completion_tokens > 24 * 40
    messages = render_prompt(config, "2024-07-03", config_path=RANKER)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "symbol,price,return_24,volatility_48,weight" in messages[1]["content"]
    assert {finding.level for finding in validate(config, RANKER)} == {"ok", "warning"}
    audit = audit_config(config, cuts=4)
    assert audit.leak is None and audit.decisions == 24
    with pytest.raises(UsageError, match="agent_ranker: the leak check asks for BUY, SELL or HOLD"):
        leakcheck(config, progress=SilentProgress())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (["strategy.prompt=btcusdt_trader/v1"], PromptError, "has no weights.*panel_ranker/v1"),
        (["mode=time_series"], ConfigError, "weighs symbols against each other"),
        (["strategy.kind=agent", "strategy.prompt=btcusdt_trader/v1"], ConfigError, "an agent takes none"),
        (["strategy.kind=agent"], PromptError, "has no action.*btcusdt_trader/v1"),
        (["strategy.params.allow_short=true"], ConfigError, "set risk.allow_short: true"),
        (["strategy.params.column=[close]"], ConfigError, "unknown key 'column'; did you mean columns"),
        (["strategy.params.columns=[retrun_24]"], ConfigError, "did you mean return_24"),
        (["prefetch.guess=ma_cross"], ConfigError, "must be hold or last for a ranker"),
        (
            ["strategy.kind=ensemble", "strategy.params={members: [agent, agent_ranker]}"],
            ConfigError,
            "they share one prompt",
        ),
    ],
)
def test_a_wrong_setting_is_reported_before_a_request_is_sent(
    tmp_path: Path, settings: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run_config(ranking(tmp_path, *settings), report=False)
    assert not list(tmp_path.glob("runs/2*"))


def test_shorts_are_asked_for_where_the_account_may_be_short(tmp_path: Path) -> None:
    settings = ("market.kind=um", "risk.allow_short=true", "strategy.params.allow_short=true")
    result = run_config(ranking(tmp_path, *settings), report=False)
    shares = decisions(result)["targets"].explode().struct.field("share")
    assert shares.min() < 0 < shares.max()
    assert replay(result.run_dir).identical


def test_scripted_replies_rank_as_well(tmp_path: Path) -> None:
    reply = json.dumps({"weights": [{"symbol": "SAMPLE02USDT", "weight": 0.5}]})
    config = ranking(tmp_path, "llm.provider=scripted", "llm.model=mine")
    config = config.model_copy(update={"llm": config.llm.model_copy(update={"params": {"replies": [reply] * 24}})})
    result = run_config(config, report=False)
    assert decisions(result)["provenance"].unique().to_list() == ["model"]


def test_the_parameters_of_a_ranker_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    one, other = (plan_run(ranking(tmp_path, *extra)).identity for extra in ((), ("strategy.params.max_symbols=3",)))
    assert one["strategy"] != other["strategy"]
    assert one["prompt"] == other["prompt"]


def test_two_rankers_with_tables_of_their_own_vote_in_one_ensemble(tmp_path: Path) -> None:
    members = "[{kind: agent_ranker, params: {columns: [return_24]}}, {kind: agent_ranker, params: {max_symbols: 3}}]"
    settings = ("strategy.kind=ensemble", f"strategy.params={{columns: null, members: {members}}}")
    with ChatServer(stand_in_answer()) as server:
        result = run_config(ranking(tmp_path, *over(server), *settings, "market.warmup=8d"), report=False)
    row = decisions(result).row(0, named=True)
    tables = [messages[-1]["content"] for messages in (row["messages"], row["others"][0]["messages"])]
    assert "symbol,price,return_24,weight" in tables[0]
    assert tables[1].startswith("3 symbols\n")
    assert result.summary["decisions"]["model"] == result.summary["decisions"]["total"] == 24
    assert replay(result.run_dir).identical
